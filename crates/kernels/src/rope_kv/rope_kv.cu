// Norm and rotation of queries (in place) and keys, and keys and values into their blocks.
//
// One CTA takes heads of one row, a warp a head; the row's angles are computed once per CTA.
#include "head.cuh"

struct RopeKv {
    float* qkv;  // [rows, cols]: q (each head followed by its gate if it has one) | k | v
    const float* q_norm;
    const float* k_norm;
    __half* keys;  // [blocks, kv_heads, BLOCK_TOKENS, head_dim]
    __half* values;
    const int* positions;     // [rows]
    const int* row_sequence;  // [rows], -1: a padded row
    const int* seq_rows;      // [sequences]
    const int* block_table;   // [sequences, max_blocks]
    int max_blocks;
    int cols;
    int heads;
    int kv_heads;
    int head_dim;
    int query_stride;
    int min_rows;  // Sequences with fewer are left to the kernel that does this by itself.
    float eps;
};

static_assert(sizeof(RopeKv) == 104 && sizeof(Rotation) == 1032, "cuda.rs has the same");

KERNEL void __launch_bounds__(256) rope_kv(RopeKv a, Rotation rotation) {
    __shared__ float2 angles[MAX_HEAD_DIM / 2];
    int row = blockIdx.x, lane = threadIdx.x % 32;
    int sequence = a.row_sequence[row], position = a.positions[row];
    bool mine = sequence >= 0 && a.seq_rows[sequence] >= a.min_rows;
    let_successors_start();
    if (mine) {
        for (int pair = threadIdx.x; pair < rotation.pairs; pair += blockDim.x)
            angles[pair] = angle(rotation, position, pair);
    }
    __syncthreads();
    wait_for_predecessors();
    if (!mine) return;

    int warps = blockDim.x / 32, dim = a.head_dim, stride = gridDim.y * warps;
    int block = a.block_table[(long long)sequence * a.max_blocks + position / BLOCK_TOKENS];
    float* queries = a.qkv + (long long)row * a.cols;
    const float* keys = queries + a.heads * a.query_stride;
    int all = a.heads + 2 * a.kv_heads, head = blockIdx.y * warps + threadIdx.x / 32;
    // Keys' heads follow the queries', values' the keys'.
    auto place = [&](int head) {
        return head < a.heads ? queries + head * a.query_stride : keys + (head - a.heads) * dim;
    };
    float next[LANE_ELEMENTS];
    if (head < all) load_head(next, place(head), dim);
    for (; head < all; head += stride) {
        float x[LANE_ELEMENTS];
#pragma unroll
        for (int k = 0; k < LANE_ELEMENTS; k++) x[k] = next[k];
        if (head + stride < all) load_head(next, place(head + stride), dim);
        bool is_query = head < a.heads, is_value = head >= a.heads + a.kv_heads;
        if (!is_value) {
            const float* weight = is_query ? a.q_norm : a.k_norm;
            float inverse = inverse_rms(x, dim, a.eps);
#pragma unroll
            for (int k = 0; k < LANE_ELEMENTS; k++) {
                int at = lane + 32 * k;
                if (at >= dim) continue;
                x[k] = rotated(x[k], place(head), weight, inverse, angles, rotation.pairs, at);
            }
        }
        __syncwarp();  // All lanes have read what others are about to overwrite.
        int kv_head = (head - a.heads) % a.kv_heads;
        __half* stored = is_value ? a.values : a.keys;
        stored += cache_offset(block, a.kv_heads, is_query ? 0 : kv_head, position, dim);
#pragma unroll
        for (int k = 0; k < LANE_ELEMENTS; k++) {
            int at = lane + 32 * k;
            if (at >= dim) continue;
            if (is_query) queries[head * a.query_stride + at] = x[k];
            else stored[at] = saturated(x[k]);
        }
    }
}
