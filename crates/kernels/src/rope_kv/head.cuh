// One head of a row, by one warp: its norm, its rotation, and where a token lies in the cache.
#pragma once

#include "common.cuh"

// Tokens of a block of the cache.
constexpr int BLOCK_TOKENS = 16;
// The widest head, and how many of its elements a lane holds.
constexpr int MAX_HEAD_DIM = 256;
constexpr int LANE_ELEMENTS = MAX_HEAD_DIM / 32;

// Each pair's frequency as turns per token, in units of 2^-64 turns: the product with a position
// wraps exactly where the angle does, so no position is too large for it.
struct Rotation {
    unsigned long long turns[MAX_HEAD_DIM / 2];
    int pairs;
};

// Cosine and sine of a pair's angle at `position`.
__device__ __forceinline__ float2 angle(const Rotation& rotation, int position, int pair) {
    unsigned long long phase = (unsigned long long)position * rotation.turns[pair];
    float half_turns = (float)(int)(phase >> 32) * 0x1p-31f;
    float2 result;
    sincospif(half_turns, &result.y, &result.x);
    return result;
}

// A lane's elements lane + 32k of a head; zeros beyond its end.
__device__ __forceinline__ void load_head(float (&x)[LANE_ELEMENTS], const float* head,
                                          int head_dim) {
#pragma unroll
    for (int k = 0; k < LANE_ELEMENTS; k++) {
        int at = threadIdx.x % 32 + 32 * k;
        x[k] = at < head_dim ? head[at] : 0.0f;
    }
}

// 1 / sqrt(mean(head^2) + eps), the same on all lanes.
__device__ __forceinline__ float inverse_rms(const float (&x)[LANE_ELEMENTS], int head_dim,
                                             float eps) {
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < LANE_ELEMENTS; k++) sum += x[k] * x[k];
    return rsqrtf(warp_sum(sum) / (float)head_dim + eps);
}

// Element `at` of a head, which is `own`, after norm and rotation. Each lane reads the other half
// of the pair itself, so that any rotary width needs no exchange.
__device__ __forceinline__ float rotated(float own, const float* head, const float* weight,
                                         float inverse, const float2* angles, int pairs, int at) {
    own *= inverse * weight[at];
    if (at >= 2 * pairs) return own;
    bool low = at < pairs;
    int other = low ? at + pairs : at - pairs;
    float partner = head[other] * inverse * weight[other];
    float2 by = angles[low ? at : other];
    return low ? own * by.x - partner * by.y : own * by.x + partner * by.y;
}

// To half precision; what is too large for it becomes its largest value, and NaN stays NaN.
__device__ __forceinline__ __half saturated(float value) {
    value = value > 65504.0f ? 65504.0f : value < -65504.0f ? -65504.0f : value;
    return __float2half_rn(value);
}

// Offset of a token's head in a cache `[blocks, kv_heads, BLOCK_TOKENS, head_dim]`.
__device__ __forceinline__ long long cache_offset(int block, int kv_heads, int kv_head, int token,
                                                  int head_dim) {
    long long tile = (long long)block * kv_heads + kv_head;
    return (tile * BLOCK_TOKENS + token % BLOCK_TOKENS) * head_dim;
}
