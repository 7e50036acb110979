// Weights in the order in which the tensor cores take them.
//
// A matrix is cut into tiles of 16 rows, and a tile into units of a fixed number of columns: 256 of
// the K formats, 128 of Q8_0, 64 of
// 16-bit floats and 32 of F32. A unit is contiguous, a tile's units follow each
// other, and so do the tiles: a warp that works on a unit reads one run of 2 to 4 KB.
//
// Within a unit, lane 4g+t holds the elements of rows g and g+8 that an `mma.m16n8k16` wants of it.
// Its step s takes columns 16s to 16s+15 and gives lane t the columns 16s+4t..16s+4t+3: the first
// two are the instruction's columns 2t, 2t+1, the others its columns 2t+8, 2t+9. Activations are
// stored so that this is one 16-byte load for two steps: in 32 columns, column 16p+4t+i lies at
// 8t+4p+i (see `operand.cuh`).
//
// Whole numbers up to 1023 are taken as the bits of a half: a subnormal number, which a tensor core
// multiplies exactly. So unpacking is masking. In every word the elements of row g+8 stand four
// bits higher, 16 times too large; their row's scale makes up for it.
#pragma once

#include "dequantize.cuh"

constexpr int TILE_ROWS = 16;

// Columns of a unit.
__host__ __device__ constexpr int unit_cols(int format) {
    return format == Q4_K || format == Q5_K || format == Q6_K ? 256 : format == Q8_0 ? 128
           : format == F32                                             ? 32
                                                                       : 64;
}

// Bytes of a unit. GGUF needs 2304 for Q4_K, 2816 for Q5_K, and else as many.
__host__ __device__ constexpr int unit_bytes(int format) {
    switch (format) {
        case Q4_K: return 2368;
        case Q5_K: return 2880;
        case Q6_K: return 3360;
        case Q8_0: return 2176;
        default: return 2048;
    }
}

// Where the fields of a unit begin; rows' fields follow each other.
constexpr int K_QUANTS = 2048;                  // Nibbles of the K formats: 4 runs of 512 bytes.
constexpr int Q5_FIFTH = K_QUANTS;              // 16 bytes a lane.
constexpr int Q6_UPPER = K_QUANTS;              // 2 runs of 512 bytes.
constexpr int Q6_SCALES = K_QUANTS + 1024;      // 16 signed bytes a row.
constexpr int Q6_D = Q6_SCALES + 256;           // A half a row.
constexpr int Q8_D = 2048;                      // 4 halves a row.
constexpr int F32_REST = 1024;                  // The second bfloat16 of each sum.
__host__ __device__ constexpr int k_scales(int format) {  // 8 bytes a row, then 8 of minimums.
    return format == Q5_K ? K_QUANTS + 512 : K_QUANTS;
}

// What one whole number is, taken as the bits of a half.
constexpr float HALF_BITS = 1.0f / 16777216.0f;
constexpr float OF_LOWER = 16777216.0f;        // Undoes it for rows 0 to 7,
constexpr float OF_UPPER = 16777216.0f / 16;   // and for rows 8 to 15 of the nibble formats.

struct Fragment {
    uint32_t a[4];
};

// d = a * b + c on halves.
__device__ __forceinline__ void mma_f16(
    float (&d)[4], const Fragment& a, uint32_t b0, uint32_t b1, const float (&c)[4]) {
    asm(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%10,%11,%12,%13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a.a[0]), "r"(a.a[1]), "r"(a.a[2]), "r"(a.a[3]), "r"(b0), "r"(b1), "f"(c[0]),
          "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

__device__ __forceinline__ void mma_bf16(
    float (&d)[4], const Fragment& a, uint32_t b0, uint32_t b1, const float (&c)[4]) {
    asm(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%10,%11,%12,%13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a.a[0]), "r"(a.a[1]), "r"(a.a[2]), "r"(a.a[3]), "r"(b0), "r"(b1), "f"(c[0]),
          "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

// One step's nibbles.
__device__ __forceinline__ Fragment nibbles(uint32_t word) {
    const uint32_t high = word >> 8;
    return {{word & 0x000f000fu, word & 0x00f000f0u, high & 0x000f000fu, high & 0x00f000f0u}};
}

// Sets the bits above the nibbles: `count` bits of each element, of step `step` of those that share
// the word.
template <int COUNT>
__device__ __forceinline__ void add_upper(Fragment& a, uint32_t bits, int step) {
    constexpr uint32_t lower = COUNT == 1 ? 0x00100010u : 0x00300030u;
    constexpr uint32_t upper = COUNT == 1 ? 0x01000100u : 0x03000300u;
    const uint32_t first = bits >> (COUNT * step);
    const uint32_t second = __funnelshift_r(bits, bits, COUNT * step + 8);
    a.a[0] |= first & lower;
    a.a[1] |= first & upper;
    a.a[2] |= second & lower;
    a.a[3] |= second & upper;
}

__device__ __forceinline__ uint32_t add_halves(uint32_t a, uint32_t b) {
    uint32_t sum;
    asm("add.f16x2 %0, %1, %2;" : "=r"(sum) : "r"(a), "r"(b));
    return sum;
}

__device__ __forceinline__ float half_of(uint32_t pair, int at) {
    return __half2float(__ushort_as_half(static_cast<unsigned short>(pair >> (16 * at))));
}

__device__ __forceinline__ float byte_of(uint2 bytes, int at) {
    const uint32_t word = at < 4 ? bytes.x : bytes.y;
    return static_cast<float>((word >> (8 * (at % 4))) & 0xff);
}

__device__ __forceinline__ float signed_byte_of(uint32_t word, int at) {
    return static_cast<float>(static_cast<int8_t>(word >> (8 * at)));
}

// A lane's activations: its token of each group of eight. Pointers may be to any memory.
template <int NT>
struct Activations {
    const __half* half[NT];    // In halves, [columns].
    const __half* means[NT];   // Of each 32 columns in two halves; see `operand.cuh`.
    const uint16_t* high[NT];  // As the sum of two bfloat16.
    const uint16_t* low[NT];

    // Two steps' columns, of this lane.
    __device__ __forceinline__ uint4 halves(int nt, int col, int t) const {
        return *reinterpret_cast<const uint4*>(half[nt] + col + 8 * t);
    }
};

// acc += scale * step, for the rows' scales.
__device__ __forceinline__ void add_scaled(
    float (&acc)[4], const float (&step)[4], float lower, float upper) {
    acc[0] = fmaf(lower, step[0], acc[0]);
    acc[1] = fmaf(lower, step[1], acc[1]);
    acc[2] = fmaf(upper, step[2], acc[2]);
    acc[3] = fmaf(upper, step[3], acc[3]);
}

// Takes off the minimums of a unit of Q4_K or Q5_K. Both halves of a mean meet the same minimums.
template <int NT>
__device__ __forceinline__ void subtract_minimums(
    const uint8_t* mins, float lower, float upper, const Activations<NT>& x, int col, int g, int t,
    float (&acc)[NT][4]) {
    const uint32_t first = *reinterpret_cast<const uint16_t*>(mins + 8 * g + 2 * t);
    const uint32_t second = *reinterpret_cast<const uint16_t*>(mins + 8 * (g + 8) + 2 * t);
    Fragment a;
    a.a[0] = a.a[2] = __byte_perm(first, 0, 0x4140);
    a.a[1] = a.a[3] = __byte_perm(second, 0, 0x4140);
    constexpr float zero[4] = {0, 0, 0, 0};
#pragma unroll
    for (int nt = 0; nt < NT; nt++) {
        const uint2 b = *reinterpret_cast<const uint2*>(x.means[nt] + col / 16 + 4 * t);
        float sums[4];
        mma_f16(sums, a, b.x, b.y, zero);
        add_scaled(acc[nt], sums, -lower, -upper);
    }
}

// acc += unit * activations, of the unit whose first column is `col`.
template <int FORMAT, int NT>
struct Multiply;

template <int FORMAT, int NT>
struct MultiplyK {
    static __device__ __forceinline__ void run(
        const uint8_t* unit, const Activations<NT>& x, int col, int lane, float (&acc)[NT][4]) {
        const int g = lane / 4, t = lane % 4;
        const uint8_t* scales = unit + k_scales(FORMAT);
        const uint32_t* halves = reinterpret_cast<const uint32_t*>(scales + 256);
        const uint32_t low = halves[g], high = halves[g + 8];
        const uint2 low_scales = *reinterpret_cast<const uint2*>(scales + 8 * g);
        const uint2 high_scales = *reinterpret_cast<const uint2*>(scales + 8 * (g + 8));
        const float low_d = half_of(low, 0) * OF_LOWER, high_d = half_of(high, 0) * OF_UPPER;
        uint4 fifth = {0, 0, 0, 0};
        if (FORMAT == Q5_K) fifth = *reinterpret_cast<const uint4*>(unit + Q5_FIFTH + 16 * lane);
        constexpr float zero[4] = {0, 0, 0, 0};
#pragma unroll
        for (int run = 0; run < 4; run++) {
            const uint4 words = *reinterpret_cast<const uint4*>(unit + 512 * run + 16 * lane);
            const uint32_t word[4] = {words.x, words.y, words.z, words.w};
            const uint32_t upper = run < 2 ? (run == 0 ? fifth.x : fifth.y)
                                           : (run == 2 ? fifth.z : fifth.w);
#pragma unroll
            for (int in_run = 0; in_run < 2; in_run++) {
                const int group = 2 * run + in_run;
                Fragment first = nibbles(word[2 * in_run]), second = nibbles(word[2 * in_run + 1]);
                if (FORMAT == Q5_K) {
                    add_upper<1>(first, upper, 2 * in_run);
                    add_upper<1>(second, upper, 2 * in_run + 1);
                }
                const float lower_scale = low_d * byte_of(low_scales, group);
                const float upper_scale = high_d * byte_of(high_scales, group);
#pragma unroll
                for (int nt = 0; nt < NT; nt++) {
                    const uint4 b = x.halves(nt, col + 32 * group, t);
                    float step[4];
                    mma_f16(step, first, b.x, b.y, zero);
                    mma_f16(step, second, b.z, b.w, step);
                    add_scaled(acc[nt], step, lower_scale, upper_scale);
                }
            }
        }
        // Means, not sums, of 32; and these rows' minimums are not shifted.
        const float low_min = half_of(low, 1) * (32 * OF_LOWER);
        const float high_min = half_of(high, 1) * (32 * OF_LOWER);
        subtract_minimums<NT>(scales + 128, low_min, high_min, x, col, g, t, acc);
    }
};

template <int NT>
struct Multiply<Q4_K, NT> : MultiplyK<Q4_K, NT> {};
template <int NT>
struct Multiply<Q5_K, NT> : MultiplyK<Q5_K, NT> {};

template <int NT>
struct Multiply<Q6_K, NT> {
    static __device__ __forceinline__ void run(
        const uint8_t* unit, const Activations<NT>& x, int col, int lane, float (&acc)[NT][4]) {
        const int g = lane / 4, t = lane % 4;
        const __half* d = reinterpret_cast<const __half*>(unit + Q6_D);
        const float low_d = __half2float(d[g]) * OF_LOWER;
        const float high_d = __half2float(d[g + 8]) * OF_UPPER;
        const uint8_t* scales = unit + Q6_SCALES;
        constexpr float zero[4] = {0, 0, 0, 0};
#pragma unroll
        for (int run = 0; run < 4; run++) {
            const uint4 words = *reinterpret_cast<const uint4*>(unit + 512 * run + 16 * lane);
            const uint32_t word[4] = {words.x, words.y, words.z, words.w};
            const uint2 upper = *reinterpret_cast<const uint2*>(
                unit + Q6_UPPER + 512 * (run / 2) + 16 * lane + 8 * (run % 2));
            const uint32_t low_scales =
                *reinterpret_cast<const uint32_t*>(scales + 16 * g + 4 * run);
            const uint32_t high_scales =
                *reinterpret_cast<const uint32_t*>(scales + 16 * (g + 8) + 4 * run);
            uint4 b[NT];
#pragma unroll
            for (int step = 0; step < 4; step++) {
                Fragment a = nibbles(word[step]);
                add_upper<2>(a, step < 2 ? upper.x : upper.y, step % 2);
                // Less 32, and 16 times that.
                a.a[0] = add_halves(a.a[0], 0x80208020u);
                a.a[1] = add_halves(a.a[1], 0x82008200u);
                a.a[2] = add_halves(a.a[2], 0x80208020u);
                a.a[3] = add_halves(a.a[3], 0x82008200u);
                const float lower_scale = low_d * signed_byte_of(low_scales, step);
                const float upper_scale = high_d * signed_byte_of(high_scales, step);
#pragma unroll
                for (int nt = 0; nt < NT; nt++) {
                    if (step % 2 == 0) b[nt] = x.halves(nt, col + 64 * run + 16 * step, t);
                    float product[4];
                    if (step % 2 == 0) {
                        mma_f16(product, a, b[nt].x, b[nt].y, zero);
                    } else {
                        mma_f16(product, a, b[nt].z, b[nt].w, zero);
                    }
                    add_scaled(acc[nt], product, lower_scale, upper_scale);
                }
            }
        }
    }
};

template <int NT>
struct Multiply<Q8_0, NT> {
    // Bytes 0 and 2, or 1 and 3, of a word of numbers that are 128 too large.
    static __device__ __forceinline__ uint32_t pair(uint32_t word, int odd) {
        return add_halves((word >> (8 * odd)) & 0x00ff00ffu, 0x80808080u);
    }

    static __device__ __forceinline__ void run(
        const uint8_t* unit, const Activations<NT>& x, int col, int lane, float (&acc)[NT][4]) {
        const int g = lane / 4, t = lane % 4;
        const uint2 low = *reinterpret_cast<const uint2*>(unit + Q8_D + 8 * g);
        const uint2 high = *reinterpret_cast<const uint2*>(unit + Q8_D + 8 * (g + 8));
        constexpr float zero[4] = {0, 0, 0, 0};
#pragma unroll
        for (int group = 0; group < 4; group++) {
            const uint4 w = *reinterpret_cast<const uint4*>(unit + 512 * group + 16 * lane);
            const Fragment first = {{pair(w.x, 0), pair(w.y, 0), pair(w.x, 1), pair(w.y, 1)}};
            const Fragment second = {{pair(w.z, 0), pair(w.w, 0), pair(w.z, 1), pair(w.w, 1)}};
            const float lower = half_of(group < 2 ? low.x : low.y, group % 2) * OF_LOWER;
            const float upper = half_of(group < 2 ? high.x : high.y, group % 2) * OF_LOWER;
#pragma unroll
            for (int nt = 0; nt < NT; nt++) {
                const uint4 b = x.halves(nt, col + 32 * group, t);
                float product[4];
                mma_f16(product, first, b.x, b.y, zero);
                mma_f16(product, second, b.z, b.w, product);
                add_scaled(acc[nt], product, lower, upper);
            }
        }
    }
};

__device__ __forceinline__ Fragment fragment_at(const uint8_t* unit, int step, int lane) {
    const uint4 words = *reinterpret_cast<const uint4*>(unit + 512 * step + 16 * lane);
    return {{words.x, words.y, words.z, words.w}};
}

template <int NT>
struct Multiply<F16, NT> {
    static __device__ __forceinline__ void run(
        const uint8_t* unit, const Activations<NT>& x, int col, int lane, float (&acc)[NT][4]) {
        const int t = lane % 4;
#pragma unroll
        for (int pair = 0; pair < 2; pair++) {
            const Fragment first = fragment_at(unit, 2 * pair, lane);
            const Fragment second = fragment_at(unit, 2 * pair + 1, lane);
#pragma unroll
            for (int nt = 0; nt < NT; nt++) {
                const uint4 b = x.halves(nt, col + 32 * pair, t);
                mma_f16(acc[nt], first, b.x, b.y, acc[nt]);
                mma_f16(acc[nt], second, b.z, b.w, acc[nt]);
            }
        }
    }
};

// Weights in one bfloat16 or, for F32, in two; activations always in two.
template <int FORMAT, int NT>
struct MultiplyBf16 {
    static __device__ __forceinline__ void run(
        const uint8_t* unit, const Activations<NT>& x, int col, int lane, float (&acc)[NT][4]) {
        const int t = lane % 4;
#pragma unroll
        for (int pair = 0; pair < unit_cols(FORMAT) / 32; pair++) {
            const Fragment first = fragment_at(unit, 2 * pair, lane);
            const Fragment second = fragment_at(unit, 2 * pair + 1, lane);
            Fragment first_rest, second_rest;
            if (FORMAT == F32) {
                first_rest = fragment_at(unit + F32_REST, 2 * pair, lane);
                second_rest = fragment_at(unit + F32_REST, 2 * pair + 1, lane);
            }
#pragma unroll
            for (int nt = 0; nt < NT; nt++) {
                const int at = col + 32 * pair + 8 * t;
                const uint4 high = *reinterpret_cast<const uint4*>(x.high[nt] + at);
                const uint4 low = *reinterpret_cast<const uint4*>(x.low[nt] + at);
                mma_bf16(acc[nt], first, high.x, high.y, acc[nt]);
                mma_bf16(acc[nt], first, low.x, low.y, acc[nt]);
                mma_bf16(acc[nt], second, high.z, high.w, acc[nt]);
                mma_bf16(acc[nt], second, low.z, low.w, acc[nt]);
                if (FORMAT == F32) {
                    mma_bf16(acc[nt], first_rest, high.x, high.y, acc[nt]);
                    mma_bf16(acc[nt], second_rest, high.z, high.w, acc[nt]);
                }
            }
        }
    }
};

template <int NT>
struct Multiply<BF16, NT> : MultiplyBf16<BF16, NT> {};
template <int NT>
struct Multiply<F32, NT> : MultiplyBf16<F32, NT> {};
