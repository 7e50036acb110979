#include "dequantize.cuh"

// The plain way for every format: a warp a weight row, every input row one after the other. It is
// what the fast kernels are held against, and what runs where none of them fits.
//
// out[row * stride + first_col + output] (+)= sum over k of x[row][k] * weight[output][k]
KERNEL void linear_plain(const uint8_t* __restrict__ weight, int type, int block_elements,
                         int block_bytes, int64_t row_bytes, int outputs, int cols,
                         const float* __restrict__ x, int rows, float* __restrict__ out,
                         int stride, int first_col, int add) {
    wait_for_predecessors();
    const int warps = blockDim.x / WARP, lane = threadIdx.x % WARP;
    const int output = blockIdx.x * warps + threadIdx.x / WARP;
    if (output >= outputs) return;
    const uint8_t* blocks = weight + output * row_bytes;
    constexpr int ROWS = 8;
    for (int first = blockIdx.y * ROWS; first < rows; first += gridDim.y * ROWS) {
        float sums[ROWS] = {};
        for (int k = lane; k < cols; k += WARP) {
            const float w = element(type, blocks, k, block_elements, block_bytes);
#pragma unroll
            for (int at = 0; at < ROWS; at++) {
                if (first + at < rows) sums[at] += w * x[(int64_t)(first + at) * cols + k];
            }
        }
#pragma unroll
        for (int at = 0; at < ROWS; at++) {
            const float sum = warp_sum(sums[at]);
            if (lane == 0 && first + at < rows) {
                float* place = out + (int64_t)(first + at) * stride + first_col + output;
                *place = add ? *place + sum : sum;
            }
        }
    }
}

// residual += x
KERNEL void add_rows(const float* __restrict__ x, float* __restrict__ residual, int64_t items) {
    wait_for_predecessors();
    const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < items) residual[at] += x[at];
}
