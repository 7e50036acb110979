// The gated delta rule chunk by chunk. With S the state [value][key] before a chunk and T, P and G
// of `solve.cu`:
//
//     N = T (V - exp(G) K Sᵀ)        O = (exp(G) Q Sᵀ + P N) / sqrt(d)
//     S = exp(G_last) S + (exp(G_last - G) N)ᵀ K
//
// A warp owns 16 values and keeps their rows of the state in registers; all five products are taken
// transposed, values by tokens, so that each one's sums are the next one's operand as they lie and
// warps never exchange anything. Tiles come through a ring of shared memory.

#include "chunk.cuh"

namespace {

constexpr int K_AT = 0;
constexpr int Q_AT = K_AT + TILE * 2;
constexpr int T_AT = Q_AT + TILE * 2;
constexpr int P_AT = T_AT + SQUARE * 2;
constexpr int F_AT = P_AT + SQUARE * 2;
constexpr int V_AT = F_AT + 2 * CHUNK * 4;
constexpr float READ_SCALE = 0.08838834764831845f;  // 128^-0.5
constexpr int GROUP = CHUNK * 16 * 2;  // bytes of 16 values

// sum[16 values][64 tokens] += a[16][128] · tileᵀ, the tile being [64 tokens][128].
__device__ __forceinline__ void times_rows(float (&sum)[8][4], const uint32_t (&a)[8][4],
                                           uint32_t tile) {
    const int lane = threadIdx.x % WARP;
    const int row = lane / 16 * 8 + lane % 8, piece = lane / 8 % 2;
#pragma unroll
    for (int step = 0; step < 8; step++) {
#pragma unroll
        for (int pair = 0; pair < 4; pair++) {
            uint32_t b[4];
            load_matrices(b, tile + place<16>(pair * 16 + row, step * 2 + piece));
            multiply(sum[pair * 2], a[step], b[0], b[1]);
            multiply(sum[pair * 2 + 1], a[step], b[2], b[3]);
        }
    }
}

// sum[16 values][64 tokens] += a[16][64] · squareᵀ, the square being lower triangular.
__device__ __forceinline__ void times_triangle(float (&sum)[8][4], const uint32_t (&a)[4][4],
                                               uint32_t square) {
    const int lane = threadIdx.x % WARP;
    const int row = lane / 16 * 8 + lane % 8, piece = lane / 8 % 2;
#pragma unroll
    for (int step = 0; step < 4; step++) {
#pragma unroll
        for (int pair = step; pair < 4; pair++) {
            uint32_t b[4];
            load_matrices(b, square + place<8>(pair * 16 + row, step * 2 + piece));
            multiply(sum[pair * 2], a[step], b[0], b[1]);
            multiply(sum[pair * 2 + 1], a[step], b[2], b[3]);
        }
    }
}

// state[16 values][128 keys] += a[16][64 tokens] · tile[64 tokens][128].
__device__ __forceinline__ void times_columns(float (&state)[16][4], const uint32_t (&a)[4][4],
                                              uint32_t tile) {
    const int lane = threadIdx.x % WARP;
    const int row = lane % 16, piece = lane / 16;
#pragma unroll
    for (int step = 0; step < 4; step++) {
#pragma unroll
        for (int pair = 0; pair < 8; pair++) {
            uint32_t b[4];
            load_transposed(b, tile + place<16>(step * 16 + row, pair * 2 + piece));
            multiply(state[pair * 2], a[step], b[0], b[1]);
            multiply(state[pair * 2 + 1], a[step], b[2], b[3]);
        }
    }
}

// What is not yet remembered: V - exp(G) K Sᵀ, from K Sᵀ.
__device__ __forceinline__ void error(uint32_t (&to)[4][4], float (&from_k)[8][4], uint32_t values,
                                      const float* decayed) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int pair = 0; pair < 4; pair++) {
        uint32_t v[4];
        const int row = pair * 16 + lane / 16 * 8 + lane % 8;
        load_transposed(v, values + value_place(0, row, lane / 8 % 2));
#pragma unroll
        for (int part = 0; part < 4; part++) {
            const int at = pair * 2 + part / 2, first = part % 2 * 2;
            const float2 keep = *(const float2*)&decayed[at * 8 + lane % 4 * 2];
            const float2 value = __half22float2(*(const __half2*)&v[part]);
            to[pair][part] = halves(value.x - keep.x * from_k[at][first],
                                    value.y - keep.y * from_k[at][first + 1]);
        }
    }
}

__device__ __forceinline__ void write_rows(float* to, int64_t stride, const float (&read)[8][4],
                                           int left) {
    const int first = threadIdx.x % WARP % 4 * 2;
    to += first * stride;
#pragma unroll
    for (int at = 0; at < 16; at++) {
        if (left < CHUNK && at / 2 * 8 + at % 2 + first >= left) continue;
        float* here = to + (at / 2 * 8 + at % 2) * stride;
        here[0] = read[at / 2][at % 2] * READ_SCALE;
        here[8] = read[at / 2][at % 2 + 2] * READ_SCALE;
    }
}

template <int WARPS, int STAGES>
__device__ __forceinline__ void scan(const __half* queries, const __half* keys,
                                     const __half* inverses, const __half* scores,
                                     const float* factors, const __half* values, float* memory,
                                     float* out, int key_heads, int value_heads, int tiled,
                                     const Runs& all) {
    [[maybe_unused]] constexpr int THREADS = WARPS * WARP;
    constexpr int STAGE = V_AT + WARPS * GROUP;
    extern __shared__ __align__(128) char shared[];
    wait_for_predecessors();
    let_successors_start();
    const Run run = all.runs[blockIdx.z];
    const int chunks = (run.rows + CHUNK - 1) / CHUNK;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int head = blockIdx.y;
    const int key_head = tiled ? head % key_heads : head / (value_heads / key_heads);

#ifdef HAS_BULK_COPIES
    __shared__ uint64_t arrived[STAGES];
    if (threadIdx.x == 0) {
        for (int at = 0; at < STAGES; at++) open_barrier(&arrived[at]);
    }
    __syncthreads();
#endif
    // Every tile lies in memory as it lies in shared memory.
    auto start_chunk = [&](int chunk) {
        const int64_t tile = run.tile + chunk;
        const int64_t k = tile * key_heads + key_head, v = tile * value_heads + head;
        char* to = shared + chunk % STAGES * STAGE;
        const float* chunk_factors = factors + v * 2 * CHUNK;
        const __half* chunk_values = values + v * TILE + blockIdx.x * (WARPS * GROUP / 2);
#ifdef HAS_BULK_COPIES
        if (threadIdx.x != 0 || chunk >= chunks) return;
        uint64_t* barrier = &arrived[chunk % STAGES];
        expect_bytes(barrier, STAGE);
        start_bulk_copy(to + K_AT, keys + k * TILE, TILE * 2, barrier);
        start_bulk_copy(to + F_AT, chunk_factors, 2 * CHUNK * 4, barrier);
        start_bulk_copy(to + V_AT, chunk_values, WARPS * GROUP, barrier);
        start_bulk_copy(to + T_AT, inverses + v * SQUARE, SQUARE * 2, barrier);
        start_bulk_copy(to + Q_AT, queries + k * TILE, TILE * 2, barrier);
        start_bulk_copy(to + P_AT, scores + v * SQUARE, SQUARE * 2, barrier);
#else
        if (chunk < chunks) {
            start_copy<THREADS, TILE * 2>(to + K_AT, keys + k * TILE);
            start_copy<THREADS, 2 * CHUNK * 4>(to + F_AT, chunk_factors);
            start_copy<THREADS, WARPS * GROUP>(to + V_AT, chunk_values);
            start_copy<THREADS, SQUARE * 2>(to + T_AT, inverses + v * SQUARE);
            start_copy<THREADS, TILE * 2>(to + Q_AT, queries + k * TILE);
            start_copy<THREADS, SQUARE * 2>(to + P_AT, scores + v * SQUARE);
        }
        end_copies();
#endif
    };
    auto wait_for_chunk = [&](int chunk) {
#ifdef HAS_BULK_COPIES
        wait_for_bytes(&arrived[chunk % STAGES], chunk / STAGES % 2);
#else
        wait_for_copies<STAGES - 1>();
        __syncthreads();
#endif
    };
#pragma unroll
    for (int chunk = 0; chunk < STAGES - 1; chunk++) start_chunk(chunk);

    const int value = (blockIdx.x * WARPS + warp) * 16 + lane / 4;
    float* own = memory + (((int64_t)run.slot * value_heads + head) * DIM + value) * DIM;
    float state[16][4] = {};
    if (run.position > 0) {
#pragma unroll
        for (int at = 0; at < 16; at++) {
            const float* from = own + at * 8 + lane % 4 * 2;
            *(float2*)&state[at][0] = *(const float2*)from;
            *(float2*)&state[at][2] = *(const float2*)(from + 8 * DIM);
        }
    }

    for (int chunk = 0; chunk < chunks; chunk++) {
        // All warps have read the chunk before: its place takes the next one that is fetched.
        __syncthreads();
        start_chunk(chunk + STAGES - 1);
        wait_for_chunk(chunk);
        const char* stage = shared + chunk % STAGES * STAGE;
        const uint32_t at_stage = shared_address(stage);
        const float* decayed = (const float*)(stage + F_AT);

        uint32_t old[8][4];
#pragma unroll
        for (int step = 0; step < 8; step++) {
            as_operand(old[step], state[step * 2], state[step * 2 + 1]);
        }
        float fresh[8][4] = {};
        uint32_t operand[4][4];
        {
            float from_k[8][4] = {};
            times_rows(from_k, old, at_stage + K_AT);
            error(operand, from_k, at_stage + V_AT + warp * GROUP, decayed);
        }
        times_triangle(fresh, operand, at_stage + T_AT);

        float read[8][4] = {};
        times_rows(read, old, at_stage + Q_AT);
#pragma unroll
        for (int step = 0; step < 4; step++) {
            as_operand(operand[step], fresh[step * 2], fresh[step * 2 + 1]);
        }
#pragma unroll
        for (int at = 0; at < 8; at++) {
            const float2 keep = *(const float2*)&decayed[at * 8 + lane % 4 * 2];
            read[at][0] *= keep.x;
            read[at][1] *= keep.y;
            read[at][2] *= keep.x;
            read[at][3] *= keep.y;
        }
        times_triangle(read, operand, at_stage + P_AT);

        const int64_t row = run.first_row + chunk * CHUNK;
        write_rows(out + (row * value_heads + head) * DIM + value, (int64_t)value_heads * DIM, read,
                   run.rows - chunk * CHUNK);

        const float whole = decayed[CHUNK - 1];
#pragma unroll
        for (int at = 0; at < 16; at++) {
#pragma unroll
            for (int one = 0; one < 4; one++) state[at][one] *= whole;
        }
#pragma unroll
        for (int at = 0; at < 8; at++) {
            const float2 rest = *(const float2*)&decayed[CHUNK + at * 8 + lane % 4 * 2];
            operand[at / 2][at % 2 * 2] = halves(fresh[at][0] * rest.x, fresh[at][1] * rest.y);
            operand[at / 2][at % 2 * 2 + 1] = halves(fresh[at][2] * rest.x, fresh[at][3] * rest.y);
        }
        times_columns(state, operand, at_stage + K_AT);
    }
#pragma unroll
    for (int at = 0; at < 16; at++) {
        float* to = own + at * 8 + lane % 4 * 2;
        *(float2*)to = *(const float2*)&state[at][0];
        *(float2*)(to + 8 * DIM) = *(const float2*)&state[at][2];
    }
}

}  // namespace

// Grid: slices of values, value heads, runs.
#define SCAN(WARPS, STAGES)                                                                        \
    KERNEL void __launch_bounds__(WARPS* WARP) delta_scan_##WARPS##_##STAGES(                     \
        const __half* queries, const __half* keys, const __half* inverses, const __half* scores,   \
        const float* factors, const __half* values, float* memory, float* out, int key_heads,      \
        int value_heads, int tiled, const __grid_constant__ Runs all) {                            \
        scan<WARPS, STAGES>(queries, keys, inverses, scores, factors, values, memory, out,         \
                            key_heads, value_heads, tiled, all);                                   \
    }

SCAN(4, 3)
SCAN(4, 2)
SCAN(4, 1)
SCAN(2, 3)
