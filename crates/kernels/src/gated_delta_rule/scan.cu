// The gated delta rule chunk by chunk. With S the state [value][key] before a chunk and T, P and G
// of `solve.cu`:
//
//     N = T (V - exp(G) K Sᵀ)        O = (exp(G) Q Sᵀ + P N) / sqrt(d)
//     S = exp(G_last) S + (exp(G_last - G) N)ᵀ K
//
// A block owns 64 values of a head and a warp 16 of them, with their rows of the state in
// registers. All five products are taken transposed, values by tokens, so that each one's sums are
// the next one's left operand as they lie, and warps never exchange anything. Tiles come through a
// ring of shared memory.

#include "warpgroup.cuh"

namespace {

constexpr int WARPS = 4;
constexpr int THREADS = WARPS * WARP;
constexpr int GROUP = CHUNK * 16 * 2;  // bytes of 16 values
constexpr int K_AT = 0;
constexpr int Q_AT = K_AT + TILE * 2;
constexpr int T_AT = Q_AT + TILE * 2;
constexpr int P_AT = T_AT + SQUARE * 2;
constexpr int V_AT = P_AT + SQUARE * 2;
constexpr int F_AT = V_AT + WARPS * GROUP;
constexpr int ARRIVING = F_AT + 2 * CHUNK * 4;
constexpr int ALIGNMENT = 1024;  // of a swizzled tile
constexpr int STAGE = (ARRIVING + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
constexpr float READ_SCALE = 0.08838834764831845f;  // 128^-0.5

[[maybe_unused]] __device__ __forceinline__ void set_zero(float (&sum)[8][4]) {
#pragma unroll
    for (int at = 0; at < 32; at++) sum[at / 4][at % 4] = 0.0f;
}

// sum[16 values][64 tokens] = a[16][128] · tileᵀ, the tile being [64 tokens][128].
__device__ __forceinline__ void start_times_rows(float (&sum)[8][4], const uint32_t (&a)[8][4],
                                                 uint32_t tile) {
#ifdef HAS_WARPGROUPS
    fence_products();
#pragma unroll
    for (int step = 0; step < 8; step++) {
        const uint64_t b = describe(tile + step / 4 * HALF_TILE + step % 4 * 32, 0);
        if (step == 0) {
            start_by_rows<false>(sum, a[step], b);
        } else {
            start_by_rows<true>(sum, a[step], b);
        }
    }
    end_products();
#else
    set_zero(sum);
    const int lane = threadIdx.x % WARP;
    const int row = lane / 16 * 8 + lane % 8, piece = lane / 8 % 2;
#pragma unroll
    for (int step = 0; step < 8; step++) {
#pragma unroll
        for (int pair = 0; pair < 4; pair++) {
            uint32_t b[4];
            load_matrices(b, tile + tile_place(pair * 16 + row, step * 2 + piece));
            multiply(sum[pair * 2], a[step], b[0], b[1]);
            multiply(sum[pair * 2 + 1], a[step], b[2], b[3]);
        }
    }
#endif
}

// sum[16 values][64 tokens] = a[16][64] · squareᵀ, or added to it; the square is lower triangular.
template <bool ADD>
__device__ __forceinline__ void start_times_triangle(float (&sum)[8][4],
                                                     const uint32_t (&a)[4][4], uint32_t square) {
#ifdef HAS_WARPGROUPS
    fence_products();
#pragma unroll
    for (int step = 0; step < 4; step++) {
        const uint64_t b = describe(square + step * 32, 0);
        if (!ADD && step == 0) {
            start_by_rows<false>(sum, a[step], b);
        } else {
            start_by_rows<true>(sum, a[step], b);
        }
    }
    end_products();
#else
    if (!ADD) set_zero(sum);
    const int lane = threadIdx.x % WARP;
    const int row = lane / 16 * 8 + lane % 8, piece = lane / 8 % 2;
#pragma unroll
    for (int step = 0; step < 4; step++) {
#pragma unroll
        for (int pair = step; pair < 4; pair++) {
            uint32_t b[4];
            load_matrices(b, square + place(pair * 16 + row, step * 2 + piece));
            multiply(sum[pair * 2], a[step], b[0], b[1]);
            multiply(sum[pair * 2 + 1], a[step], b[2], b[3]);
        }
    }
#endif
}

// state[16 values][128 keys] += a[16][64 tokens] · tile[64 tokens][128].
__device__ __forceinline__ void start_times_columns(float (&state)[16][4],
                                                    const uint32_t (&a)[4][4], uint32_t tile) {
#ifdef HAS_WARPGROUPS
    fence_products();
#pragma unroll
    for (int step = 0; step < 4; step++) {
        start_by_columns(state, a[step], describe(tile + step * 16 * 128, HALF_TILE));
    }
    end_products();
#else
    const int lane = threadIdx.x % WARP;
    const int row = lane % 16, piece = lane / 16;
#pragma unroll
    for (int step = 0; step < 4; step++) {
#pragma unroll
        for (int pair = 0; pair < 8; pair++) {
            uint32_t b[4];
            load_transposed(b, tile + tile_place(step * 16 + row, pair * 2 + piece));
            multiply(state[pair * 2], a[step], b[0], b[1]);
            multiply(state[pair * 2 + 1], a[step], b[2], b[3]);
        }
    }
#endif
}

// Waits until at most `LEFT` products are under way; `sum` can be read from here.
template <int LEFT, int TILES>
__device__ __forceinline__ void finish(float (&sum)[TILES][4]) {
#ifdef HAS_WARPGROUPS
    wait_for_products<LEFT>();
#pragma unroll
    for (int at = 0; at < TILES; at++) {
        asm volatile("" : SUMS_4(sum, at)::"memory");
    }
#endif
}

// Multiplies the columns of tokens with their factors.
__device__ __forceinline__ void scale(float (&sum)[8][4], const float* factors) {
#pragma unroll
    for (int at = 0; at < 8; at++) {
        const float2 factor = *(const float2*)&factors[at * 8 + threadIdx.x % 4 * 2];
        sum[at][0] *= factor.x;
        sum[at][1] *= factor.y;
        sum[at][2] *= factor.x;
        sum[at][3] *= factor.y;
    }
}

__device__ __forceinline__ void as_operands(uint32_t (&to)[4][4], const float (&sum)[8][4]) {
#pragma unroll
    for (int step = 0; step < 4; step++) as_operand(to[step], sum[step * 2], sum[step * 2 + 1]);
}

// What is not yet remembered, V - exp(G) K Sᵀ, in the place of exp(G) K Sᵀ.
__device__ __forceinline__ void subtract_from(float (&sum)[8][4], uint32_t values) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int pair = 0; pair < 4; pair++) {
        uint32_t v[4];
        const int row = pair * 16 + lane / 16 * 8 + lane % 8;
        load_transposed(v, values + value_place(0, row, lane / 8 % 2));
#pragma unroll
        for (int part = 0; part < 4; part++) {
            float* two = &sum[pair * 2 + part / 2][part % 2 * 2];
            const float2 value = __half22float2(*(const __half2*)&v[part]);
            two[0] = value.x - two[0];
            two[1] = value.y - two[1];
        }
    }
}

__device__ __forceinline__ void write_rows(float* to, int64_t stride, const float (&read)[8][4],
                                           int left) {
    const int first = threadIdx.x % 4 * 2;
    to += first * stride;
#pragma unroll
    for (int at = 0; at < 16; at++) {
        if (left < CHUNK && at / 2 * 8 + at % 2 + first >= left) continue;
        float* here = to + (at / 2 * 8 + at % 2) * stride;
        here[0] = read[at / 2][at % 2] * READ_SCALE;
        here[8] = read[at / 2][at % 2 + 2] * READ_SCALE;
    }
}

// A warp's rows of the state, from and to where a lane's first two elements lie.
__device__ __forceinline__ void load_state(float (&state)[16][4], const float* from) {
#pragma unroll
    for (int at = 0; at < 16; at++) {
        *(float2*)&state[at][0] = *(const float2*)(from + at * 8);
        *(float2*)&state[at][2] = *(const float2*)(from + at * 8 + 8 * DIM);
    }
}

__device__ __forceinline__ void store_state(const float (&state)[16][4], float* to) {
#pragma unroll
    for (int at = 0; at < 16; at++) {
        *(float2*)(to + at * 8) = *(const float2*)&state[at][0];
        *(float2*)(to + at * 8 + 8 * DIM) = *(const float2*)&state[at][2];
    }
}

// One chunk: `state` goes from before to after it, and `read` is what its queries read.
__device__ __forceinline__ void scan_chunk(float (&state)[16][4], float (&read)[8][4],
                                           const char* stage) {
    const uint32_t at_stage = shared_address(stage);
    const float* decayed = (const float*)(stage + F_AT);
    uint32_t old[8][4], operand[4][4], kept[4][4];
#pragma unroll
    for (int step = 0; step < 8; step++) {
        as_operand(old[step], state[step * 2], state[step * 2 + 1]);
    }
    float fresh[8][4], from_k[8][4];
    start_times_rows(from_k, old, at_stage + K_AT);
    start_times_rows(read, old, at_stage + Q_AT);
    finish<1>(from_k);
    scale(from_k, decayed);
    subtract_from(from_k, at_stage + V_AT + threadIdx.x / WARP * GROUP);
    as_operands(operand, from_k);
    start_times_triangle<false>(fresh, operand, at_stage + T_AT);
    finish<0>(fresh);
    finish<0>(read);

    as_operands(operand, fresh);
    scale(read, decayed);
    start_times_triangle<true>(read, operand, at_stage + P_AT);
    scale(fresh, decayed + CHUNK);
    as_operands(kept, fresh);
    const float whole = decayed[CHUNK - 1];
#pragma unroll
    for (int at = 0; at < 16; at++) {
#pragma unroll
        for (int one = 0; one < 4; one++) state[at][one] *= whole;
    }
    start_times_columns(state, kept, at_stage + K_AT);
    finish<1>(read);
}

// Tiles of a chunk, each of which lies in memory as it lies in shared memory.
struct Tiles {
    const __half *queries, *keys, *inverses, *scores, *values;
    const float* factors;

    __device__ __forceinline__ void start(char* to, int64_t key_tile, int64_t tile,
                                          [[maybe_unused]] uint64_t* barrier) const {
        const __half* own_values = values + tile * TILE + blockIdx.x * (WARPS * GROUP / 2);
        const float* own_factors = factors + tile * 2 * CHUNK;
#ifdef HAS_BULK_COPIES
        if (threadIdx.x != 0) return;
        expect_bytes(barrier, ARRIVING);
        start_bulk_copy(to + K_AT, keys + key_tile * TILE, TILE * 2, barrier);
        start_bulk_copy(to + F_AT, own_factors, 2 * CHUNK * 4, barrier);
        start_bulk_copy(to + V_AT, own_values, WARPS * GROUP, barrier);
        start_bulk_copy(to + T_AT, inverses + tile * SQUARE, SQUARE * 2, barrier);
        start_bulk_copy(to + Q_AT, queries + key_tile * TILE, TILE * 2, barrier);
        start_bulk_copy(to + P_AT, scores + tile * SQUARE, SQUARE * 2, barrier);
#else
        start_copy<THREADS, TILE * 2>(to + K_AT, keys + key_tile * TILE);
        start_copy<THREADS, 2 * CHUNK * 4>(to + F_AT, own_factors);
        start_copy<THREADS, WARPS * GROUP>(to + V_AT, own_values);
        start_copy<THREADS, SQUARE * 2>(to + T_AT, inverses + tile * SQUARE);
        start_copy<THREADS, TILE * 2>(to + Q_AT, queries + key_tile * TILE);
        start_copy<THREADS, SQUARE * 2>(to + P_AT, scores + tile * SQUARE);
#endif
    }
};

template <int STAGES>
__device__ __forceinline__ void scan(const Tiles& tiles, float* memory, float* out, int key_heads,
                                     int value_heads, int tiled, const Runs& all) {
    extern __shared__ char dynamic[];
    __shared__ uint64_t arrived[STAGES];
    char* shared = dynamic + (ALIGNMENT - shared_address(dynamic) % ALIGNMENT) % ALIGNMENT;
#ifdef HAS_BULK_COPIES
    if (threadIdx.x == 0) {
        for (int at = 0; at < STAGES; at++) open_barrier(&arrived[at]);
    }
    __syncthreads();
#endif
    wait_for_predecessors();
    let_successors_start();
    const Run run = all.runs[blockIdx.z];
    const int chunks = (run.rows + CHUNK - 1) / CHUNK;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int head = blockIdx.y;
    const int key_head = tiled ? head % key_heads : head / (value_heads / key_heads);
    auto start_chunk = [&](int chunk) {
        if (chunk < chunks) {
            const int64_t tile = run.tile + chunk;
            tiles.start(shared + chunk % STAGES * STAGE, tile * key_heads + key_head,
                        tile * value_heads + head, &arrived[chunk % STAGES]);
        }
        end_copies();
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
    float* own = memory + (((int64_t)run.slot * value_heads + head) * DIM + value) * DIM +
                 lane % 4 * 2;
    float state[16][4] = {};
    if (run.position > 0) load_state(state, own);
    const int64_t stride = (int64_t)value_heads * DIM;
    float* to = out + run.first_row * stride + head * DIM + value;
    for (int chunk = 0; chunk < chunks; chunk++) {
        // All warps have read the chunk before: its place takes the next one that is fetched.
        __syncthreads();
        start_chunk(chunk + STAGES - 1);
        wait_for_chunk(chunk);
        float read[8][4];
        scan_chunk(state, read, shared + chunk % STAGES * STAGE);
        write_rows(to + chunk * CHUNK * stride, stride, read, run.rows - chunk * CHUNK);
        finish<0>(state);
    }
    store_state(state, own);
}

}  // namespace

// Grid: halves of the values, value heads, runs.
#define SCAN(STAGES)                                                                               \
    KERNEL void __launch_bounds__(THREADS) delta_scan_##STAGES(                                    \
        const __half* queries, const __half* keys, const __half* inverses, const __half* scores,   \
        const float* factors, const __half* values, float* memory, float* out, int key_heads,      \
        int value_heads, int tiled, const __grid_constant__ Runs all) {                            \
        scan<STAGES>({queries, keys, inverses, scores, values, factors}, memory, out, key_heads,   \
                     value_heads, tiled, all);                                                     \
    }

SCAN(3)
SCAN(2)
SCAN(1)
