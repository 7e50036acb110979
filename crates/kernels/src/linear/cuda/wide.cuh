// Units of weights as scaled halves, for products of a warpgroup.
//
// One unit meets up to 64 rows of activations here, so a weight is scaled before it is multiplied,
// once, and not its products, once a row: sums then run on through all columns. A scaled weight is
// rounded to 11 bits, as activations are.
//
// A whole number n below 1024 is the lower bits of the half 1024 + n, and four bits higher, as rows
// 8 to 15 of a tile have it, of the half 64 + n. Taking 1024 or 64 off again is exact.
#pragma once

#include "unit.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int CHUNK_COLS = 256;
constexpr int CHUNK_STEPS = CHUNK_COLS / 16 + 1;  // The last one has the means; see `operand.cuh`.

constexpr uint32_t OF_1024 = 0x64006400u, OF_64 = 0x54005400u;
constexpr uint32_t LESS_1024 = 0xe400e400u, LESS_64 = 0xd400d400u;
constexpr uint32_t LESS_1056 = 0xe420e420u, LESS_96 = 0xd600d600u, LESS_1152 = 0xe480e480u;

__device__ __forceinline__ uint32_t times(uint32_t a, uint32_t b) {
    uint32_t product;
    asm("mul.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
    return product;
}

__device__ __forceinline__ uint32_t times_plus(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t sum;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
    return sum;
}

__device__ __forceinline__ uint32_t twice(float x) {
    const uint32_t half = __half_as_ushort(__float2half_rn(x));
    return half | half << 16;
}

__device__ __forceinline__ uint32_t first_twice(uint32_t pair) {
    return __byte_perm(pair, 0, 0x1010);
}

__device__ __forceinline__ uint32_t second_twice(uint32_t pair) {
    return __byte_perm(pair, 0, 0x3232);
}

// Bytes 0 and 1, or 2 and 3, of a word as the halves 1024 + byte.
__device__ __forceinline__ uint32_t bytes_of_1024(uint32_t word, int upper) {
    return __byte_perm(word, 0x64646464u, upper ? 0x4342 : 0x4140);
}

// sums[64][N] += a[64][16] * b^T: a warp has 16 rows of a and of the sums, b lies in shared memory.
#define SUMS(I) "+f"(d[I][0]), "+f"(d[I][1]), "+f"(d[I][2]), "+f"(d[I][3])
#define LEFT(A) "r"(A.a[0]), "r"(A.a[1]), "r"(A.a[2]), "r"(A.a[3])

__device__ __forceinline__ void start_product(float (&d)[2][4], const Fragment& a, uint64_t b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16 {%0, %1, %2, %3, %4, %5, %6, %7}, "
        "{%8, %9, %10, %11}, %12, 1, 1, 1, 0;"
        : SUMS(0), SUMS(1)
        : LEFT(a), "l"(b));
}

__device__ __forceinline__ void start_product(float (&d)[4][4], const Fragment& a, uint64_t b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, "
        "%9, %10, %11, %12, %13, %14, %15}, {%16, %17, %18, %19}, %20, 1, 1, 1, 0;"
        : SUMS(0), SUMS(1), SUMS(2), SUMS(3)
        : LEFT(a), "l"(b));
}

__device__ __forceinline__ void start_product(float (&d)[8][4], const Fragment& a, uint64_t b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, "
        "%9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, "
        "%27, %28, %29, %30, %31}, {%32, %33, %34, %35}, %36, 1, 1, 1, 0;"
        : SUMS(0), SUMS(1), SUMS(2), SUMS(3), SUMS(4), SUMS(5), SUMS(6), SUMS(7)
        : LEFT(a), "l"(b));
}
#undef SUMS
#undef LEFT

// Registers of a product are ready to be read by it.
__device__ __forceinline__ void fence_products() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void commit_products() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until all groups of products but the last `LEFT` are done.
template <int LEFT>
__device__ __forceinline__ void wait_for_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

// How the hardware finds the activations of a step: pieces of eight rows by eight columns, each 128
// bytes; those of the same columns follow each other.
template <int NT>
struct Steps {
    uint64_t first;

    static __device__ __forceinline__ Steps at(uint32_t chunk) {
        return {static_cast<uint64_t>((chunk & 0x3ffff) >> 4) |
                static_cast<uint64_t>(NT * 128 >> 4) << 16 | static_cast<uint64_t>(128 >> 4) << 32};
    }

    __device__ __forceinline__ uint64_t of(int step) const {
        return first + step * (2 * NT * 128 >> 4);
    }
};

// Fours of steps whose weights are in registers at once: more do not fit beside the most sums.
template <int NT>
__device__ __forceinline__ constexpr int weights_of() {
    return NT == 8 ? 1 : 2;
}

// Starts the products of four steps, whose weights `scaled` makes one by one, beside those of the
// four before, whose registers are not touched meanwhile.
template <int NT, class Scaled>
__device__ __forceinline__ void start_four(
    float (&d)[NT][4], const Steps<NT>& x, int step, Fragment (&a)[4], const Scaled& scaled) {
    wait_for_products<weights_of<NT>() - 1>();
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = scaled(i);
    fence_products();
#pragma unroll
    for (int i = 0; i < 4; i++) start_product(d, a[i], x.of(step + i));
}

// Starts the products of a unit, whose first step is `step` of its chunk. Up to two groups of them
// are left under way.
template <int FORMAT>
struct Wide;

// Scales of two neighbouring groups of a row of Q4_K or Q5_K, and what takes the offset off.
struct GroupScales {
    uint32_t scale[2];
    uint32_t less[2];

    __device__ __forceinline__ GroupScales(uint32_t bytes, int upper, uint32_t d, uint32_t offset) {
        const uint32_t pair = times(add_halves(bytes_of_1024(bytes, upper), LESS_1024), d);
        scale[0] = first_twice(pair), scale[1] = second_twice(pair);
        less[0] = times(scale[0], offset), less[1] = times(scale[1], offset);
    }
};

template <int FORMAT>
struct WideK {
    template <int NT>
    static __device__ __forceinline__ void run(
        const uint8_t* unit, const Steps<NT>& x, int, int lane, float (&d)[NT][4]) {
        const int g = lane / 4, t = lane % 4;
        const uint8_t* scales = unit + k_scales(FORMAT);
        const uint32_t* halves = reinterpret_cast<const uint32_t*>(scales + 256);
        const uint32_t low = halves[g], high = halves[g + 8];
        const uint2 low_scales = *reinterpret_cast<const uint2*>(scales + 8 * g);
        const uint2 high_scales = *reinterpret_cast<const uint2*>(scales + 8 * (g + 8));
        uint4 fifth = {0, 0, 0, 0};
        if (FORMAT == Q5_K) fifth = *reinterpret_cast<const uint4*>(unit + Q5_FIFTH + 16 * lane);
        Fragment a[weights_of<NT>()][4];
#pragma unroll
        for (int run = 0; run < 4; run++) {
            const uint4 words = *reinterpret_cast<const uint4*>(unit + 512 * run + 16 * lane);
            const uint32_t word[4] = {words.x, words.y, words.z, words.w};
            const uint32_t upper = run < 2 ? (run == 0 ? fifth.x : fifth.y)
                                           : (run == 2 ? fifth.z : fifth.w);
            const GroupScales lower(
                run < 2 ? low_scales.x : low_scales.y, run % 2, first_twice(low), LESS_1024);
            const GroupScales higher(
                run < 2 ? high_scales.x : high_scales.y, run % 2, first_twice(high), LESS_64);
            start_four(d, x, 4 * run, a[run % weights_of<NT>()], [&](int step) {
                Fragment f = nibbles(word[step]);
                if (FORMAT == Q5_K) add_upper<1>(f, upper, step);
                const int group = step / 2;
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const GroupScales& of = i % 2 == 0 ? lower : higher;
                    f.a[i] = times_plus(
                        f.a[i] | (i % 2 == 0 ? OF_1024 : OF_64), of.scale[group], of.less[group]);
                }
                return f;
            });
            if (run < 3) commit_products();
        }
        // Less the minimums times 32 means; a mean is a sum of two halves, which meet the same.
        const uint8_t* mins = scales + 128;
        Fragment f;
        f.a[0] = f.a[2] = minimums(mins + 8 * g + 2 * t, low);
        f.a[1] = f.a[3] = minimums(mins + 8 * (g + 8) + 2 * t, high);
        fence_products();
        start_product(d, f, x.of(CHUNK_STEPS - 1));
        commit_products();
    }

    static __device__ __forceinline__ uint32_t minimums(const uint8_t* two, uint32_t halves) {
        const uint32_t bytes = *reinterpret_cast<const uint16_t*>(two);
        const uint32_t whole = add_halves(bytes_of_1024(bytes, 0), LESS_1024);
        return times(whole, times(second_twice(halves), 0xd000d000u));  // -32
    }
};

template <>
struct Wide<Q4_K> : WideK<Q4_K> {};
template <>
struct Wide<Q5_K> : WideK<Q5_K> {};

template <>
struct Wide<Q6_K> {
    // A row's four scales of a run.
    static __device__ __forceinline__ void scales_of(
        const uint8_t* at, uint32_t d, uint32_t (&scale)[4]) {
        const uint32_t bytes = *reinterpret_cast<const uint32_t*>(at) ^ 0x80808080u;
#pragma unroll
        for (int pair = 0; pair < 2; pair++) {
            const uint32_t two = times(add_halves(bytes_of_1024(bytes, pair), LESS_1152), d);
            scale[2 * pair] = first_twice(two), scale[2 * pair + 1] = second_twice(two);
        }
    }

    template <int NT>
    static __device__ __forceinline__ void run(
        const uint8_t* unit, const Steps<NT>& x, int, int lane, float (&d)[NT][4]) {
        const int g = lane / 4;
        const uint16_t* halves = reinterpret_cast<const uint16_t*>(unit + Q6_D);
        const uint32_t low = halves[g] * 0x10001u, high = halves[g + 8] * 0x10001u;
        const uint8_t* scales = unit + Q6_SCALES;
        Fragment a[weights_of<NT>()][4];
#pragma unroll
        for (int run = 0; run < 4; run++) {
            const uint4 words = *reinterpret_cast<const uint4*>(unit + 512 * run + 16 * lane);
            const uint32_t word[4] = {words.x, words.y, words.z, words.w};
            const uint2 upper = *reinterpret_cast<const uint2*>(
                unit + Q6_UPPER + 512 * (run / 2) + 16 * lane + 8 * (run % 2));
            uint32_t lower[4], higher[4];
            scales_of(scales + 16 * g + 4 * run, low, lower);
            scales_of(scales + 16 * (g + 8) + 4 * run, high, higher);
            start_four(d, x, 4 * run, a[run % weights_of<NT>()], [&](int step) {
                Fragment f = nibbles(word[step]);
                add_upper<2>(f, step < 2 ? upper.x : upper.y, step % 2);
                f.a[0] = times(add_halves(f.a[0] | OF_1024, LESS_1056), lower[step]);
                f.a[1] = times(add_halves(f.a[1] | OF_64, LESS_96), higher[step]);
                f.a[2] = times(add_halves(f.a[2] | OF_1024, LESS_1056), lower[step]);
                f.a[3] = times(add_halves(f.a[3] | OF_64, LESS_96), higher[step]);
                return f;
            });
            commit_products();
        }
    }
};

template <>
struct Wide<Q8_0> {
    // Bytes 0 and 2, or 1 and 3, of a word of numbers that are 128 too large, scaled.
    static __device__ __forceinline__ uint32_t pair(uint32_t word, int odd, uint32_t scale) {
        return times(add_halves((word >> (8 * odd)) & 0x00ff00ffu | OF_1024, LESS_1152), scale);
    }

    template <int NT>
    static __device__ __forceinline__ void run(
        const uint8_t* unit, const Steps<NT>& x, int first, int lane, float (&d)[NT][4]) {
        const int g = lane / 4;
        const uint2 low = *reinterpret_cast<const uint2*>(unit + Q8_D + 8 * g);
        const uint2 high = *reinterpret_cast<const uint2*>(unit + Q8_D + 8 * (g + 8));
        Fragment a[weights_of<NT>()][4];
#pragma unroll
        for (int run = 0; run < 2; run++) {
            const uint32_t lows = run == 0 ? low.x : low.y, highs = run == 0 ? high.x : high.y;
            const uint4 words[2] = {
                *reinterpret_cast<const uint4*>(unit + 1024 * run + 16 * lane),
                *reinterpret_cast<const uint4*>(unit + 1024 * run + 512 + 16 * lane)};
            start_four(d, x, first + 4 * run, a[run % weights_of<NT>()], [&](int step) {
                const uint4& w = words[step / 2];
                const uint32_t lower = step < 2 ? first_twice(lows) : second_twice(lows);
                const uint32_t upper = step < 2 ? first_twice(highs) : second_twice(highs);
                const uint32_t row = step % 2 == 0 ? w.x : w.z, next = step % 2 == 0 ? w.y : w.w;
                return Fragment{{pair(row, 0, lower), pair(next, 0, upper), pair(row, 1, lower),
                                 pair(next, 1, upper)}};
            });
            commit_products();
        }
    }
};

template <>
struct Wide<F16> {
    template <int NT>
    static __device__ __forceinline__ void run(
        const uint8_t* unit, const Steps<NT>& x, int first, int lane, float (&d)[NT][4]) {
        Fragment a[4];
        // One group at a time: its registers are the only ones.
        wait_for_products<0>();
        start_four(d, x, first, a, [&](int step) { return fragment_at(unit, step, lane); });
        commit_products();
    }
};

#endif
