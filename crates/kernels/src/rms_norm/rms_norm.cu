#include "common.cuh"

// out[row] = x[rows_of[row]] / sqrt(mean(x²) + eps) * weight; one block a row. Without `rows_of`
// row i is row i.
KERNEL void rms_norm(const float* __restrict__ x, const int* __restrict__ rows_of,
                     const float* __restrict__ weight, float eps, int cols,
                     float* __restrict__ out) {
    __shared__ float shared[32];
    wait_for_predecessors();
    const int64_t from = rows_of ? rows_of[blockIdx.x] : blockIdx.x;
    x += from * cols;
    out += (int64_t)blockIdx.x * cols;
    float sum = 0.0f;
    for (int col = threadIdx.x; col < cols; col += blockDim.x) sum += x[col] * x[col];
    const float scale = rsqrtf(block_sum(sum, shared) / cols + eps);
    for (int col = threadIdx.x; col < cols; col += blockDim.x) {
        out[col] = x[col] * scale * weight[col];
    }
}
