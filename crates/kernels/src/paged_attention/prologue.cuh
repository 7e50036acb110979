// Norm and rotation of a task's queries and of its new keys, a warp a head.
#pragma once

#include "task.cuh"

// What norm and rotation of a head need besides the head: a lane's elements lane + 32k.
template <int DIM>
struct Turn {
    float own[DIM / 32], other[DIM / 32];  // Weights, sine and sign in `other`'s.
    float cosine[DIM / 32];
};

template <int DIM>
__device__ __forceinline__ void prepare_turn(Turn<DIM>& turn, const float* weight,
                                             const Rotation& rotation, int position) {
#pragma unroll
    for (int k = 0; k < DIM / 32; k++) {
        int at = threadIdx.x % 32 + 32 * k, pairs = rotation.pairs;
        turn.own[k] = weight[at];
        turn.other[k] = 0.0f;
        if (at < 2 * pairs) {
            bool low = at < pairs;
            float2 by = angle(rotation, position, low ? at : at - pairs);
            turn.other[k] = weight[low ? at + pairs : at - pairs] * (low ? -by.y : by.y);
            turn.own[k] *= by.x;
        }
    }
}

// Norms and rotates a head: element lane + 32k is result[k].
template <int DIM>
__device__ __forceinline__ void apply_turn(float (&result)[DIM / 32], const Turn<DIM>& turn,
                                           const float* head, int pairs, float eps) {
    float other[DIM / 32], sum = 0.0f;
#pragma unroll
    for (int k = 0; k < DIM / 32; k++) {
        int at = threadIdx.x % 32 + 32 * k;
        int partner = at >= 2 * pairs ? at : at < pairs ? at + pairs : at - pairs;
        result[k] = head[at];
        other[k] = head[partner];
    }
#pragma unroll
    for (int k = 0; k < DIM / 32; k++) sum += result[k] * result[k];
    float inverse = rsqrtf(warp_sum(sum) / DIM + eps);
#pragma unroll
    for (int k = 0; k < DIM / 32; k++)
        result[k] = (result[k] * turn.own[k] + other[k] * turn.other[k]) * inverse;
}

// Items of the prologue, one a warp: the task's queries, then the new tokens' keys among the task's
// own, then their values. Tiles of one sequence may write the same values to the same place.
struct Items {
    int first_new;  // Token.
    int new_tokens;
    __device__ __forceinline__ Items(const Task& task) {
        first_new = max(task.first, task.start);
        new_tokens = max(task.end - first_new, 0);
    }
    __device__ __forceinline__ int count(const Task& task) const {
        return task.queries + 2 * new_tokens;
    }
};

template <int DIM>
__device__ __forceinline__ void prepare_item(Turn<DIM>& turn, int item, const Items& items,
                                             const Task& task, const Attention& a, const Decode& d,
                                             const Rotation& rotation) {
    bool is_query = item < task.queries;
    int position = is_query ? task.start + (task.first_query + item) / (a.heads / a.kv_heads)
                            : items.first_new + item - task.queries;
    if (item < task.queries + items.new_tokens)
        prepare_turn(turn, is_query ? d.q_norm : d.k_norm, rotation, position);
}

template <int DIM, int WARPS, int BUFFERS>
__device__ __forceinline__ void run_item(Shared<DIM, WARPS, BUFFERS>& shared, const Turn<DIM>& turn,
                                         int item, const Items& items, const Task& task,
                                         const Attention& a, const Decode& d, int pairs) {
    int lane = threadIdx.x % 32, group = a.heads / a.kv_heads;
    float x[DIM / 32];
    if (item < task.queries) {
        int query = task.first_query + item;
        long long row = task.first_row + query / group;
        int head = task.kv_head * group + query % group;
        apply_turn(x, turn, a.qkv + row * a.cols + head * a.query_stride, pairs, d.eps);
#pragma unroll
        for (int k = 0; k < DIM / 32; k++)
            *element<DIM>(shared.queries, item, lane + 32 * k) = saturated(x[k]);
        return;
    }
    int at = item - task.queries;
    bool is_key = at < items.new_tokens;
    int token = items.first_new + (is_key ? at : at - items.new_tokens);
    const float* from = a.qkv + (long long)(task.first_row + token - task.start) * a.cols
                        + a.heads * a.query_stride + task.kv_head * DIM;
    if (is_key) {
        apply_turn(x, turn, from, pairs, d.eps);
    } else {
#pragma unroll
        for (int k = 0; k < DIM / 32; k++) x[k] = from[a.kv_heads * DIM + lane + 32 * k];
    }
    int id = a.block_table[(long long)task.sequence * a.max_blocks + token / BLOCK_TOKENS];
    __half* to = is_key ? a.keys : a.values;
    to += cache_offset(id, a.kv_heads, task.kv_head, token, DIM);
    // The warp whose first block it is: blocks are taken from the last.
    int warp = (task.end - 1) / BLOCK_TOKENS - token / BLOCK_TOKENS;
    uint4* here = shared.buffers[warp][is_key ? 0 : 1];
#pragma unroll
    for (int k = 0; k < DIM / 32; k++) {
        __half half = saturated(x[k]);
        to[lane + 32 * k] = half;
        *element<DIM>(here, token % BLOCK_TOKENS, lane + 32 * k) = half;
    }
}
