#include "common.cuh"

// x = rms_norm(x) * weight * silu(z), one block a row and head; `z` starts at column `z_offset` of
// the projection.
KERNEL void gated_norm(float* __restrict__ x, const float* __restrict__ projected, int cols,
                       int z_offset, const float* __restrict__ weight, float eps, int heads,
                       int dim) {
    __shared__ float shared[32];
    wait_for_predecessors();
    const int row = blockIdx.y, head = blockIdx.x;
    x += ((int64_t)row * heads + head) * dim;
    const float* z = projected + (int64_t)row * cols + z_offset + head * dim;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < dim; i += blockDim.x) sum += x[i] * x[i];
    const float scale = rsqrtf(block_sum(sum, shared) / dim + eps);
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        x[i] = x[i] * scale * weight[i] * silu(z[i]);
    }
}
