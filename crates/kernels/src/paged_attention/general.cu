// Attention for heads of any width up to MAX_HEAD_DIM: a warp takes one query and walks its keys,
// 32 at a time, one a lane. It is for shapes that no other kernel takes, and to check them by.
#include "attention.cuh"

KERNEL void __launch_bounds__(128) attention_general(Attention a) {
    extern __shared__ float queries[];  // [warps, head_dim]
    let_successors_start();
    wait_for_predecessors();
    int warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int sequence = blockIdx.z, head = blockIdx.x, row = blockIdx.y * warps + warp;
    int rows = a.rows[sequence], dim = a.head_dim;
    if (rows < a.min_rows || rows > a.max_rows || row >= rows) return;
    long long at_row = a.first_row[sequence] + row;
    const float* x = a.qkv + at_row * a.cols + head * a.query_stride;
    float* query = queries + warp * dim;
    for (int at = lane; at < dim; at += 32) query[at] = x[at] * a.scale;
    __syncwarp();

    int kv_head = head / (a.heads / a.kv_heads), tokens = a.start[sequence] + row + 1;
    const int* table = a.block_table + (long long)sequence * a.max_blocks;
    float highest = -INFINITY, sum = 0.0f, out[LANE_ELEMENTS] = {};
    for (int first = 0; first < tokens; first += 32) {
        int token = first + lane;
        bool seen = token < tokens;
        long long own = cache_offset(table[(seen ? token : first) / BLOCK_TOKENS], a.kv_heads,
                                     kv_head, token, dim);
        float score = 0.0f;
        for (int at = 0; seen && at < dim; at++)
            score += query[at] * __half2float(a.keys[own + at]);
        float tile = seen ? score : -INFINITY;
        for (int other = 16; other > 0; other /= 2)
            tile = fmaxf(tile, __shfl_xor_sync(~0u, tile, other));
        float before = highest;
        highest = fmaxf(highest, tile);
        float keep = exp2_fast(before - highest);
        float weight = seen ? exp2_fast(score - highest) : 0.0f;
        sum = sum * keep + weight;
#pragma unroll
        for (int k = 0; k < LANE_ELEMENTS; k++) out[k] *= keep;
        for (int key = 0; key < min(32, tokens - first); key++) {
            long long from = __shfl_sync(~0u, own, key);
            float by = __shfl_sync(~0u, weight, key);
#pragma unroll
            for (int k = 0; k < LANE_ELEMENTS; k++) {
                int at = lane + 32 * k;
                if (at < dim) out[k] += by * __half2float(a.values[from + at]);
            }
        }
    }
    for (int other = 16; other > 0; other /= 2) sum += __shfl_xor_sync(~0u, sum, other);
#pragma unroll
    for (int k = 0; k < LANE_ELEMENTS; k++) {
        int at = lane + 32 * k;
        if (at >= dim) continue;
        float gate = a.gated ? sigmoid(x[dim + at]) : 1.0f;
        a.out[(at_row * a.heads + head) * dim + at] = out[k] / sum * gate;
    }
}
