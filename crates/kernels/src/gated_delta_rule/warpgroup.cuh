// Products of a warpgroup, of cards that have them: 64 values by 64 tokens or 128 keys, 16 deep. A
// warp has 16 rows of the left operand and of the sums, laid out as `multiply` has them; the right
// operand is read from a tile in shared memory. They run beside the thread that starts them.
#pragma once

#include "chunk.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HAS_WARPGROUPS 1

// How the hardware finds a right operand: rows of 128 bytes, swizzled, eight rows 1024 bytes.
// `halves` bytes lie between the two halves of a tile; it is looked at where rows are deep.
__device__ __forceinline__ uint64_t describe(uint32_t at, int halves) {
    return (uint64_t)((at & 0x3ffff) >> 4) | (uint64_t)(halves >> 4) << 16 |
           (uint64_t)(1024 >> 4) << 32 | 1ull << 62;
}

// Registers of a product are ready to be read by it.
__device__ __forceinline__ void fence_products() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void end_products() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int LEFT>
__device__ __forceinline__ void wait_for_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

#define SUMS_4(S, I) "+f"(S[I][0]), "+f"(S[I][1]), "+f"(S[I][2]), "+f"(S[I][3])
#define SUMS_16(S, I) SUMS_4(S, I), SUMS_4(S, I + 1), SUMS_4(S, I + 2), SUMS_4(S, I + 3)

// sum[64][64 tokens] = a[64][16] · bᵀ, or added to it, a row of b being a token and 16 neighbours.
template <bool ADD>
__device__ __forceinline__ void start_by_rows(float (&sum)[8][4], const uint32_t (&a)[4],
                                              uint64_t b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, %37, 1, 1, 0;"
        : SUMS_16(sum, 0), SUMS_16(sum, 4)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(ADD ? 1 : 0));
}

// sum[64][128 keys] += a[64][16 tokens] · b, a row of b being a token and all keys.
__device__ __forceinline__ void start_by_columns(float (&sum)[16][4], const uint32_t (&a)[4],
                                                 uint64_t b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "{%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
        : SUMS_16(sum, 0), SUMS_16(sum, 4), SUMS_16(sum, 8), SUMS_16(sum, 12)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
#endif
