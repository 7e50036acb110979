#include "common.cuh"

// One block a sequence and value head, one thread a value row of the state, token after token.
// state [slot][value_head][value_dim][key_dim]; the state of one head lies in shared memory, a
// float apart from row to row so that threads meet no bank twice.
KERNEL void gated_delta_rule_plain(const float* __restrict__ projected, int cols,
                                   const float* __restrict__ decay,
                                   const float* __restrict__ dt_bias, float* __restrict__ state,
                                   int key_heads, int value_heads, int key_dim, int value_dim,
                                   int tiled, const int* __restrict__ first_row,
                                   const int* __restrict__ seq_rows, const int* __restrict__ start,
                                   const int* __restrict__ slot, float* __restrict__ out) {
    extern __shared__ float memory[];
    __shared__ float shared[32];
    wait_for_predecessors();
    const int head = blockIdx.x, sequence = blockIdx.y, v = threadIdx.x;
    if (slot[sequence] < 0) return;
    const int key_head = tiled ? head % key_heads : head / (value_heads / key_heads);
    const int stride = key_dim + 1;
    float* q = memory + value_dim * stride;
    float* k = q + key_dim;
    float* kept = state + ((int64_t)slot[sequence] * value_heads + head) * value_dim * key_dim;
    for (int at = v; at < value_dim * key_dim; at += blockDim.x) {
        memory[at / key_dim * stride + at % key_dim] = start[sequence] > 0 ? kept[at] : 0.0f;
    }
    const int keys = key_heads * key_dim, values = value_heads * value_dim;
    for (int row = 0; row < seq_rows[sequence]; row++) {
        const float* x = projected + (int64_t)(first_row[sequence] + row) * cols;
        float q_sum = 0.0f, k_sum = 0.0f;
        for (int i = v; i < key_dim; i += blockDim.x) {
            q[i] = x[key_head * key_dim + i];
            k[i] = x[keys + key_head * key_dim + i];
            q_sum += q[i] * q[i];
            k_sum += k[i] * k[i];
        }
        const float q_scale = rsqrtf(block_sum(q_sum, shared) + 1e-6f) * rsqrtf((float)key_dim);
        const float k_scale = rsqrtf(block_sum(k_sum, shared) + 1e-6f);
        for (int i = v; i < key_dim; i += blockDim.x) {
            q[i] *= q_scale;
            k[i] *= k_scale;
        }
        __syncthreads();
        const float beta = sigmoid(x[2 * keys + 2 * values + head]);
        const float a = x[2 * keys + 2 * values + value_heads + head] + dt_bias[head];
        const float softplus = fmaxf(a, 0.0f) + log1pf(expf(-fabsf(a)));
        const float keep = expf(decay[head] * softplus);
        if (v < value_dim) {
            float* own = memory + v * stride;
            float read = 0.0f, result = 0.0f;
            for (int i = 0; i < key_dim; i++) read += keep * own[i] * k[i];
            const float u = beta * (x[2 * keys + head * value_dim + v] - read);
            for (int i = 0; i < key_dim; i++) {
                own[i] = keep * own[i] + u * k[i];
                result += own[i] * q[i];
            }
            out[((int64_t)(first_row[sequence] + row) * value_heads + head) * value_dim + v] =
                result;
        }
        __syncthreads();
    }
    for (int at = v; at < value_dim * key_dim; at += blockDim.x) {
        kept[at] = memory[at / key_dim * stride + at % key_dim];
    }
}
