// Causal attention of many rows per sequence on Hopper: as prefill.cu, by products of warpgroups.
//
// A warpgroup takes 64 rows. While the tensor cores sum a tile's values, the next tile's scores
// become weights. Keys and values of a tile arrive while the tile before it is computed.
#include "tile.cuh"
#include "warpgroup.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Where piece `piece` of row `row` lies in a tile of `IN_TILE` rows.
template <int IN_TILE>
__device__ __forceinline__ int piece_at(int row, int piece) {
    return (piece / 8 * IN_TILE + row) * 8 + (piece ^ row) % 8;
}

constexpr int GROUPS = 2;
constexpr int ROWS = 64 * GROUPS;

// Tokens of a tile. More would be fewer barriers, but registers end first.
template <int DIM>
constexpr int TOKENS = DIM == 128 ? 128 : 64;

template <int DIM>
struct Shared {
    uint4 queries[ROWS * DIM / 8];
    uint4 keys[2][TOKENS<DIM> * DIM / 8];
    uint4 values[2][TOKENS<DIM> * DIM / 8];
};

// The task's queries as halves; rows beyond its last are zero.
template <int DIM>
__device__ __forceinline__ void load_queries(uint4* queries, const Task& task,
                                             const Attention& a) {
    constexpr int PIECES = DIM / 8;
#pragma unroll 8
    for (int at = threadIdx.x; at < ROWS * PIECES; at += 128 * GROUPS) {
        int row = at / PIECES, piece = at % PIECES;
        queries[piece_at<ROWS>(row, piece)] = load_piece(task, a, row, piece);
    }
}

// What a thread copies of each tile: a piece of every `STEP`-th row.
template <int DIM>
struct Copier {
    static constexpr int STEP = 128 * GROUPS / (DIM / 8);
    static_assert(STEP % 8 == 0 && BLOCK_TOKENS % STEP == 0, "rows keep their permutation");
    const int* table;
    long long first;   // Of the first row's piece in block 0 of the cache.
    long long stride;  // From a block of the cache to the next.
    int row, to, tokens;

    __device__ __forceinline__ Copier(const Task& task, const Attention& a) {
        int piece = threadIdx.x % (DIM / 8);
        row = threadIdx.x / (DIM / 8);
        to = piece_at<TOKENS<DIM>>(row, piece);
        tokens = task.tokens;
        table = a.block_table + (long long)task.sequence * a.max_blocks;
        first = cache_offset(0, a.kv_heads, task.kv_head, row, DIM) + piece * 8;
        stride = (long long)a.kv_heads * BLOCK_TOKENS * DIM;
    }

    // Starts to copy the keys or values of a tile of tokens.
    __device__ __forceinline__ void start(uint4* tile, const __half* cache, int token) const {
        int ids[TOKENS<DIM> / BLOCK_TOKENS];
#pragma unroll
        for (int b = 0; b < TOKENS<DIM> / BLOCK_TOKENS; b++) {
            int block = token / BLOCK_TOKENS + b;
            ids[b] = block * BLOCK_TOKENS < tokens ? __ldg(table + block) : 0;
        }
#pragma unroll
        for (int at = 0; at < TOKENS<DIM>; at += STEP) {
            const __half* from = cache + first + ids[at / BLOCK_TOKENS] * stride;
            copy_async(&tile[to + at * 8], from + at % BLOCK_TOKENS * DIM,
                       token + row + at < tokens);
        }
    }
};

// The warpgroup's queries: in registers where there is room, otherwise where they lie.
template <int DIM>
struct Queries;

template <>
struct Queries<128> {
    unsigned tiles[128 / 16][4];

    __device__ __forceinline__ explicit Queries(const uint4* queries) {
        int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane % 16;
#pragma unroll
        for (int step = 0; step < 128 / 16; step++)
            load_tiles(tiles[step], &queries[piece_at<ROWS>(row, 2 * step + lane / 16)]);
    }

    // d = the queries' columns of `step` · b, or added to d.
    __device__ __forceinline__ void times(float (&d)[64], uint64_t b, int step) const {
        dot_product(d, tiles[step], b, step > 0);
    }
};

template <>
struct Queries<256> {
    const uint4* first;

    __device__ __forceinline__ explicit Queries(const uint4* queries)
        : first(queries + threadIdx.x / 128 * 64 * 8) {}

    __device__ __forceinline__ void times(float (&d)[32], uint64_t b, int step) const {
        const uint4* a = first + step / 4 * ROWS * 8 + step % 4 * 2;
        dot_product(d, tile_at(a, 0), b, step > 0);
    }
};

// Starts the products of the warpgroup's queries with a tile of keys.
template <int DIM>
__device__ __forceinline__ void start_scores(float (&s)[TOKENS<DIM> / 2],
                                             const Queries<DIM>& queries, const uint4* keys) {
    hold(s);
    before_products();
#pragma unroll
    for (int step = 0; step < DIM / 16; step++) {
        const uint4* b = keys + step / 4 * TOKENS<DIM> * 8 + step % 4 * 2;
        queries.times(s, tile_at(b, 0), step);
    }
    commit_products();
}

// Starts to add a tile of values by their weights.
template <int DIM>
__device__ __forceinline__ void start_sums(float (&out)[DIM / 2],
                                           const unsigned (&p)[TOKENS<DIM> / 16][4],
                                           const uint4* values) {
    hold(out);
    before_products();
#pragma unroll
    for (int step = 0; step < TOKENS<DIM> / 16; step++)
        add_product(out, p[step], tile_at(values + step * 16 * 8, TOKENS<DIM> * 128));
    commit_products();
}

// Hides the keys that are later than their row: `row` is the position of the lane's first row, the
// other is 8 later; `first` that of the tile's first key.
template <int N>
__device__ __forceinline__ void mask(float (&s)[N], int row, int first) {
    if (first + 2 * N <= row - threadIdx.x % 32 / 4 + 1) return;
    int last = row - first - 2 * (threadIdx.x % 4);
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (i / 4 * 8 + i % 2 > last + i / 2 % 2 * 8) s[i] = -INFINITY;
    }
}

// The running softmax of a lane's two rows. Every row has seen a key after the first tile, so no
// highest score is infinite.
struct Softmax {
    float highest[2] = {-INFINITY, -INFINITY};
    float sum[2] = {};
    float keep[2];

    // Takes a tile of scores in: s becomes their weights.
    template <int N>
    __device__ __forceinline__ void weigh(float (&s)[N], float scale) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float most = -INFINITY;
#pragma unroll
            for (int i = 2 * r; i < N; i += 4) most = fmaxf(most, fmaxf(s[i], s[i + 1]));
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
            most = fmaxf(most * scale, highest[r]);
            keep[r] = exp2_fast(highest[r] - most);
            highest[r] = most;
            sum[r] *= keep[r];
#pragma unroll
            for (int i = 2 * r; i < N; i += 4) {
#pragma unroll
                for (int k = i; k < i + 2; k++) {
                    s[k] = exp2_fast(fmaf(s[k], scale, -most));
                    sum[r] += s[k];
                }
            }
        }
    }

    // Scales what was summed before the last tile.
    template <int N>
    __device__ __forceinline__ void rescale(float (&out)[N]) const {
#pragma unroll
        for (int i = 0; i < N; i++) out[i] *= keep[i / 2 % 2];
    }

    // Adds the lanes' sums up.
    __device__ __forceinline__ void finish() {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
            sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
        }
    }
};

// Weights as the first operand of products.
template <int N>
__device__ __forceinline__ void pack_weights(unsigned (&p)[N / 8][4], const float (&s)[N]) {
#pragma unroll
    for (int i = 0; i < N / 2; i++) p[i / 4][i % 4] = pack(s[2 * i], s[2 * i + 1]);
}

// A lane's rows `row` and `row + 8` of the task, normalised and gated.
template <int DIM>
__device__ __forceinline__ void store(const float (&out)[DIM / 2], const Softmax& softmax,
                                      const Task& task, const Attention& a, int row) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        if (row + 8 * r >= task.rows) continue;
        long long at = task.first_row + row + 8 * r;
        float* to = a.out + (at * a.heads + task.head) * DIM;
        const float* gate = a.qkv + at * a.cols + task.head * a.query_stride + DIM;
        float by = 1.0f / softmax.sum[r];
#pragma unroll
        for (int n = 0; n < DIM / 8; n += GATES) {
            float2 open[GATES];
            if (a.gated) load_gates(open, gate + 8 * n);
#pragma unroll
            for (int k = 0; k < GATES; k++) {
                const float* from = &out[4 * (n + k) + 2 * r];
                float2 pair = make_float2(from[0] * by, from[1] * by);
                store_pair(to + 8 * (n + k), pair, a.gated, open[k]);
            }
        }
    }
}

template <int DIM>
__device__ __forceinline__ void prefill(const Attention& a) {
    constexpr int KEYS = TOKENS<DIM>;
    extern __shared__ __align__(1024) uint4 memory[];
    Shared<DIM>& shared = *reinterpret_cast<Shared<DIM>*>(memory);
    let_successors_start();
    wait_for_predecessors();
    Task task;
    if (!find_task<ROWS>(task, a)) return;

    int group = threadIdx.x / 128, lane = threadIdx.x % 32;
    // The first row of the warpgroup, and of the lane, by their positions.
    int group_first = task.position + 64 * group;
    int row_first = group_first + threadIdx.x % 128 / 32 * 16 + lane / 4;
    int tiles = (task.tokens + KEYS - 1) / KEYS;
    int own_tiles = min(tiles, (group_first + 64 + KEYS - 1) / KEYS);

    Copier<DIM> copier(task, a);
    copier.start(shared.keys[0], a.keys, 0);
    load_queries<DIM>(shared.queries, task, a);
    wait_for_copies<0>();
    publish_to_products();
    __syncthreads();
    copier.start(shared.values[0], a.values, 0);
    if (tiles > 1) copier.start(shared.keys[1], a.keys, KEYS);
    commit_copies();

    Softmax softmax;
    Queries<DIM> queries(shared.queries);
    float out[DIM / 2] = {}, s[KEYS / 2] = {};
    unsigned p[KEYS / 16][4];
    start_scores<DIM>(s, queries, shared.keys[0]);
    wait_for_products<0>();
    hold(s);
    mask(s, row_first, 0);
    softmax.weigh(s, a.scale);
    pack_weights(p, s);
    for (int tile = 0; tile < tiles; tile++) {
        wait_for_copies<0>();
        publish_to_products();
        __syncthreads();  // The tile's values and the next keys are there, all products done.
        int ahead = tile + 1;
        auto copy_ahead = [&] {
            if (ahead < tiles) copier.start(shared.values[ahead % 2], a.values, ahead * KEYS);
            if (ahead + 1 < tiles)
                copier.start(shared.keys[tile % 2], a.keys, ahead * KEYS + KEYS);
            commit_copies();
        };
        // Where all later keys are later than all rows of the warpgroup it only keeps step.
        if (ahead < own_tiles) {
            start_scores<DIM>(s, queries, shared.keys[ahead % 2]);
            start_sums<DIM>(out, p, shared.values[tile % 2]);
            copy_ahead();
            wait_for_products<1>();
            hold(s);
            mask(s, row_first, ahead * KEYS);
            softmax.weigh(s, a.scale);
            not_before(softmax.sum[0] + softmax.sum[1], shared_address(memory));
            wait_for_products<0>();
            hold(out);
            pack_weights(p, s);
            softmax.rescale(out);
        } else if (tile < own_tiles) {
            start_sums<DIM>(out, p, shared.values[tile % 2]);
            copy_ahead();
            wait_for_products<0>();
            hold(out);
        } else {
            copy_ahead();
        }
    }
    int row = row_first - task.position;
    softmax.finish();
    store<DIM>(out, softmax, task, a, row);
}

#endif

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define RUN(DIM) prefill<DIM>(a);
#else
#define RUN(DIM)
#endif

#define PREFILL(DIM)                                                                            \
    KERNEL void __launch_bounds__(256, 1) attention_prefill_hopper_##DIM(Attention a) { RUN(DIM) }

PREFILL(128)
PREFILL(256)
