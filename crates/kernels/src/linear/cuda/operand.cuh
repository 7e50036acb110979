// Activations as the tensor cores take them, made of rows of f32.
//
// A row is padded with zeros to a multiple of 256 columns. Within 32 columns, column 16p+4t+i lies
// at 8t+4p+i, as `unit.cuh` wants it. It is kept in halves, which saturate: a large finite value
// must not end a request, and a value that is not finite must. With it go the means of the rounded
// values of each 32 columns, each as a sum of two halves: of 256 columns, lane t finds the means of
// groups 2t and 2t+1 and then their remainders. For float weights a row is kept as a sum of two
// bfloat16.
#pragma once

#include "common.cuh"

constexpr int BLOCK = 512;        // Threads of a block that has a multiprocessor to itself.
constexpr int PADDED_COLS = 256;

enum Source : int { OPERAND = 0, ROWS, NORMED_ROWS, GATED_ROWS };

// Where a row goes; what is not wanted is null.
struct OperandRow {
    __half* half;     // [padded]
    __half* means;    // [padded / 16], or null
    uint16_t* high;   // [padded]
    uint16_t* low;    // [padded]
};

// A number within the range of halves; what is not finite becomes NaN.
__device__ __forceinline__ float saturating(float x) {
    return fminf(fmaxf(x, -65504.0f), 65504.0f) + (x - x);
}

__device__ __forceinline__ __half saturating_half(float x) {
    return __float2half_rn(saturating(x));
}

// Eight neighbours; zeros from `cols` on.
__device__ __forceinline__ void load_eight(const float* row, int at, int cols, float (&v)[8]) {
    if (at + 8 <= cols && cols % 4 == 0) {
        const float4 a = *reinterpret_cast<const float4*>(row + at);
        const float4 b = *reinterpret_cast<const float4*>(row + at + 4);
        v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
        v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = at + i < cols ? row[at + i] : 0.0f;
    }
}

__device__ __forceinline__ uint32_t pack(uint16_t first, uint16_t second) {
    return first | static_cast<uint32_t>(second) << 16;
}

// Eight neighbours as halves.
struct EightHalves {
    uint32_t pairs[4];

    __device__ __forceinline__ explicit EightHalves(const float (&v)[8]) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const __half2 pair = __floats2half2_rn(saturating(v[2 * i]), saturating(v[2 * i + 1]));
            pairs[i] = reinterpret_cast<const uint32_t&>(pair);
        }
    }

    // The mean of the 32 columns that four lanes have, and what its half leaves.
    __device__ __forceinline__ void mean(__half& main, __half& rest) const {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const uint32_t bits = pairs[i / 2] >> (16 * (i % 2));
            sum += __half2float(__ushort_as_half(static_cast<uint16_t>(bits)));
        }
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        const float mean = sum / 32;
        main = saturating_half(mean);
        rest = saturating_half(mean - __half2float(main));
    }
};

// Stores eight neighbours from column `at` on, a multiple of 8, of which four lanes have 32.
__device__ __forceinline__ void store_eight(const OperandRow& to, int at, const float (&v)[8]) {
    // Runs of four columns go 16 bytes apart; of a lane's two runs, the first is run r.
    const int r = at % 32 / 4;
    const int place = at / 32 * 32 + 8 * (r % 4) + 4 * (r / 4);
    if (to.half != nullptr) {
        const EightHalves h(v);
        *reinterpret_cast<uint2*>(to.half + place) = {h.pairs[0], h.pairs[1]};
        *reinterpret_cast<uint2*>(to.half + place + 8) = {h.pairs[2], h.pairs[3]};
        if (to.means != nullptr) {
            __half main, rest;
            h.mean(main, rest);
            const int group = at / 32;
            __half* means = to.means + group / 8 * 16 + group % 8 / 2 * 4 + group % 2;
            if (threadIdx.x % 4 == 0) means[0] = main, means[2] = rest;
        }
    }
    if (to.high != nullptr) {
        uint16_t high[8], low[8];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const __nv_bfloat16 main = __float2bfloat16_rn(v[i]);
            high[i] = __bfloat16_as_ushort(main);
            low[i] = __bfloat16_as_ushort(__float2bfloat16_rn(v[i] - __bfloat162float(main)));
        }
#pragma unroll
        for (int run = 0; run < 2; run++) {
            const uint16_t* h = high + 4 * run;
            const uint16_t* l = low + 4 * run;
            const uint2 highs = {pack(h[0], h[1]), pack(h[2], h[3])};
            const uint2 lows = {pack(l[0], l[1]), pack(l[2], l[3])};
            *reinterpret_cast<uint2*>(to.high + place + 8 * run) = highs;
            *reinterpret_cast<uint2*>(to.low + place + 8 * run) = lows;
        }
    }
}

// A row among those that `wide.cu` multiplies. A chunk has 256 columns of all rows, 16 columns (a
// step) after the other, and a last step with the means of its groups of 32. Within a step, columns
// 4t and 4t+1 come first and then columns 4t+2 and 4t+3, as `unit.cuh` gives them to the tensor
// cores; each of these two halves lies in pieces of eight rows by eight columns.
struct WideRow {
    __half* first;   // Of the row, in the first piece.
    int pieces;      // Of a half: all rows.

    __device__ __forceinline__ __half* half_step(int chunk, int step, int half) const {
        return first + ((static_cast<int64_t>(chunk) * 17 + step) * 2 + half) * pieces * 64;
    }
};

__device__ __forceinline__ void store_eight(const WideRow& to, int at, const float (&v)[8]) {
    const EightHalves h(v);
    const int chunk = at / 256, step = at % 256 / 16, second = at % 16 / 2;
    *reinterpret_cast<uint2*>(to.half_step(chunk, step, 0) + second) = {h.pairs[0], h.pairs[2]};
    *reinterpret_cast<uint2*>(to.half_step(chunk, step, 1) + second) = {h.pairs[1], h.pairs[3]};
    __half main, rest;
    h.mean(main, rest);
    if (threadIdx.x % 4 == 0) {
        const int group = at % 256 / 32;
        to.half_step(chunk, 16, 0)[group] = main;
        to.half_step(chunk, 16, 1)[group] = rest;
    }
}

// A row that goes to two places.
struct BothRows {
    WideRow wide;
    OperandRow operand;
};

__device__ __forceinline__ void store_eight(const BothRows& to, int at, const float (&v)[8]) {
    store_eight(to.wide, at, v);
    store_eight(to.operand, at, v);
}

// Columns that the threads of a block hold at once, eight neighbours each.
constexpr int HELD_COLS = 8192;

// What a thread holds of HELD_COLS columns of a row, from `first` on.
template <int THREADS>
struct Held {
    static constexpr int COUNT = HELD_COLS / (8 * THREADS);
    float values[COUNT][8];

    static __device__ __forceinline__ int at(int first, int i) {
        return first + 8 * (static_cast<int>(threadIdx.x) + i * THREADS);
    }

    // All are asked for before any is waited for.
    __device__ __forceinline__ void load(const float* row, int first, int cols) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) load_eight(row, at(first, i), cols, values[i]);
    }

    // The same of rows of a multiple of eight columns: a fraction of the code.
    __device__ __forceinline__ void load_eights(const float* row, int first, int cols) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const float4* from = reinterpret_cast<const float4*>(row + at(first, i));
            const bool there = at(first, i) < cols;
            const float4 zero = {0, 0, 0, 0};
            const float4 a = there ? from[0] : zero, b = there ? from[1] : zero;
            float(&v)[8] = values[i];
            v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
            v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
        }
    }

    __device__ __forceinline__ float squares() const {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
#pragma unroll
            for (int j = 0; j < 8; j++) sum = fmaf(values[i][j], values[i][j], sum);
        }
        return sum;
    }

    __device__ __forceinline__ void scale(float scale, const Held& weight) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
#pragma unroll
            for (int j = 0; j < 8; j++) values[i][j] = values[i][j] * scale * weight.values[i][j];
        }
    }

    __device__ __forceinline__ void gate(const Held& gates) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
#pragma unroll
            for (int j = 0; j < 8; j++) values[i][j] = silu(gates.values[i][j]) * values[i][j];
        }
    }

    template <class To>
    __device__ __forceinline__ void store(const To& to, int first, int padded) const {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            if (at(first, i) < padded) store_eight(to, at(first, i), values[i]);
        }
    }
};

// Prepares one normed row with all THREADS threads, which hold the norm's first columns: they are
// weights, and can be read before the step's predecessors have ended, so that nothing is waited for
// but the activations. `shared` is room for 32 floats.
template <int THREADS, class To>
__device__ __forceinline__ void prepare_normed_row(
    const float* x, const float* norm, const Held<THREADS>& held_norm, float eps, int cols,
    int padded, const To& to, float* shared) {
    Held<THREADS> held, more, weight;
    held.load(x, 0, cols);
    float squares = held.squares();
    for (int first = HELD_COLS; first < cols; first += HELD_COLS) {
        more.load(x, first, cols);
        squares += more.squares();
    }
    const float scale = rsqrtf(block_sum(squares, shared) / cols + eps);
    held.scale(scale, held_norm);
    held.store(to, 0, padded);
    for (int first = HELD_COLS; first < padded; first += HELD_COLS) {
        more.load(x, first, cols);
        weight.load(norm, first, cols);
        more.scale(scale, weight);
        more.store(to, first, padded);
    }
}

// Prepares one row with all THREADS threads. `x` has `cols` columns, or twice as many if gated:
// gates, then what they gate. Of a row that is not normed, it takes the `slice`-th HELD_COLS of
// each `slices` of them. Ends without a barrier.
template <int THREADS, class To>
__device__ __forceinline__ void prepare_row(
    int source, const float* x, const float* norm, const Held<THREADS>& held_norm, float eps,
    int cols, int padded, const To& to, float* shared, int slice = 0, int slices = 1) {
    if (source == NORMED_ROWS) {
        return prepare_normed_row(x, norm, held_norm, eps, cols, padded, to, shared);
    }
    for (int first = slice * HELD_COLS; first < padded; first += slices * HELD_COLS) {
        Held<THREADS> held;
        if (source == GATED_ROWS) {
            Held<THREADS> gates;
            gates.load(x, first, cols);
            held.load(x + cols, first, cols);
            held.gate(gates);
        } else {
            held.load(x, first, cols);
        }
        held.store(to, first, padded);
    }
}
