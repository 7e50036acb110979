// What the kernels of the chunked gated delta rule share: which rows they work on, how tiles of
// half-precision operands lie in memory, and the tensor cores.
//
// Operands are f16, never bf16: queries, keys and the inverse are bounded by one, and the three
// bits more keep correlated keys within a hundredth. Sums and the state are f32.
#pragma once

#include "common.cuh"

constexpr int CHUNK = 64;            // tokens
constexpr int DIM = 128;             // elements of a query, key or value
constexpr int MOST_RUNS = 32;
constexpr int TILE = CHUNK * DIM;    // elements of a chunk of one head's queries, keys or values
constexpr int SQUARE = CHUNK * CHUNK;

// Consecutive tokens of one sequence. Chunks start at its first token.
struct Run {
    int first_row;  // in the step
    int rows;
    int before;     // rows of the same sequence that the step has before the first
    int position;   // of the first token in the sequence
    int slot;
    int tile;       // where its chunks' operands lie in the scratch
};

struct Runs {
    Run runs[MOST_RUNS];
};

// Where 16 bytes lie in a tile whose rows are 128 bytes long. Eight rows' pieces of the same number
// lie in different banks, so that a matrix of 8 by 8 is read at once; it is also the order that
// warpgroup products call the 128-byte swizzle.
__device__ __forceinline__ int place(int row, int piece) {
    return row * 128 + ((piece ^ (row & 7)) << 4);
}

constexpr int HALF_TILE = CHUNK * 128;  // bytes of half a tile: 64 of 128 elements of each row

// The same in a tile of two halves.
__device__ __forceinline__ int tile_place(int row, int piece) {
    return piece / 8 * HALF_TILE + place(row, piece % 8);
}

// Where they lie in groups of 16 values, `[group][row][16]`.
__device__ __forceinline__ int value_place(int group, int row, int piece) {
    return (group * CHUNK + row) * 32 + ((piece ^ ((row >> 2) & 1)) << 4);
}

__device__ __forceinline__ uint32_t shared_address(const void* at) {
    return (uint32_t)__cvta_generic_to_shared(at);
}

// Starts copying to shared memory.
template <int THREADS, int BYTES>
__device__ __forceinline__ void start_copy(void* to, const void* from) {
    const uint32_t base = shared_address(to);
#pragma unroll
    for (int first = 0; first < BYTES; first += THREADS * 16) {
        const int at = first + threadIdx.x * 16;
        if (at >= BYTES) continue;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(base + at),
                     "l"((const char*)from + at));
    }
}

__device__ __forceinline__ void end_copies() { asm volatile("cp.async.commit_group;"); }

template <int LEFT>
__device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define HAS_BULK_COPIES 1

// One thread's copies arrive at a barrier in shared memory, which counts their bytes.
__device__ __forceinline__ void open_barrier(uint64_t* barrier) {
    asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(shared_address(barrier)));
}

__device__ __forceinline__ void expect_bytes(uint64_t* barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(
                     shared_address(barrier)),
                 "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void start_bulk_copy(void* to, const void* from, int bytes,
                                                uint64_t* barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
            "r"(shared_address(to)),
        "l"(from), "r"(bytes), "r"(shared_address(barrier))
        : "memory");
}

__device__ __forceinline__ void wait_for_bytes(uint64_t* barrier, int parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
        "@!done bra again;\n"
        "}\n" ::"r"(shared_address(barrier)),
        "r"(parity)
        : "memory");
}
#endif

// Four 8 by 8 matrices. Lane `l` names row `l % 8` of matrix `l / 8`, and gets elements
// `[l / 4][l % 4 * 2 ..]` of each.
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row));
}

// The same, each matrix transposed.
__device__ __forceinline__ void load_transposed(uint32_t (&to)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row));
}

// sum[16][8] += a[16][16] · b[16][8]. Of `sum`, a lane holds `[l / 4 (+ 8)][l % 4 * 2 (+ 1)]`.
__device__ __forceinline__ void multiply(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two f16, the first in the low half; what is too large becomes the largest.
__device__ __forceinline__ uint32_t halves(float low, float high) {
    uint32_t both;
    asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

// Two neighbouring sums of 16 by 8 as the left operand of 16 by 16.
__device__ __forceinline__ void as_operand(uint32_t (&to)[4], const float (&left)[4],
                                           const float (&right)[4]) {
    to[0] = halves(left[0], left[1]);
    to[1] = halves(left[2], left[3]);
    to[2] = halves(right[0], right[1]);
    to[3] = halves(right[2], right[3]);
}
