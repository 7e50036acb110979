#include "common.cuh"

// out[row][col] = silu(gate_up[row][col]) * gate_up[row][cols + col]
KERNEL void swiglu(const float* __restrict__ gate_up, float* __restrict__ out, int rows, int cols) {
    wait_for_predecessors();
    const int64_t items = (int64_t)rows * cols;
    for (int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; at < items;
         at += (int64_t)gridDim.x * blockDim.x) {
        const int64_t row = at / cols, col = at % cols;
        const float* x = gate_up + row * 2 * cols;
        out[at] = silu(x[col]) * x[cols + col];
    }
}
