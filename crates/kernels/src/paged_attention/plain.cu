#include "common.cuh"

// One block a row and query head; one warp, which goes through the keys one after the other with a
// running maximum. Slow for long contexts and right for every shape up to 512 elements a head.
KERNEL void attention_plain(const float* __restrict__ qkv, int heads, int kv_heads, int head_dim,
                            int query_stride, int cols, int gated,
                            const int* __restrict__ positions,
                            const int* __restrict__ row_sequence,
                            const int* __restrict__ block_table, int blocks_stride, int block_size,
                            const __half* __restrict__ keys, const __half* __restrict__ values,
                            float* __restrict__ out) {
    constexpr int MOST = 16;
    wait_for_predecessors();
    const int row = blockIdx.y, head = blockIdx.x, lane = threadIdx.x;
    const int kv_head = head / (heads / kv_heads);
    const float* q = qkv + (int64_t)row * cols + head * query_stride;
    out += ((int64_t)row * heads + head) * head_dim;
    const int sequence = row_sequence[row];
    float query[MOST], sums[MOST];
    const float scale = rsqrtf((float)head_dim);
#pragma unroll
    for (int at = 0; at < MOST; at++) {
        const int i = at * WARP + lane;
        query[at] = i < head_dim ? q[i] * scale : 0.0f;
        sums[at] = 0.0f;
    }
    float highest = -INFINITY, total = 0.0f;
    const int tokens = sequence < 0 ? 0 : positions[row] + 1;
    for (int token = 0; token < tokens; token++) {
        const int block = block_table[(int64_t)sequence * blocks_stride + token / block_size];
        const int64_t place =
            (((int64_t)block * kv_heads + kv_head) * block_size + token % block_size) * head_dim;
        float score = 0.0f;
#pragma unroll
        for (int at = 0; at < MOST; at++) {
            const int i = at * WARP + lane;
            if (i < head_dim) score += query[at] * __half2float(keys[place + i]);
        }
        score = warp_sum(score);
        const float higher = fmaxf(highest, score);
        const float keep = expf(highest - higher), weight = expf(score - higher);
        total = total * keep + weight;
        highest = higher;
#pragma unroll
        for (int at = 0; at < MOST; at++) {
            const int i = at * WARP + lane;
            if (i < head_dim) sums[at] = sums[at] * keep + weight * __half2float(values[place + i]);
        }
    }
#pragma unroll
    for (int at = 0; at < MOST; at++) {
        const int i = at * WARP + lane;
        if (i >= head_dim) continue;
        const float value = tokens > 0 ? sums[at] / total : 0.0f;
        out[i] = gated ? value * sigmoid(q[head_dim + i]) : value;
    }
}
