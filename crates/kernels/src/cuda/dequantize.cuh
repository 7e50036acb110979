// One element of a block of any weight format, as `quant::dequantize` computes it, bit for bit:
// products and differences are rounded one by one, never contracted.
#pragma once

#include "common.cuh"

// The numbers of the formats in GGUF tensor records.
enum WeightType {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    IQ4_NL = 20,
    IQ4_XS = 23,
    BF16 = 30,
    MXFP4 = 39,
};

static __device__ const int8_t IQ4_TABLE[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                1,    13,   25,  38,  53,  69,  89,  113};

// Twice the values of the E2M1 codes; the scale is halved.
static __device__ const int8_t E2M1_DOUBLED[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                                   0, -1, -2, -3, -4, -6, -8, -12};

__device__ __forceinline__ float half_at(const uint8_t* block, int at) {
    const unsigned short bits = (unsigned short)(block[at] | block[at + 1] << 8);
    return __half2float(__ushort_as_half(bits));
}

// The nibble of element `i` of 32: of 16 bytes, the low nibbles come first.
__device__ __forceinline__ int nibble_of_32(const uint8_t* bytes, int i) {
    return bytes[i % 16] >> (i / 16 * 4) & 15;
}

// The 6-bit scale and minimum of one of eight groups of a super-block.
__device__ __forceinline__ void six_bit_pair(const uint8_t* packed, int group, int* scale,
                                             int* minimum) {
    if (group < 4) {
        *scale = packed[group] & 63;
        *minimum = packed[group + 4] & 63;
        return;
    }
    *scale = (packed[group + 4] & 15) | (packed[group - 4] >> 6) << 4;
    *minimum = packed[group + 4] >> 4 | (packed[group] >> 6) << 4;
}

// Where the 2-bit element `i` of a super-block is, and by how much to shift.
__device__ __forceinline__ int two_bits(const uint8_t* qs, int i) {
    return qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
}

__device__ __forceinline__ float scaled(float d, int scale, int q) {
    return __fmul_rn(__fmul_rn(d, (float)scale), (float)q);
}

__device__ __forceinline__ float scaled_less(float d, int scale, int q, float dmin, int minimum) {
    return __fsub_rn(scaled(d, scale, q), __fmul_rn(dmin, (float)minimum));
}

__device__ __forceinline__ float plain_element(int type, const uint8_t* row, int64_t i) {
    switch (type) {
        case F32: return ((const float*)row)[i];
        case F16: return __half2float(((const __half*)row)[i]);
        default: return __bfloat162float(((const __nv_bfloat16*)row)[i]);
    }
}

__device__ __forceinline__ float element_of_32(int type, const uint8_t* b, int i) {
    switch (type) {
        case Q4_0: return __fmul_rn((float)(nibble_of_32(b + 2, i) - 8), half_at(b, 0));
        case Q4_1:
            return __fadd_rn(__fmul_rn((float)nibble_of_32(b + 4, i), half_at(b, 0)),
                             half_at(b, 2));
        case Q5_0: {
            const int q = nibble_of_32(b + 6, i) | (b[2 + i / 8] >> (i % 8) & 1) << 4;
            return __fmul_rn((float)(q - 16), half_at(b, 0));
        }
        case Q5_1: {
            const int q = nibble_of_32(b + 8, i) | (b[4 + i / 8] >> (i % 8) & 1) << 4;
            return __fadd_rn(__fmul_rn((float)q, half_at(b, 0)), half_at(b, 2));
        }
        case Q8_0: return __fmul_rn((float)(int8_t)b[2 + i], half_at(b, 0));
        case IQ4_NL: return __fmul_rn(half_at(b, 0), (float)IQ4_TABLE[nibble_of_32(b + 2, i)]);
        default: {  // MXFP4: half of 2^(e - 127); the two smallest are subnormal.
            const uint32_t e = b[0];
            const float half_scale = __uint_as_float(e < 2 ? 0x00200000u << e : (e - 1) << 23);
            return __fmul_rn((float)E2M1_DOUBLED[nibble_of_32(b + 1, i)], half_scale);
        }
    }
}

__device__ __forceinline__ float element_of_256(int type, const uint8_t* b, int i) {
    int scale, minimum;
    switch (type) {
        case Q2_K: {
            const int pair = b[i / 16];
            return scaled_less(half_at(b, 80), pair & 15, two_bits(b + 16, i), half_at(b, 82),
                               pair >> 4);
        }
        case Q3_K: {
            const int group = i / 16;
            const uint8_t* packed = b + 96;
            const int low = packed[group % 8] >> (4 * (group / 8)) & 15;
            const int high = packed[8 + group % 4] >> (2 * (group / 4)) & 3;
            const int third = b[i % 32] >> (i / 32) & 1;
            return scaled(half_at(b, 108), (low | high << 4) - 32,
                          two_bits(b + 32, i) - (third ? 0 : 4));
        }
        case Q4_K: {
            six_bit_pair(b + 4, i / 32, &scale, &minimum);
            const int q = b[16 + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
            return scaled_less(half_at(b, 0), scale, q, half_at(b, 2), minimum);
        }
        case Q5_K: {
            six_bit_pair(b + 4, i / 32, &scale, &minimum);
            const int low = b[48 + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
            const int q = low | (b[16 + i % 32] >> (i / 32) & 1) << 4;
            return scaled_less(half_at(b, 0), scale, q, half_at(b, 2), minimum);
        }
        case Q6_K: {
            const int half = i / 128, run = i % 128 / 32, at = i % 32;
            const int low = b[64 * half + 32 * (run % 2) + at] >> (4 * (run / 2)) & 15;
            const int upper = b[128 + 32 * half + at] >> (2 * run) & 3;
            return scaled(half_at(b, 208), (int8_t)b[192 + i / 16], (low | upper << 4) - 32);
        }
        default: {  // IQ4_XS
            const int group = i / 32;
            const int low = b[4 + group / 2] >> (4 * (group % 2)) & 15;
            const int high = (b[2] | b[3] << 8) >> (2 * group) & 3;
            return scaled(half_at(b, 0), (low | high << 4) - 32,
                          IQ4_TABLE[nibble_of_32(b + 8 + 16 * group, i % 32)]);
        }
    }
}

// Element `i` of a row whose blocks begin at `row`. `block_elements` and `block_bytes` are the
// format's; 1 element means a plain float.
__device__ __forceinline__ float element(int type, const uint8_t* row, int i, int block_elements,
                                         int block_bytes) {
    if (block_elements == 1) return plain_element(type, row, i);
    const uint8_t* block = row + (int64_t)(i / block_elements) * block_bytes;
    if (block_elements == 32) return element_of_32(type, block, i % 32);
    return element_of_256(type, block, i % 256);
}
