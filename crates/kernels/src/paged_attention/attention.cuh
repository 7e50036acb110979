// What the attention kernels share: their arguments and the tensor cores' instructions.
#pragma once

#include "../rope_kv/head.cuh"

struct Attention {
    const float* qkv;  // [rows, cols]: q (each head followed by its gate if it has one) | k | v
    float* out;        // [rows, heads * head_dim]
    __half* keys;      // [blocks, kv_heads, BLOCK_TOKENS, head_dim]
    __half* values;
    const int* first_row;    // [sequences]
    const int* rows;         // [sequences], 0: a padded sequence
    const int* start;        // [sequences]: tokens computed before
    const int* block_table;  // [sequences, max_blocks]
    int max_blocks;
    int cols;
    int heads;
    int kv_heads;
    int head_dim;
    int query_stride;
    int gated;
    // A launch takes the sequences with this many rows and leaves the others to other launches.
    int min_rows;
    int max_rows;
    float scale;  // log2(e) / sqrt(head_dim): the softmax is taken to the base of 2.
};

__device__ __forceinline__ float exp2_fast(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

__device__ __forceinline__ unsigned pack(float low, float high) {
    __half2 both = __floats2half2_rn(low, high);
    return *reinterpret_cast<unsigned*>(&both);
}

// d += a · b: a [16, 16] by rows, b [16, 8] by columns, in the tensor cores' fragments.
__device__ __forceinline__ void mma(float (&d)[4], unsigned a0, unsigned a1, unsigned a2,
                                    unsigned a3, unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The transpose of an 8 x 8 tile of halves held by a warp.
__device__ __forceinline__ unsigned transposed(unsigned tile) {
    unsigned result;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(tile));
    return result;
}
