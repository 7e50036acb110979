// Sums of results: of a CTA's warps, and of the CTAs that share a sequence's keys.
#pragma once

#include "shares.cuh"
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
template <int DIM, int WARPS, int BUFFERS>
__device__ __forceinline__ Sum sum_of_warps(Shared<DIM, WARPS, BUFFERS>& shared, int item) {
    int q = item / (DIM / 4), at = item % (DIM / 4) * 4;
    Sum parts[WARPS];
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        const float* from = &shared.result(w)[q * DIM + in_result(q, at)];
        parts[w] = {shared.weight[w][q], *reinterpret_cast<const float4*>(from)};
    }
    return total(parts);
}

// Where a part leaves the items of its result that others add up.
template <int DIM>
struct Left {
    float4* partial;
    float2* weight;

    __device__ __forceinline__ Left(const Task& task, const Decode& d, int part) {
        long long at = ((long long)task.place * d.most_parts + part) * ITEMS<DIM>;
        partial = d.partial + at;
        weight = d.weight + at;
    }

    __device__ __forceinline__ void leave(int item, const Sum& sum) const {
        leave_share(&partial[item], sum.value);
        leave_share(&weight[item], sum.weight);
    }

    // Whether there was something to read.
    __device__ __forceinline__ bool read(int item, Sum& sum) const {
        sum.value = read_share(&partial[item]);
        sum.weight = read_share(&weight[item]);
        return is_share(sum.value) & is_share(sum.weight);
    }

    __device__ __forceinline__ void clear(int item) const {
        clear_share(&partial[item]);
        clear_share(&weight[item]);
    }
};

// An item of all parts' results, in their order, when all are there. `own` is this CTA's.
template <int DIM>
__device__ __forceinline__ Sum sum_of_parts(const Task& task, const Decode& d, int item,
                                            const Sum& own) {
    constexpr int TOGETHER = 8;  // `PARTS_TOGETHER` of cuda.rs: so much is read beyond the last.
    Sum all[2] = {{{-INFINITY, 0.0f}, {}}};
    for (int first = 0; first < task.parts; first += TOGETHER) {
        Sum parts[TOGETHER];
        bool there = false;
        while (!there) {
            there = true;
            // Without a branch, so that all are asked for before any is waited for.
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) {
                int part = first + i;
                bool read = Left<DIM>(task, d, part).read(item, parts[i]);
                there &= read | (part >= task.parts) | (part == blockIdx.x);
            }
        }
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            if (first + i >= task.parts) {
                parts[i] = {{-INFINITY, 0.0f}, {}};
            } else if (first + i == blockIdx.x) {
                parts[i] = own;
            } else {
                Left<DIM>(task, d, first + i).clear(item);
            }
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

// Adds the warps' results up, then the parts'. All warps have left theirs. Parts that run at the
// same time add up a share of the items each; otherwise the last part, which is the last to start,
// adds up all of them. So none waits for one that does not run.
template <int DIM, int WARPS, int BUFFERS>
__device__ __forceinline__ void combine(Shared<DIM, WARPS, BUFFERS>& shared, const Task& task,
                                        const Attention& a, const Decode& d) {
    int items = task.queries * (DIM / 4);
    int share = d.together ? (items + task.parts - 1) / task.parts : items;
    int first = (task.parts - 1 - (int)blockIdx.x) * share, end = min(first + share, items);
    Left<DIM> left(task, d, blockIdx.x);
    for (int item = threadIdx.x; item < items; item += 32 * WARPS)
        if (item < first || item >= end) left.leave(item, sum_of_warps(shared, item));
    for (int item = first + threadIdx.x; item < end; item += 32 * WARPS) {
        float4 gate = load_gate<DIM>(task, a, item);
        Sum sum = sum_of_warps(shared, item);
        if (task.parts > 1) sum = sum_of_parts<DIM>(task, d, item, sum);
        finish<DIM>(sum, gate, task, a, item);
    }
}
