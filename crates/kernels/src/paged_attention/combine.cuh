// Sums of results: of a CTA's warps, of a cluster's CTAs, of a sequence's clusters.
#pragma once

#include "task.cuh"

// One item of a sum of results: highest score and sum, elements not normalised.
struct Sum {
    float2 weight;
    float4 value;
};

// The sum of some: in their order, to a common highest score. A part without keys for this query
// has none, and elements of zero.
template <int N>
__device__ __forceinline__ Sum total(const Sum (&parts)[N]) {
    float highest = -INFINITY;
#pragma unroll
    for (int i = 0; i < N; i++) highest = fmaxf(highest, parts[i].weight.x);
    float base = highest == -INFINITY ? 0.0f : highest;
    Sum sum = {{highest, 0.0f}, {}};
#pragma unroll
    for (int i = 0; i < N; i++) {
        float by = exp2_fast(parts[i].weight.x - base);
        sum.weight.y += parts[i].weight.y * by;
        sum.value.x += parts[i].value.x * by;
        sum.value.y += parts[i].value.y * by;
        sum.value.z += parts[i].value.z * by;
        sum.value.w += parts[i].value.w * by;
    }
    return sum;
}

// An item of the CTA's result.
template <int DIM, int WARPS>
__device__ __forceinline__ Sum sum_of_warps(const Shared<DIM, WARPS>& shared, int item) {
    int q = item / (DIM / 4), at = item % (DIM / 4) * 4;
    Sum parts[WARPS];
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        const float* out = reinterpret_cast<const float*>(shared.keys[w]);
        const float* from = &out[q * DIM + in_result(q, at)];
        parts[w] = {shared.weight[w][q], *reinterpret_cast<const float4*>(from)};
    }
    return total(parts);
}

// Item `at` of this CTA's `share` of them, as the cluster's CTAs sent it.
template <int DIM, int WARPS>
__device__ __forceinline__ Sum sum_of_ranks(const Shared<DIM, WARPS>& shared, int at, int share) {
    int ranks = cluster_size();
    Sum parts[MAX_RANKS];
#pragma unroll
    for (int rank = 0; rank < MAX_RANKS; rank++) {
        parts[rank] = {{-INFINITY, 0.0f}, {}};
        if (rank >= ranks) continue;
        parts[rank] = {shared.sent_weight[rank * share + at], shared.sent[rank * share + at]};
    }
    return total(parts);
}

// An item of the clusters' results.
template <int DIM>
__device__ __forceinline__ Sum sum_of_clusters(const Task& task, const Decode& d, int item) {
    constexpr int TOGETHER = 8;
    long long first = (long long)task.place * (d.most_splits / cluster_size());
    Sum all[2] = {{{-INFINITY, 0.0f}, {}}};
    for (int cluster = 0; cluster < task.clusters; cluster += TOGETHER) {
        Sum parts[TOGETHER];
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            parts[i] = {{-INFINITY, 0.0f}, {}};
            if (cluster + i >= task.clusters) continue;
            long long at = (first + cluster + i) * ITEMS<DIM> + item;
            parts[i] = {__ldcg(&d.weight[at]), __ldcg(&d.partial[at])};
        }
        all[1] = total(parts);
        all[0] = total(all);
    }
    return all[0];
}

// Where an item is in the step: its row, and its column within the query heads' results.
struct Place {
    long long row;
    int head;
    int at;
};

template <int DIM>
__device__ __forceinline__ Place place_of(const Task& task, const Attention& a, int item) {
    int group = a.heads / a.kv_heads, query = task.first_query + item / (DIM / 4);
    return {task.first_row + query / group, task.kv_head * group + query % group,
            item % (DIM / 4) * 4};
}

template <int DIM>
__device__ __forceinline__ float4 load_gate(const Task& task, const Attention& a, int item) {
    if (!a.gated) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    Place to = place_of<DIM>(task, a, item);
    const float* gate = a.qkv + to.row * a.cols + to.head * a.query_stride + DIM + to.at;
    return *reinterpret_cast<const float4*>(gate);
}

// The result, normalised and gated.
template <int DIM>
__device__ __forceinline__ void finish(const Sum& sum, float4 gate, const Task& task,
                                       const Attention& a, int item) {
    Place to = place_of<DIM>(task, a, item);
    float by = 1.0f / sum.weight.y;
    float4 value = make_float4(sum.value.x * by, sum.value.y * by, sum.value.z * by,
                               sum.value.w * by);
    if (a.gated) {
        value.x *= sigmoid(gate.x);
        value.y *= sigmoid(gate.y);
        value.z *= sigmoid(gate.z);
        value.w *= sigmoid(gate.w);
    }
    *reinterpret_cast<float4*>(a.out + (to.row * a.heads + to.head) * DIM + to.at) = value;
}

// True in all threads of the last CTA of this rank to get here, to which the others' results are
// visible.
__device__ __forceinline__ bool arrives_last(int* arrived, int others, int* last) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        *last = atomicAdd(arrived, 1) == others;
        if (*last) *arrived = 0;
        __threadfence();
    }
    __syncthreads();
    return *last;
}

// Adds the warps' results up, then the cluster's, then the clusters'. All warps have left theirs.
template <int DIM, int WARPS>
__device__ __forceinline__ void combine(Shared<DIM, WARPS>& shared, const Task& task,
                                        const Attention& a, const Decode& d) {
    int ranks = cluster_size(), rank = cluster_rank();
    int items = task.queries * (DIM / 4), share = (items + ranks - 1) / ranks;
    int first = rank * share, own = min(share, items - first);
    bool alone = task.clusters == 1;
    if (ranks > 1) {
        cluster_wait();  // All have started.
        for (int item = threadIdx.x; item < items; item += 32 * WARPS) {
            Sum sum = sum_of_warps(shared, item);
            int at = rank * share + item % share;
            *in_block(&shared.sent[at], item / share) = sum.value;
            *in_block(&shared.sent_weight[at], item / share) = sum.weight;
        }
        cluster_arrive();
    }
    float4 gate = {};
    if (threadIdx.x < own) gate = load_gate<DIM>(task, a, first + threadIdx.x);
    if (ranks > 1) cluster_wait();
    int cluster = blockIdx.x / ranks, most = d.most_splits / ranks;
    float4* partial = d.partial + ((long long)task.place * most + cluster) * ITEMS<DIM>;
    float2* weight = d.weight + ((long long)task.place * most + cluster) * ITEMS<DIM>;
    for (int at = threadIdx.x; at < own; at += 32 * WARPS) {
        int item = first + at;
        Sum sum = ranks > 1 ? sum_of_ranks(shared, at, share) : sum_of_warps(shared, item);
        if (at != threadIdx.x) gate = load_gate<DIM>(task, a, item);
        if (alone) {
            finish<DIM>(sum, gate, task, a, item);
        } else {
            partial[item] = sum.value;
            weight[item] = sum.weight;
        }
    }
    if (alone) return;
    int* arrived = &d.arrived[task.place * ranks + rank];
    if (!arrives_last(arrived, task.clusters - 1, &shared.last)) return;
    for (int at = threadIdx.x; at < own; at += 32 * WARPS) {
        int item = first + at;
        if (at != threadIdx.x || own > 32 * WARPS) gate = load_gate<DIM>(task, a, item);
        finish<DIM>(sum_of_clusters<DIM>(task, d, item), gate, task, a, item);
    }
}
