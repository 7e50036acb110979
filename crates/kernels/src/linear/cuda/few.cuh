// A unit times one or two rows of activations.
//
// The tensor cores multiply by eight columns. Here these are not rows of activations but groups of
// 32 columns of a row, so one load is all that a lane wants of a unit's activations. Of the
// products of group j, only group j's own column means something. It lies with the lanes
// t = j % 4, so lane t keeps the products of groups t and t + 4 and scales these alone. The lanes'
// sums are added up at the end of a tile.
//
// Minimums meet the sums of activations, which are products by ones.
#pragma once

#include "unit.cuh"

// A lane's place: its row and its columns of the products.
struct Lane {
    int g;
    int t;

    static __device__ __forceinline__ Lane of(int lane) { return {lane / 4, lane % 4}; }
};

// Where a lane finds activations, from the unit's first column on: of one row, those of one group;
// of two, those of a group of the first four and of one of the others.
template <int ROWS>
struct FewActivations {
    const __half* half;  // For units of eight groups,
    const __half* four;  // and of four, which take the first set alone.

    __device__ __forceinline__ FewActivations(const __half* first, int pitch, const Lane& lane) {
        const int g = lane.g;
        const __half* row = first + (ROWS == 1 ? 0 : g % 2 * pitch) + 8 * lane.t;
        half = row + 32 * (ROWS == 1 ? g % 2 * 4 + g / 2 : g / 2);
        four = row + 32 * (g / 2);
    }

    __device__ __forceinline__ void load(int col, uint4 (&b)[ROWS]) const {
#pragma unroll
        for (int set = 0; set < ROWS; set++) {
            b[set] = *reinterpret_cast<const uint4*>(half + col + 128 * set);
        }
    }
};

// Of the products of eight groups, those of groups t and t + 4:
// [set][lower or upper row][row of x].
template <int ROWS>
struct Picked {
    float of[2][2][ROWS];

    // Takes those of a group, which come in order, if they are this lane's.
    __device__ __forceinline__ void take(int group, const float (&d)[4], const Lane& lane) {
        const int set = group / 4;
#pragma unroll
        for (int upper = 0; upper < 2; upper++) {
#pragma unroll
            for (int row = 0; row < ROWS; row++) {
                const float product = d[2 * upper + (ROWS == 1 ? set : row)];
                float& kept = of[set][upper][row];
                kept = group % 4 == 0 || lane.t == group % 4 ? product : kept;
            }
        }
    }
};

// Products by the same number in all rows, of activations b[set].x and .y, or .z and .w, or both.
template <int ROWS>
struct Uniform {
    float of[ROWS][4];

    __device__ __forceinline__ Uniform(
        const Fragment& a, const uint4 (&b)[ROWS], bool even, bool odd) {
#pragma unroll
        for (int set = 0; set < ROWS; set++) {
#pragma unroll
            for (int i = 0; i < 4; i++) of[set][i] = 0.0f;
            if (even) mma_f16(of[set], a, b[set].x, b[set].y, of[set]);
            if (odd) mma_f16(of[set], a, b[set].z, b[set].w, of[set]);
        }
    }

    // Of group t, or t + 4, and a row of x.
    __device__ __forceinline__ float at(int set, int row) const {
        return ROWS == 1 ? of[0][set] : of[set % ROWS][row];
    }
};

// A byte of a word as a number: the low bits of a float that is large enough.
__device__ __forceinline__ float byte_at(uint32_t word, uint32_t selector) {
    return __uint_as_float(__byte_perm(word, 0x4b000000u, selector)) - 8388608.0f;
}

__device__ __forceinline__ float signed_byte_at(uint32_t word, uint32_t selector) {
    const uint32_t moved = word ^ 0x80808080u;
    return __uint_as_float(__byte_perm(moved, 0x4b000000u, selector)) - (8388608.0f + 128.0f);
}

constexpr uint32_t BYTE_0 = 0x7440u;  // Of a word; byte n is n more.

// acc[2 * upper + row] += unit * activations, of this lane's groups.
template <int FORMAT, int ROWS>
struct MultiplyFew;

template <int FORMAT, int ROWS>
struct MultiplyFewK {
    static __device__ __forceinline__ void run(
        const uint8_t* unit, const FewActivations<ROWS>& x, int col, int lane, float (&acc)[4]) {
        const Lane at = Lane::of(lane);
        uint4 b[ROWS];
        x.load(col, b);
        uint4 fifth = {0, 0, 0, 0};
        if (FORMAT == Q5_K) fifth = *reinterpret_cast<const uint4*>(unit + Q5_FIFTH + 16 * lane);
        constexpr float zero[4] = {0, 0, 0, 0};
        Picked<ROWS> products;
#pragma unroll
        for (int run = 0; run < 4; run++) {
            const uint4 words = *reinterpret_cast<const uint4*>(unit + 512 * run + 16 * lane);
            const uint32_t word[4] = {words.x, words.y, words.z, words.w};
            const uint32_t upper = run < 2 ? (run == 0 ? fifth.x : fifth.y)
                                           : (run == 2 ? fifth.z : fifth.w);
#pragma unroll
            for (int in_run = 0; in_run < 2; in_run++) {
                const int group = 2 * run + in_run, set = ROWS == 1 ? 0 : group / 4;
                Fragment first = nibbles(word[2 * in_run]), second = nibbles(word[2 * in_run + 1]);
                if (FORMAT == Q5_K) {
                    add_upper<1>(first, upper, 2 * in_run);
                    add_upper<1>(second, upper, 2 * in_run + 1);
                }
                float d[4];
                mma_f16(d, first, b[set].x, b[set].y, zero);
                mma_f16(d, second, b[set].z, b[set].w, d);
                products.take(group, d, at);
            }
        }
        const Fragment ones = {{0x3c003c00u, 0x3c003c00u, 0x3c003c00u, 0x3c003c00u}};
        const Uniform<ROWS> sums(ones, b, true, true);
        scale(unit + k_scales(FORMAT), at, products, sums, acc);
    }

    static __device__ __forceinline__ void scale(
        const uint8_t* scales, const Lane& at, const Picked<ROWS>& products,
        const Uniform<ROWS>& sums, float (&acc)[4]) {
        const uint32_t byte = BYTE_0 + at.t;
#pragma unroll
        for (int upper = 0; upper < 2; upper++) {
            const int row = at.g + 8 * upper;
            const uint2 scale = *reinterpret_cast<const uint2*>(scales + 8 * row);
            const uint2 least = *reinterpret_cast<const uint2*>(scales + 128 + 8 * row);
            const uint32_t halves = *reinterpret_cast<const uint32_t*>(scales + 256 + 4 * row);
            const float d = half_of(halves, 0) * (upper ? OF_UPPER : OF_LOWER);
            const float least_d = half_of(halves, 1);
            const float first = byte_at(scale.x, byte), second = byte_at(scale.y, byte);
            const float first_least = byte_at(least.x, byte), second_least = byte_at(least.y, byte);
#pragma unroll
            for (int x = 0; x < ROWS; x++) {
                const float product =
                    fmaf(second, products.of[1][upper][x], first * products.of[0][upper][x]);
                const float less =
                    fmaf(second_least, sums.at(1, x), first_least * sums.at(0, x));
                float& sum = acc[2 * upper + x];
                sum = fmaf(d, product, sum);
                sum = fmaf(-least_d, less, sum);
            }
        }
    }
};

template <int ROWS>
struct MultiplyFew<Q4_K, ROWS> : MultiplyFewK<Q4_K, ROWS> {};
template <int ROWS>
struct MultiplyFew<Q5_K, ROWS> : MultiplyFewK<Q5_K, ROWS> {};

// Its scales are those of 16 columns: of the halves of a group.
template <int ROWS>
struct MultiplyFew<Q6_K, ROWS> {
    static __device__ __forceinline__ void run(
        const uint8_t* unit, const FewActivations<ROWS>& x, int col, int lane, float (&acc)[4]) {
        const Lane at = Lane::of(lane);
        uint4 b[ROWS];
        x.load(col, b);
        // Numbers are 32 too large, in the upper rows 16 times that.
        const Fragment less = {{0x80208020u, 0x82008200u, 0x80208020u, 0x82008200u}};
        const Uniform<ROWS> even(less, b, true, false), odd(less, b, false, true);
        Picked<ROWS> evens, odds;
#pragma unroll
        for (int run = 0; run < 4; run++) {
            const uint4 words = *reinterpret_cast<const uint4*>(unit + 512 * run + 16 * lane);
            const uint32_t word[4] = {words.x, words.y, words.z, words.w};
            const uint2 upper = *reinterpret_cast<const uint2*>(
                unit + Q6_UPPER + 512 * (run / 2) + 16 * lane + 8 * (run % 2));
#pragma unroll
            for (int in_run = 0; in_run < 2; in_run++) {
                const int group = 2 * run + in_run, set = ROWS == 1 ? 0 : group / 4;
                const uint32_t bits = in_run == 0 ? upper.x : upper.y;
                Fragment first = nibbles(word[2 * in_run]), second = nibbles(word[2 * in_run + 1]);
                add_upper<2>(first, bits, 0);
                add_upper<2>(second, bits, 1);
                float d[4];
                mma_f16(d, first, b[set].x, b[set].y, even.of[set]);
                evens.take(group, d, at);
                mma_f16(d, second, b[set].z, b[set].w, odd.of[set]);
                odds.take(group, d, at);
            }
        }
#pragma unroll
        for (int upper = 0; upper < 2; upper++) {
            const int row = at.g + 8 * upper;
            const uint8_t* scales = unit + Q6_SCALES + 16 * row + 2 * at.t;
            const uint32_t first = *reinterpret_cast<const uint16_t*>(scales);
            const uint32_t second = *reinterpret_cast<const uint16_t*>(scales + 8);
            const float d_of_row = __half2float(reinterpret_cast<const __half*>(unit + Q6_D)[row]) *
                                   (upper ? OF_UPPER : OF_LOWER);
            const float scale[2][2] = {
                {signed_byte_at(first, BYTE_0), signed_byte_at(first, BYTE_0 + 1)},
                {signed_byte_at(second, BYTE_0), signed_byte_at(second, BYTE_0 + 1)}};
#pragma unroll
            for (int row_of_x = 0; row_of_x < ROWS; row_of_x++) {
                float product = scale[0][0] * evens.of[0][upper][row_of_x];
                product = fmaf(scale[0][1], odds.of[0][upper][row_of_x], product);
                product = fmaf(scale[1][0], evens.of[1][upper][row_of_x], product);
                product = fmaf(scale[1][1], odds.of[1][upper][row_of_x], product);
                float& sum = acc[2 * upper + row_of_x];
                sum = fmaf(d_of_row, product, sum);
            }
        }
    }
};

// A unit has four groups; lane t keeps the products of group t.
template <int ROWS>
struct MultiplyFew<Q8_0, ROWS> {
    static __device__ __forceinline__ void run(
        const uint8_t* unit, const FewActivations<ROWS>& x, int col, int lane, float (&acc)[4]) {
        const Lane at = Lane::of(lane);
        const uint4 b = *reinterpret_cast<const uint4*>(x.four + col);
        constexpr float zero[4] = {0, 0, 0, 0};
        float products[4] = {};
#pragma unroll
        for (int group = 0; group < 4; group++) {
            const uint4 w = *reinterpret_cast<const uint4*>(unit + 512 * group + 16 * lane);
            using All = Multiply<Q8_0, 1>;
            const Fragment first = {
                {All::pair(w.x, 0), All::pair(w.y, 0), All::pair(w.x, 1), All::pair(w.y, 1)}};
            const Fragment second = {
                {All::pair(w.z, 0), All::pair(w.w, 0), All::pair(w.z, 1), All::pair(w.w, 1)}};
            float d[4];
            mma_f16(d, first, b.x, b.y, zero);
            mma_f16(d, second, b.z, b.w, d);
#pragma unroll
            for (int i = 0; i < 4; i++) products[i] = at.t == group ? d[i] : products[i];
        }
#pragma unroll
        for (int upper = 0; upper < 2; upper++) {
            const uint8_t* scales = unit + Q8_D + 8 * (at.g + 8 * upper) + 2 * at.t;
            const float scale = __half2float(*reinterpret_cast<const __half*>(scales)) * OF_LOWER;
#pragma unroll
            for (int row = 0; row < ROWS; row++) {
                const int i = 2 * upper + row;
                acc[i] = fmaf(scale, products[i], acc[i]);
            }
        }
    }
};
