// Blocks of a cluster and their shared memory; where a card has no clusters each block is alone.
#pragma once

#include "common.cuh"

__device__ __forceinline__ int cluster_size() {
#if __CUDA_ARCH__ >= 900
    unsigned size;
    asm("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(size));
    return size;
#else
    return 1;
#endif
}

__device__ __forceinline__ int cluster_rank() {
#if __CUDA_ARCH__ >= 900
    unsigned rank;
    asm("mov.u32 %0, %%cluster_ctaid.x;" : "=r"(rank));
    return rank;
#else
    return 0;
#endif
}

// Waits for all threads of the cluster; what they wrote to shared memory before can be read.
__device__ __forceinline__ void cluster_sync() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#else
    __syncthreads();
#endif
}

// The same place in the shared memory of block `rank` of the cluster.
template <typename T>
__device__ __forceinline__ const T* in_block(const T* own, int rank) {
#if __CUDA_ARCH__ >= 900
    unsigned long long there;
    asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(own), "r"(rank));
    return reinterpret_cast<const T*>(there);
#else
    return own;
#endif
}
