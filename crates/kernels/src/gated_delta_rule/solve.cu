// What the chunks of the gated delta rule need besides the state, for all chunks at once. With G
// the sums of log decays within a chunk, per value head:
//
//     L[i][j] = beta_i (k_i · k_j) exp(G_i - G_j), i > j       T = (I + L)⁻¹ diag(beta)
//     P[i][j] = (q_i · k_j) exp(G_i - G_j), i >= j
//
// The inverse: forward substitution in f32 on the diagonal's blocks of 16, and from them block by
// block downwards, X_ij = -D_i (sum over j <= m < i of L_im X_mj). Powers of L, as a doubling
// inverse takes them, reach 1e18 where keys are alike, though T stays below one.

#include "chunk.cuh"

namespace {

constexpr int THREADS = 128;
constexpr int BLOCK = 16;          // rows of a diagonal block
constexpr int BLOCKS = CHUNK / BLOCK;
constexpr int STRIDE = BLOCK + 4;  // of a diagonal block of L
constexpr float LOG2_E = 1.4426950408889634f;
// exp(-120) is zero in f32; a larger sum would cost the others' differences their precision.
constexpr float STRONGEST = -120.0f;

// Queries and keys lie in shared memory first, then these.
constexpr int L_AT = 0;                                   // f16, below the diagonal's blocks
constexpr int P_AT = L_AT + SQUARE * 2;
constexpr int T_AT = P_AT + SQUARE * 2;
constexpr int D_AT = T_AT + SQUARE * 2;                   // f16, inverses of the diagonal's blocks
constexpr int DIAGONAL_AT = D_AT + BLOCKS * BLOCK * BLOCK * 2;  // f32, the diagonal's blocks of L
constexpr int SHARED = 2 * TILE * 2;
static_assert(DIAGONAL_AT + BLOCKS * BLOCK * STRIDE * 4 <= SHARED, "fits where the tiles were");

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

// A column of a diagonal block's inverse, by one of the first 64 threads.
__device__ __forceinline__ void invert_diagonal(char* shared, const float* beta) {
    const int block = threadIdx.x / BLOCK, column = threadIdx.x % BLOCK;
    const float* l = (const float*)(shared + DIAGONAL_AT) + block * BLOCK * STRIDE;
    __half* d = (__half*)(shared + D_AT) + block * BLOCK * BLOCK;
    float x[BLOCK];
#pragma unroll
    for (int row = 0; row < BLOCK; row++) {
        float sum[2] = {column == row ? 1.0f : 0.0f, 0.0f};
#pragma unroll
        for (int at = 0; at < row; at++) sum[at % 2] -= l[row * STRIDE + at] * x[at];
        x[row] = sum[0] + sum[1];
        d[row * BLOCK + column] = __float2half_rn(x[row]);
        const int to = place(block * BLOCK + row, block * 2 + column / 8) + column % 8 * 2;
        *(__half*)(shared + T_AT + to) = __float2half_rn(x[row] * beta[threadIdx.x]);
    }
}

// The blocks below the diagonal in one block of columns, by one warp. All is transposed, so that
// a product is the next one's left operand as it lies.
__device__ __forceinline__ void invert_below(char* shared, const float* beta, int block) {
    const int lane = threadIdx.x % WARP;
    const uint32_t l_at = shared_address(shared + L_AT), d_at = shared_address(shared + D_AT);
    const int row = lane / 16 * 8 + lane % 8, piece = lane / 8 % 2;
    const float scales[2] = {beta[block * BLOCK + lane / 4], beta[block * BLOCK + lane / 4 + 8]};
    uint32_t x[BLOCKS][4];
    // Rows of the block are its columns transposed, so pieces and rows change places.
    load_transposed(x[0], d_at + ((block * BLOCK + row) * BLOCK + piece * 8) * 2);
#pragma unroll
    for (int down = 1; down < BLOCKS; down++) {
        const int i = block + down;
        if (i >= BLOCKS) continue;
        float sum[2][4] = {}, fresh[2][4] = {};
        uint32_t b[4];
#pragma unroll
        for (int m = 0; m < down; m++) {
            load_matrices(b, l_at + place(i * BLOCK + row, (block + m) * 2 + piece));
            multiply(sum[0], x[m], b[0], b[1]);
            multiply(sum[1], x[m], b[2], b[3]);
        }
        as_operand(x[down], sum[0], sum[1]);
        load_matrices(b, d_at + ((i * BLOCK + row) * BLOCK + piece * 8) * 2);
        multiply(fresh[0], x[down], b[0], b[1]);
        multiply(fresh[1], x[down], b[2], b[3]);
#pragma unroll
        for (int part = 0; part < 2; part++) {
#pragma unroll
            for (int one = 0; one < 4; one++) {
                float& value = fresh[part][one];
                value = -value;
                const int to_row = i * BLOCK + part * 8 + lane % 4 * 2 + one % 2;
                const int to = place(to_row, block * 2 + one / 2) + lane / 4 * 2;
                *(__half*)(shared + T_AT + to) = __float2half_rn(value * scales[one / 2]);
            }
        }
        as_operand(x[down], fresh[0], fresh[1]);
    }
}

}  // namespace

// Grid: value heads, chunks of the longest run, runs. `factors` takes exp(G_t) and
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
    const int first = blockIdx.y * CHUNK;
    if (first >= run.rows) return;
    const int thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
    const int head = blockIdx.x;
    const int key_head = tiled ? head % key_heads : head / (value_heads / key_heads);
    const int64_t tile = run.tile + blockIdx.y;
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
        load_matrices(k, k_at + tile_place(row, step * 2 + lane / 16));
        load_matrices(q, q_at + tile_place(row, step * 2 + lane / 16));
#pragma unroll
        for (int pair = 0; pair < 4; pair++) {
            if (pair > warp) continue;
            uint32_t b[4];
            const int column = pair * 16 + lane / 16 * 8 + lane % 8;
            load_matrices(b, k_at + tile_place(column, step * 2 + lane / 8 % 2));
            multiply(kk[pair * 2], k, b[0], b[1]);
            multiply(kk[pair * 2 + 1], k, b[2], b[3]);
            multiply(qk[pair * 2], q, b[0], b[1]);
            multiply(qk[pair * 2 + 1], q, b[2], b[3]);
        }
    }
    __syncthreads();

#pragma unroll
    for (int at = 0; at < 8; at++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = warp * 16 + half * 8 + lane / 4, column = at * 8 + lane % 4 * 2;
            const int to = place(row, at) + lane % 4 * 4;
            if (at / 2 > warp) {
                *(uint32_t*)(shared + P_AT + to) = 0;
                *(uint32_t*)(shared + T_AT + to) = 0;
                continue;
            }
            float l[2], p[2];
#pragma unroll
            for (int one = 0; one < 2; one++) {
                // Masked before the exponential: above the diagonal it could be infinite.
                const int other = column + one;
                const float decayed = other > row ? 0.0f : exp2f(sums[row] - sums[other]);
                p[one] = qk[at][half * 2 + one] * decayed;
                l[one] = other < row ? beta[row] * kk[at][half * 2 + one] * decayed : 0.0f;
            }
            *(uint32_t*)(shared + P_AT + to) = halves(p[0], p[1]);
            if (at / 2 == warp) {
                float* diagonal = (float*)(shared + DIAGONAL_AT) + row * STRIDE;
                *(float2*)(diagonal + column % BLOCK) = make_float2(l[0], l[1]);
            } else {
                *(uint32_t*)(shared + L_AT + to) = halves(l[0], l[1]);
            }
        }
    }
    __syncthreads();
    if (thread < CHUNK) {
        invert_diagonal(shared, beta);
    } else {
        const int at = thread - CHUNK;
        float* to = factors + square * 2 * CHUNK;
        to[at] = exp2f(sums[at]);
        to[CHUNK + at] = exp2f(sums[CHUNK - 1] - sums[at]);
        uint4* wide = (uint4*)(scores + square * SQUARE);
#pragma unroll
        for (int piece = at; piece < SQUARE / 8; piece += CHUNK) {
            wide[piece] = ((const uint4*)(shared + P_AT))[piece];
        }
    }
    __syncthreads();
    invert_below(shared, beta, warp);
    __syncthreads();
    uint4* wide = (uint4*)(inverses + square * SQUARE);
#pragma unroll
    for (int piece = thread; piece < SQUARE / 8; piece += THREADS) {
        wide[piece] = ((const uint4*)(shared + T_AT))[piece];
    }
}
