// Sums that one block leaves in memory for another, which waits for them.
#pragma once

#include "common.cuh"

// What no sum is: the place of a share that is not there.
constexpr uint32_t NOTHING = 0xffffffffu;

// The bits that are left of a sum: never those of NOTHING.
__device__ __forceinline__ uint32_t share_bits(float sum) {
    const uint32_t bits = __float_as_uint(sum);
    return bits == NOTHING ? 0x7fffffffu : bits;
}

// Leaves a sum for another block.
__device__ __forceinline__ void leave_share(float* to, float sum) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(share_bits(sum)) : "memory");
}

__device__ __forceinline__ void leave_share(float2* to, float2 sums) {
    asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %2};" ::"l"(to),
                 "r"(share_bits(sums.x)), "r"(share_bits(sums.y))
                 : "memory");
}

__device__ __forceinline__ void leave_share(float4* to, float4 sums) {
    asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to),
                 "r"(share_bits(sums.x)), "r"(share_bits(sums.y)), "r"(share_bits(sums.z)),
                 "r"(share_bits(sums.w))
                 : "memory");
}

// What another block has left, or NOTHING.
__device__ __forceinline__ float2 read_share(const float2* from) {
    float2 sums;
    asm volatile("ld.relaxed.gpu.global.v2.f32 {%0, %1}, [%2];"
                 : "=f"(sums.x), "=f"(sums.y)
                 : "l"(from)
                 : "memory");
    return sums;
}

__device__ __forceinline__ float4 read_share(const float4* from) {
    float4 sums;
    asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(sums.x), "=f"(sums.y), "=f"(sums.z), "=f"(sums.w)
                 : "l"(from)
                 : "memory");
    return sums;
}

__device__ __forceinline__ bool is_share(float sum) { return __float_as_uint(sum) != NOTHING; }

__device__ __forceinline__ bool is_share(float2 sums) {
    return is_share(sums.x) & is_share(sums.y);
}

__device__ __forceinline__ bool is_share(float4 sums) {
    return is_share(sums.x) & is_share(sums.y) & is_share(sums.z) & is_share(sums.w);
}

// Leaves nothing in the place of what was taken.
__device__ __forceinline__ void clear_share(float2* at) {
    asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %1};" ::"l"(at), "r"(NOTHING)
                 : "memory");
}

__device__ __forceinline__ void clear_share(float4* at) {
    asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1, %1, %1, %1};" ::"l"(at), "r"(NOTHING)
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
