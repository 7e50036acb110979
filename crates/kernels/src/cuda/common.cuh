// What kernels share: waiting for a predecessor, sums over a warp and a block, conversions.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#define KERNEL extern "C" __global__

constexpr int WARP = 32;

// Waits until everything that earlier kernels of this stream wrote can be read. A kernel that is
// launched as overlapping calls it on every path, before it reads what the step wrote and before it
// writes anything. Weights may be read before.
__device__ __forceinline__ void wait_for_predecessors() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next kernel of the stream be scheduled, if it is launched as overlapping. It says
// nothing about memory: the successor still waits for this whole grid.
__device__ __forceinline__ void let_successors_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, offset);
    }
    return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
    }
    return value;
}

// The sum over all threads of a block of at most 1024, the same bits in every thread. `shared` is
// room for 32 floats that nobody else uses; it may be used again after the next barrier.
__device__ __forceinline__ float block_sum(float value, float* shared) {
    const int warps = (blockDim.x + WARP - 1) / WARP;
    value = warp_sum(value);
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = value;
    __syncthreads();
    float total = 0.0f;
    for (int warp = 0; warp < warps; warp++) total += shared[warp];
    __syncthreads();
    return total;
}

__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// log(1 + exp(x)); above 20 that is x in single precision, and exp would overflow later.
__device__ __forceinline__ float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }
