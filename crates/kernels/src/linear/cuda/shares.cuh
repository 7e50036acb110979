// Sums that one block leaves in memory for another, which waits for them.
#pragma once

#include "common.cuh"

// What no sum is: the place of a share that is not there.
constexpr uint32_t NOTHING = 0xffffffffu;

// Leaves a sum for another block.
__device__ __forceinline__ void leave_share(float* to, float sum) {
    const uint32_t bits = __float_as_uint(sum);
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to),
                 "r"(bits == NOTHING ? 0x7fffffffu : bits)
                 : "memory");
}

// Takes what another block has left, when it is there, and leaves nothing in its place.
__device__ __forceinline__ float take_share(float* from) {
    uint32_t bits = NOTHING;
    while (bits == NOTHING) {
        asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(bits) : "l"(from) : "memory");
    }
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(from), "r"(NOTHING) : "memory");
    return __uint_as_float(bits);
}

// Takes several at once, so that they are waited for together; 0 where there is none to take.
template <int N>
__device__ __forceinline__ void take_shares(float* const (&from)[N], float (&shares)[N]) {
    uint32_t bits[N];
    bool all = false;
    while (!all) {
        all = true;
#pragma unroll
        for (int i = 0; i < N; i++) {
            bits[i] = 0;
            if (from[i] != nullptr) {
                asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];"
                             : "=r"(bits[i])
                             : "l"(from[i])
                             : "memory");
            }
        }
#pragma unroll
        for (int i = 0; i < N; i++) all &= bits[i] != NOTHING;
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        shares[i] = __uint_as_float(bits[i]);
        if (from[i] == nullptr) continue;
        asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(from[i]), "r"(NOTHING)
                     : "memory");
    }
}
