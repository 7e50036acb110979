// The values of repacked weights, as the format defines them: in single precision, scales first.
#pragma once

#include "unit.cuh"

// An element of a word of nibbles; `at` is 0 to 3 for the columns of row g, 4 to 7 of row g+8.
__device__ __forceinline__ int nibble_of(uint32_t word, int at) {
    return word >> (4 * (at / 4) + 8 * (at % 4 / 2) + 16 * (at % 2)) & 15;
}

// The bits above it; see `add_upper`.
template <int COUNT>
__device__ __forceinline__ int upper_of(uint32_t bits, int step, int at) {
    const int place = 4 + 4 * (at / 4) + 8 * (at % 4 / 2) + 16 * (at % 2) + COUNT * step;
    return __funnelshift_r(bits, bits, place % 32) & ((1 << COUNT) - 1);
}

template <int FORMAT>
__device__ __forceinline__ void decode_k(
    const uint8_t* unit, int group, int lane, float (&values)[2][8]) {
    const int g = lane / 4, run = group / 2, in_run = group % 2;
    const uint32_t* words = reinterpret_cast<const uint32_t*>(unit + 512 * run + 16 * lane);
    uint32_t upper = 0;
    if (FORMAT == Q5_K) {
        upper = *reinterpret_cast<const uint32_t*>(unit + Q5_FIFTH + 16 * lane + 4 * run);
    } else if (FORMAT == Q6_K) {
        const int at = 512 * (run / 2) + 16 * lane + 8 * (run % 2) + 4 * in_run;
        upper = *reinterpret_cast<const uint32_t*>(unit + Q6_UPPER + at);
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = g + 8 * half;
        float scale[2], minimum = 0.0f;
        if (FORMAT == Q6_K) {
            const float d = __half2float(reinterpret_cast<const __half*>(unit + Q6_D)[row]);
            const int8_t* scales = reinterpret_cast<const int8_t*>(unit + Q6_SCALES) + 16 * row;
            scale[0] = d * scales[2 * group], scale[1] = d * scales[2 * group + 1];
        } else {
            const uint8_t* scales = unit + k_scales(FORMAT);
            const uint32_t halves = reinterpret_cast<const uint32_t*>(scales + 256)[row];
            scale[0] = scale[1] = half_of(halves, 0) * scales[8 * row + group];
            minimum = half_of(halves, 1) * scales[128 + 8 * row + group];
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int step = i / 4, at = 4 * half + i % 4;
            int quant = nibble_of(words[2 * in_run + step], at);
            if (FORMAT == Q5_K) quant |= upper_of<1>(upper, 2 * in_run + step, at) << 4;
            if (FORMAT == Q6_K) quant = (quant | upper_of<2>(upper, step, at) << 4) - 32;
            values[half][i] = __fsub_rn(__fmul_rn(scale[step], quant), minimum);
        }
    }
}

// What lane 4g+t has of a group of 32 columns: rows g and g+8, eight columns each in the order of
// the activations.
__device__ __forceinline__ void decode(
    int format, const uint8_t* unit, int group, int lane, float (&values)[2][8]) {
    const int g = lane / 4;
    switch (format) {
        case Q4_K: return decode_k<Q4_K>(unit, group, lane, values);
        case Q5_K: return decode_k<Q5_K>(unit, group, lane, values);
        case Q6_K: return decode_k<Q6_K>(unit, group, lane, values);
        default: break;
    }
#pragma unroll
    for (int at = 0; at < 16; at++) {
        const int half = at / 8, i = at % 8, step = i / 4, col = i % 4;
        float& value = values[half][i];
        if (format == Q8_0) {
            const uint8_t* words = unit + 512 * group + 16 * lane + 4 * (2 * step + half);
            const int quant = static_cast<int>(words[col / 2 + 2 * (col % 2)]) - 128;
            const __half* d = reinterpret_cast<const __half*>(unit + Q8_D) + 4 * (g + 8 * half);
            value = __half2float(d[group]) * quant;
            continue;
        }
        const int place = 512 * (2 * group + step) + 16 * lane + 4 * (half + 2 * (col / 2));
        const uint16_t main = *reinterpret_cast<const uint16_t*>(unit + place + 2 * (col % 2));
        value = format == F16 ? __half2float(__ushort_as_half(main))
                              : __bfloat162float(__ushort_as_bfloat16(main));
        if (format == F32) {
            const uint8_t* rest = unit + F32_REST + place + 2 * (col % 2);
            const uint16_t bits = *reinterpret_cast<const uint16_t*>(rest);
            value += __bfloat162float(__ushort_as_bfloat16(bits));
        }
    }
}
