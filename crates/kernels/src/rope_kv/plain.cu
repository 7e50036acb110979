#include "common.cuh"

// One block a row and head: query heads, then key heads, then value heads. Queries are normed and
// rotated in place; keys and values go to their blocks in f16, saturated.
//
// cache [block][kv_head][block_size][head_dim]
KERNEL void rope_kv_plain(float* __restrict__ qkv, const float* __restrict__ q_norm,
                          const float* __restrict__ k_norm, float eps, int heads, int kv_heads,
                          int head_dim, int rotary_dim, double theta, int query_stride, int cols,
                          const int* __restrict__ positions, const int* __restrict__ row_sequence,
                          const int* __restrict__ block_table, int blocks_stride, int block_size,
                          __half* __restrict__ keys, __half* __restrict__ values) {
    extern __shared__ float head_values[];
    __shared__ float shared[32];
    wait_for_predecessors();
    const int row = blockIdx.y, head = blockIdx.x;
    const int kind = head < heads ? 0 : head < heads + kv_heads ? 1 : 2;
    const int kv_head = kind == 1 ? head - heads : head - heads - kv_heads;
    float* x = qkv + (int64_t)row * cols;
    x += kind == 0 ? head * query_stride
                   : heads * query_stride + (kind - 1) * kv_heads * head_dim + kv_head * head_dim;
    const int position = positions[row], sequence = row_sequence[row];
    float sum = 0.0f;
    for (int i = threadIdx.x; i < head_dim; i += blockDim.x) sum += x[i] * x[i];
    const float scale = rsqrtf(block_sum(sum, shared) / head_dim + eps);
    const float* norm = kind == 0 ? q_norm : k_norm;
    for (int i = threadIdx.x; i < head_dim; i += blockDim.x) {
        head_values[i] = kind == 2 ? x[i] : x[i] * scale * norm[i];
    }
    __syncthreads();
    if (kind < 2) {
        const int half = rotary_dim / 2;
        for (int i = threadIdx.x; i < half; i += blockDim.x) {
            double sine, cosine;
            sincos(position * pow(theta, -2.0 * i / rotary_dim), &sine, &cosine);
            const float a = head_values[i], b = head_values[i + half];
            head_values[i] = a * (float)cosine - b * (float)sine;
            head_values[i + half] = b * (float)cosine + a * (float)sine;
        }
        __syncthreads();
    }
    if (kind == 0) {
        for (int i = threadIdx.x; i < head_dim; i += blockDim.x) x[i] = head_values[i];
        return;
    }
    if (sequence < 0) return;
    const int block = block_table[(int64_t)sequence * blocks_stride + position / block_size];
    const int64_t place =
        ((int64_t)block * kv_heads + kv_head) * block_size + position % block_size;
    __half* to = (kind == 1 ? keys : values) + place * head_dim;
    for (int i = threadIdx.x; i < head_dim; i += blockDim.x) {
        to[i] = __float2half_rn(fminf(fmaxf(head_values[i], -65504.0f), 65504.0f));
    }
}
