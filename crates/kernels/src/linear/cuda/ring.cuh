// A warp's ring of units on their way from memory into shared memory.
#pragma once

#include "common.cuh"

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Whether a barrier's phase is over; may wait a little for it.
__device__ __forceinline__ bool is_done(uint32_t barrier, int phase) {
    uint32_t done;
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; "
        "selp.u32 %0, 1, 0, p; }"
        : "=r"(done)
        : "r"(barrier), "r"(phase)
        : "memory");
#else
    asm volatile(
        "{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
        : "=r"(done)
        : "r"(barrier), "r"(phase)
        : "memory");
#endif
    return done != 0;
}

// A warp's units on their way.
struct Ring {
    uint32_t slots;    // Shared addresses.
    uint32_t arrived;
    int bytes;
    int count;

    __device__ __forceinline__ void open(int lane) const {
#if __CUDA_ARCH__ >= 900
        constexpr int arrivals = 1;
#else
        constexpr int arrivals = WARP;
#endif
        if (lane < count) {
            asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(arrived + 8 * lane),
                         "n"(arrivals)
                         : "memory");
        }
#if __CUDA_ARCH__ >= 900
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
        __syncwarp();
    }

    // Asks for a unit. All lanes call it. What is read once a step is what the second-level
    // cache should let go first: else it drives out what every layer needs, the program included.
    template <bool ONCE = true>
    __device__ __forceinline__ void ask(
        int slot, const uint8_t* unit, int size, int lane) const {
        const uint32_t to = slots + slot * bytes, barrier = arrived + slot * 8;
#if __CUDA_ARCH__ >= 900
        if (lane == 0) {
            asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier),
                         "r"(size)
                         : "memory");
            if (ONCE) {
                uint64_t policy;
                asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
                asm volatile(
                    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
                    ".L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(to),
                    "l"(unit), "r"(size), "r"(barrier), "l"(policy)
                    : "memory");
            } else {
                asm volatile(
                    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], "
                    "%2, [%3];" ::"r"(to),
                    "l"(unit), "r"(size), "r"(barrier)
                    : "memory");
            }
        }
#else
        for (int at = 16 * lane; at < size; at += 16 * WARP) {
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + at), "l"(unit + at)
                         : "memory");
        }
        asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier) : "memory");
#endif
    }

    // Waits until a slot's unit is there. `phase` flips whenever the ring has gone round.
    __device__ __forceinline__ void wait(int slot, int phase) const {
        while (!is_done(arrived + slot * 8, phase)) {
        }
    }
};
