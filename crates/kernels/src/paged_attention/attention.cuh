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
    int query_stride;
    int gated;
    // A launch takes the sequences with this many rows and leaves the others to other launches.
    int min_rows;
    int max_rows;
    float scale;  // log2(e) / sqrt(head_dim): the softmax is taken to the base of 2.
};

static_assert(sizeof(Attention) == 104, "cuda.rs has the same");

__device__ __forceinline__ float exp2_fast(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

__device__ __forceinline__ unsigned pack(float low, float high) {
    __half2 both = __floats2half2_rn(low, high);
    return *reinterpret_cast<unsigned*>(&both);
}

// Rows of halves lie in shared memory in pieces of 16 bytes, a row's pieces permuted by the row's
// number, so that no two lanes of a matrix load meet in a bank. Piece `piece` of row `row`:
template <int DIM>
__device__ __forceinline__ int place(int row, int piece) {
    return row * (DIM / 8) + (piece ^ (row % 8));
}

__device__ __forceinline__ unsigned shared_address(const void* at) {
    return (unsigned)__cvta_generic_to_shared(at);
}

// 16 bytes to shared memory, or zeros where `valid` is false.
__device__ __forceinline__ void copy_async(uint4* to, const __half* from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
}

// For what the second-level cache should let go first.
__device__ __forceinline__ uint64_t evict_first() {
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

// 16 bytes to shared memory, with such a policy.
__device__ __forceinline__ void copy_once(uint4* to, const __half* from, uint64_t policy) {
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(
                     shared_address(to)),
                 "l"(from), "l"(policy)
                 : "memory");
}

__device__ __forceinline__ void commit_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until all groups of copies but the last `LEFT` are done.
template <int LEFT>
__device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

// Four 8 x 8 tiles of halves: lane l gives the address of row l % 8 of tile l / 8.
__device__ __forceinline__ void load_tiles(unsigned (&tiles)[4], const uint4* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// The same tiles, each transposed.
__device__ __forceinline__ void load_tiles_transposed(unsigned (&tiles)[4], const uint4* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// d += a · b: a [16, 16] by rows, b [16, 8] by columns, in the tensor cores' fragments.
__device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0,
                                    unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The transpose of an 8 x 8 tile of halves held by a warp.
__device__ __forceinline__ unsigned transposed(unsigned tile) {
    unsigned result;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(tile));
    return result;
}
