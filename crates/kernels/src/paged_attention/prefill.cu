// Causal attention of many rows per sequence: a CTA takes a tile of rows of one query head and
// walks the keys in tiles of 64 from the first, so that a row's sums are taken in the same order
// however a prompt is cut into chunks.
//
// A warp takes 16 · TILES rows. Values of a tile arrive while its scores are computed, the next
// tile's keys while its result is summed.
#include "tile.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = 32 * WARPS;

// The task's queries as halves; rows beyond its last are zero.
template <int DIM, int ROWS>
__device__ __forceinline__ void load_queries(uint4* queries, const Task& task,
                                             const Attention& a) {
#pragma unroll 8
    for (int at = threadIdx.x; at < ROWS * (DIM / 8); at += THREADS) {
        int row = at / (DIM / 8), piece = at % (DIM / 8);
        queries[place<DIM>(row, piece)] = load_piece(task, a, row, piece);
    }
}

// Starts to copy the keys or values of 64 tokens from `first`.
template <int DIM>
__device__ __forceinline__ void start_copy(uint4* to, const __half* cache, int first,
                                           const Task& task, const Attention& a) {
    const int* table = a.block_table + (long long)task.sequence * a.max_blocks;
    constexpr int PIECES = DIM / 8, STEP = THREADS / PIECES;
    int row = threadIdx.x / PIECES, piece = threadIdx.x % PIECES;
#pragma unroll
    for (int k = 0; k < KEYS / STEP; k++, row += STEP) {
        int token = first + row;
        bool valid = token < task.tokens;
        int block = valid ? table[token / BLOCK_TOKENS] : 0;
        const __half* from = cache + cache_offset(block, a.kv_heads, task.kv_head, token, DIM);
        copy_async(&to[place<DIM>(row, piece)], from + piece * 8, valid);
    }
    commit_copies();
}

// The running softmax of a lane's rows g and g + 8 of each tile, where g = lane / 4, and their
// result's elements 8n + 2 (lane % 4) and the next.
template <int DIM, int TILES>
struct Running {
    float highest[TILES][2];
    float sum[TILES][2];
    float out[TILES][DIM / 8][4];
};

template <int DIM, int TILES>
__device__ __forceinline__ void scores(float (&s)[TILES][KEYS / 8][4], const uint4* queries,
                                       const uint4* keys) {
    int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16 * TILES;
    int key = lane % 8 + lane / 16 * 8, half = lane / 8 % 2;
#pragma unroll
    for (int step = 0; step < DIM / 16; step++) {
        unsigned q[TILES][4];
#pragma unroll
        for (int m = 0; m < TILES; m++)
            load_tiles(q[m],
                       &queries[place<DIM>(first + 16 * m + lane % 16, 2 * step + lane / 16)]);
#pragma unroll
        for (int n = 0; n < KEYS / 16; n++) {
            unsigned k[4];
            load_tiles(k, &keys[place<DIM>(16 * n + key, 2 * step + half)]);
#pragma unroll
            for (int m = 0; m < TILES; m++) {
                mma(s[m][2 * n], q[m], k[0], k[1]);
                mma(s[m][2 * n + 1], q[m], k[2], k[3]);
            }
        }
    }
}

// Hides the keys that are later than their row: `last` is the last one that row g of the warp sees,
// counted from the tile's first key.
template <int TILES>
__device__ __forceinline__ void mask(float (&s)[TILES][KEYS / 8][4], int last) {
    int t = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < TILES; m++) {
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int key = 8 * n + 2 * t + i % 2;
                if (key > last + 16 * m + i / 2 * 8) s[m][n][i] = -INFINITY;
            }
        }
    }
}

// Takes a tile of scores into the softmax: s becomes their weights. Every row has seen a key after
// the first tile, so no highest score is infinite.
template <int DIM, int TILES>
__device__ __forceinline__ void weigh(Running<DIM, TILES>& run, float (&s)[TILES][KEYS / 8][4],
                                      float scale) {
#pragma unroll
    for (int m = 0; m < TILES; m++) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float highest = s[m][0][2 * r];
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
                highest = fmaxf(highest, fmaxf(s[m][n][2 * r], s[m][n][2 * r + 1]));
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 1));
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 2));
            highest = fmaxf(highest * scale, run.highest[m][r]);
            float keep = exp2_fast(run.highest[m][r] - highest);
            run.highest[m][r] = highest;
            float sum = run.sum[m][r] * keep;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int i = 2 * r; i < 2 * r + 2; i++) {
                    s[m][n][i] = exp2_fast(fmaf(s[m][n][i], scale, -highest));
                    sum += s[m][n][i];
                }
            }
            run.sum[m][r] = sum;
#pragma unroll
            for (int n = 0; n < DIM / 8; n++) {
                run.out[m][n][2 * r] *= keep;
                run.out[m][n][2 * r + 1] *= keep;
            }
        }
    }
}

template <int DIM, int TILES>
__device__ __forceinline__ void accumulate(Running<DIM, TILES>& run,
                                           const float (&s)[TILES][KEYS / 8][4],
                                           const uint4* values) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++) {
        unsigned p[TILES][4];
#pragma unroll
        for (int m = 0; m < TILES; m++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float* pair = &s[m][2 * step + i / 2][i % 2 * 2];
                p[m][i] = pack(pair[0], pair[1]);
            }
        }
#pragma unroll
        for (int n = 0; n < DIM / 16; n++) {
            unsigned v[4];
            load_tiles_transposed(v,
                                  &values[place<DIM>(16 * step + lane % 16, 2 * n + lane / 16)]);
#pragma unroll
            for (int m = 0; m < TILES; m++) {
                mma(run.out[m][2 * n], p[m], v[0], v[1]);
                mma(run.out[m][2 * n + 1], p[m], v[2], v[3]);
            }
        }
    }
}

// The warp's rows, normalised and gated.
template <int DIM, int TILES>
__device__ __forceinline__ void store(const Running<DIM, TILES>& run, const Task& task,
                                      const Attention& a) {
    int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16 * TILES + lane / 4;
#pragma unroll
    for (int m = 0; m < TILES; m++) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float sum = run.sum[m][r];
            sum += __shfl_xor_sync(~0u, sum, 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            float by = 1.0f / sum;
            int row = first + 16 * m + 8 * r;
            if (row >= task.rows) continue;
            long long at = task.first_row + row;
            float* out = a.out + (at * a.heads + task.head) * DIM;
            const float* gate = a.qkv + at * a.cols + task.head * a.query_stride + DIM;
#pragma unroll
            for (int n = 0; n < DIM / 8; n += GATES) {
                float2 open[GATES];
                if (a.gated) load_gates(open, gate + 8 * n);
#pragma unroll
                for (int k = 0; k < GATES; k++) {
                    const float* from = &run.out[m][n + k][2 * r];
                    float2 pair = make_float2(from[0] * by, from[1] * by);
                    store_pair(out + 8 * (n + k), pair, a.gated, open[k]);
                }
            }
        }
    }
}

template <int DIM, int TILES>
__device__ __forceinline__ void prefill(const Attention& a) {
    constexpr int ROWS = 16 * TILES * WARPS;
    extern __shared__ uint4 memory[];
    uint4* queries = memory;
    uint4* keys = queries + ROWS * (DIM / 8);
    uint4* values = keys + KEYS * (DIM / 8);
    let_successors_start();
    wait_for_predecessors();
    Task task;
    if (!find_task<ROWS>(task, a)) return;

    start_copy<DIM>(keys, a.keys, 0, task, a);
    load_queries<DIM, ROWS>(queries, task, a);
    Running<DIM, TILES> run = {};
#pragma unroll
    for (int m = 0; m < TILES; m++) run.highest[m][0] = run.highest[m][1] = -INFINITY;
    int warp_first = task.position + threadIdx.x / 32 * 16 * TILES;
    for (int first = 0; first < task.tokens; first += KEYS) {
        wait_for_copies<0>();
        __syncthreads();  // Keys are there; all warps are done with the last tile's values.
        start_copy<DIM>(values, a.values, first, task, a);
        float s[TILES][KEYS / 8][4] = {};
        // Where all keys are later than all rows of the warp it only keeps step with the others.
        bool sees = first < warp_first + 16 * TILES;
        if (sees) {
            scores<DIM>(s, queries, keys);
            if (first + KEYS > warp_first + 1)
                mask(s, warp_first + threadIdx.x % 32 / 4 - first);
            weigh(run, s, a.scale);
        }
        wait_for_copies<0>();
        __syncthreads();  // Values are there; all warps are done with the keys.
        if (first + KEYS < task.tokens) start_copy<DIM>(keys, a.keys, first + KEYS, task, a);
        if (sees) accumulate(run, s, values);
    }
    store(run, task, a);
}

#define PREFILL(DIM, TILES)                                                                     \
    KERNEL void __launch_bounds__(THREADS, 2) attention_prefill_##DIM(           \
        Attention a) {                                                                          \
        prefill<DIM, TILES>(a);                                                                 \
    }

PREFILL(64, 2)
PREFILL(128, 2)
PREFILL(256, 1)
