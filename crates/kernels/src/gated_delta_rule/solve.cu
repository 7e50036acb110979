// What the chunks of the gated delta rule need besides the state, for all chunks at once. With G
// the sums of log decays within a chunk, per value head:
//
//     L[i][j] = beta_i (k_i · k_j) exp(G_i - G_j), i > j       T = (I + L)⁻¹ diag(beta)
//     P[i][j] = (q_i · k_j) exp(G_i - G_j), i >= j
//
// The inverse is forward substitution in f32, a thread a column. Powers of L, as a doubling inverse
// takes them, reach 1e18 where keys are alike, though T stays below one.

#include "chunk.cuh"

namespace {

constexpr int THREADS = 128;
constexpr int STRIDE = CHUNK + 4;  // of L in shared memory
constexpr float LOG2_E = 1.4426950408889634f;
// exp(-120) is zero in f32; a larger sum would cost the others' differences their precision.
constexpr float STRONGEST = -120.0f;

constexpr int P_AT = CHUNK * STRIDE * 4;
constexpr int T_AT = P_AT + SQUARE * 2;
constexpr int SHARED = T_AT + SQUARE * 2;
static_assert(SHARED >= 2 * TILE * 2, "queries and keys lie there first");

__device__ __forceinline__ float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

// Reads the gates of a chunk; `sums` becomes G by log2. Rows past the end change nothing: their
// beta and log decay are zero. Called by the first 64 threads.
__device__ __forceinline__ void read_gates(const float* gates, bool inside, float decay,
                                           float dt_bias, int value_heads, float* beta,
                                           float* sums) {
    const int token = threadIdx.x, lane = token % WARP;
    float sum = 0.0f;
    beta[token] = 0.0f;
    if (inside) {
        beta[token] = sigmoid(gates[0]);
        sum = fmaxf(decay * softplus(gates[value_heads] + dt_bias), STRONGEST) * LOG2_E;
    }
#pragma unroll
    for (int offset = 1; offset < WARP; offset *= 2) {
        const float before = __shfl_up_sync(0xffffffffu, sum, offset);
        if (lane >= offset) sum += before;
    }
    sums[token] = sum;
}

// Column `column` of (I + L)⁻¹ from row FIRST on; above, it is zero.
template <int FIRST>
__device__ __forceinline__ void invert(const float* l, int column, float beta, char* t) {
    constexpr int ROWS = CHUNK - FIRST;
    float x[ROWS];
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
        float sum[4] = {column == FIRST + row ? 1.0f : 0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int at = 0; at < row; at += 4) {
            const float4 four = *(const float4*)&l[(FIRST + row) * STRIDE + FIRST + at];
            sum[0] -= four.x * x[at];
            if (at + 1 < row) sum[1] -= four.y * x[at + 1];
            if (at + 2 < row) sum[2] -= four.z * x[at + 2];
            if (at + 3 < row) sum[3] -= four.w * x[at + 3];
        }
        x[row] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        const int to = place<8>(FIRST + row, column / 8) + column % 8 * 2;
        *(__half*)(t + to) = __float2half_rn(x[row] * beta);
    }
}

}  // namespace

// Grid: chunks of the longest run, value heads, runs. `factors` takes exp(G_t) and
// exp(G_last - G_t), `[tile][value_head][2][64]`.
KERNEL void __launch_bounds__(THREADS) delta_solve(
    const float* __restrict__ projected, int64_t cols, int64_t b_offset,
    const float* __restrict__ decay, const float* __restrict__ dt_bias,
    const __half* __restrict__ queries, const __half* __restrict__ keys,
    __half* __restrict__ inverses, __half* __restrict__ scores, float* __restrict__ factors,
    int key_heads, int value_heads, int tiled, const __grid_constant__ Runs all) {
    __shared__ __align__(128) char shared[SHARED];
    __shared__ float beta[CHUNK], sums[CHUNK];
    wait_for_predecessors();
    let_successors_start();
    const Run run = all.runs[blockIdx.z];
    const int first = blockIdx.x * CHUNK;
    if (first >= run.rows) return;
    const int thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
    const int head = blockIdx.y;
    const int key_head = tiled ? head % key_heads : head / (value_heads / key_heads);
    const int64_t tile = run.tile + blockIdx.x;
    const int64_t key_tile = tile * key_heads + key_head, square = tile * value_heads + head;

    start_copy<THREADS, TILE * 2>(shared, keys + key_tile * TILE);
    start_copy<THREADS, TILE * 2>(shared + TILE * 2, queries + key_tile * TILE);
    end_copies();
    if (thread < CHUNK) {
        const int64_t row = run.first_row + first + thread;
        read_gates(projected + row * cols + b_offset + head, first + thread < run.rows,
                   decay[head], dt_bias[head], value_heads, beta, sums);
    }
    wait_for_copies<0>();
    __syncthreads();
    const float carried = sums[WARP - 1];
    __syncthreads();
    if (thread >= WARP && thread < CHUNK) sums[thread] += carried;

    // A warp multiplies 16 rows with the columns up to its own.
    const uint32_t k_at = shared_address(shared), q_at = k_at + TILE * 2;
    float kk[8][4] = {}, qk[8][4] = {};
#pragma unroll
    for (int step = 0; step < DIM / 16; step++) {
        const int row = warp * 16 + lane % 16;
        uint32_t k[4], q[4];
        load_matrices(k, k_at + place<16>(row, step * 2 + lane / 16));
        load_matrices(q, q_at + place<16>(row, step * 2 + lane / 16));
#pragma unroll
        for (int pair = 0; pair < 4; pair++) {
            if (pair > warp) continue;
            uint32_t b[4];
            const int column = pair * 16 + lane / 16 * 8 + lane % 8;
            load_matrices(b, k_at + place<16>(column, step * 2 + lane / 8 % 2));
            multiply(kk[pair * 2], k, b[0], b[1]);
            multiply(kk[pair * 2 + 1], k, b[2], b[3]);
            multiply(qk[pair * 2], q, b[0], b[1]);
            multiply(qk[pair * 2 + 1], q, b[2], b[3]);
        }
    }
    __syncthreads();

    float* l = (float*)shared;
#pragma unroll
    for (int at = 0; at < 8; at++) {
        if (at / 2 > warp) continue;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = warp * 16 + half * 8 + lane / 4, column = at * 8 + lane % 4 * 2;
            float decayed[2];
#pragma unroll
            for (int one = 0; one < 2; one++) {
                // Masked before the exponential: above the diagonal it could be infinite.
                const int other = column + one;
                decayed[one] = other > row ? 0.0f : exp2f(sums[row] - sums[other]);
                l[row * STRIDE + other] =
                    other < row ? beta[row] * kk[at][half * 2 + one] * decayed[one] : 0.0f;
            }
            *(uint32_t*)(shared + P_AT + place<8>(row, at) + lane % 4 * 4) =
                halves(qk[at][half * 2] * decayed[0], qk[at][half * 2 + 1] * decayed[1]);
        }
    }
    __syncthreads();
    if (warp == 0) {
        invert<0>(l, thread, beta[thread], shared + T_AT);
    } else if (warp == 1) {
        invert<CHUNK / 2>(l, thread, beta[thread], shared + T_AT);
    } else {
        const int at = thread - CHUNK;
        float* to = factors + square * 2 * CHUNK;
        to[at] = exp2f(sums[at]);
        to[CHUNK + at] = exp2f(sums[CHUNK - 1] - sums[at]);
        uint4* wide = (uint4*)(scores + square * SQUARE);
        for (int piece = at; piece < SQUARE / 8; piece += CHUNK) {
            wide[piece] = ((const uint4*)(shared + P_AT))[piece];
        }
    }
    __syncthreads();
    uint4* wide = (uint4*)(inverses + square * SQUARE);
    for (int piece = thread; piece < SQUARE / 8; piece += THREADS) {
        wide[piece] = ((const uint4*)(shared + T_AT))[piece];
    }
}
