// Causal attention of many rows per sequence on Hopper: as prefill.cu, by products of warpgroups.
//
// A warpgroup takes 64 rows. While the tensor cores sum a tile's values, the next tile's scores
// become weights. Keys and values of a tile arrive while the tile before it is computed.
#include "tile.cuh"
#include "warpgroup.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Where piece `piece` of row `row` lies in a tile of `ROWS` rows.
template <int ROWS>
__device__ __forceinline__ int piece_at(int row, int piece) {
    return (piece / 8 * ROWS + row) * 8 + (piece ^ row) % 8;
}

template <int DIM, int GROUPS>
struct Shared {
    static constexpr int PIECES = DIM / 8;
    uint4 queries[64 * GROUPS * PIECES];
    uint4 keys[2][KEYS * PIECES];
    uint4 values[2][KEYS * PIECES];
};

// The task's queries as halves; rows beyond its last are zero.
template <int DIM, int GROUPS>
__device__ __forceinline__ void load_queries(uint4* queries, const Task& task,
                                             const Attention& a) {
    constexpr int ROWS = 64 * GROUPS, PIECES = DIM / 8;
    for (int at = threadIdx.x; at < ROWS * PIECES; at += 128 * GROUPS) {
        int row = at / PIECES, piece = at % PIECES;
        queries[piece_at<ROWS>(row, piece)] = load_piece(task, a, row, piece);
    }
}

// Starts to copy the keys or values of 64 tokens from `first`.
template <int DIM, int GROUPS>
__device__ __forceinline__ void start_copy(uint4* to, const __half* cache, int first,
                                           const Task& task, const Attention& a) {
    constexpr int PIECES = DIM / 8;
    const int* table = a.block_table + (long long)task.sequence * a.max_blocks;
#pragma unroll
    for (int at = threadIdx.x; at < KEYS * PIECES; at += 128 * GROUPS) {
        int row = at / PIECES, piece = at % PIECES, token = first + row;
        bool valid = token < task.tokens;
        int block = valid ? table[token / BLOCK_TOKENS] : 0;
        const __half* from = cache + cache_offset(block, a.kv_heads, task.kv_head, token, DIM);
        copy_async(&to[piece_at<KEYS>(row, piece)], from + piece * 8, valid);
    }
}

// Starts the products of the warpgroup's queries with a tile of keys.
template <int DIM, int GROUPS>
__device__ __forceinline__ void start_scores(float (&s)[KEYS / 2], const uint4* queries,
                                             const uint4* keys) {
    hold(s);
    before_products();
#pragma unroll
    for (int step = 0; step < DIM / 16; step++) {
        const uint4* q = queries + step / 4 * 64 * GROUPS * 8 + step % 4 * 2;
        dot_product(s, tile_at(q, 0), tile_at(keys + step / 4 * KEYS * 8 + step % 4 * 2, 0),
                    step > 0);
    }
    commit_products();
}

// Starts to add a tile of values by their weights.
template <int DIM>
__device__ __forceinline__ void start_sums(float (&out)[DIM / 2], const unsigned (&p)[KEYS / 16][4],
                                           const uint4* values) {
    hold(out);
    before_products();
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++)
        add_product(out, p[step], tile_at(values + step * 16 * 8, KEYS * 128));
    commit_products();
}

// Hides the keys that are later than their row: `row` is the position of the lane's first row, the
// other is 8 later; `first` that of the tile's first key.
__device__ __forceinline__ void mask(float (&s)[KEYS / 2], int row, int first) {
    if (first + KEYS <= row - threadIdx.x % 32 / 4 + 1) return;
    int last = row - first - 2 * (threadIdx.x % 4);
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) {
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
    __device__ __forceinline__ void weigh(float (&s)[KEYS / 2], float scale) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float most = -INFINITY;
#pragma unroll
            for (int i = 2 * r; i < KEYS / 2; i += 4) most = fmaxf(most, fmaxf(s[i], s[i + 1]));
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
            most = fmaxf(most * scale, highest[r]);
            keep[r] = exp2_fast(highest[r] - most);
            highest[r] = most;
            sum[r] *= keep[r];
#pragma unroll
            for (int i = 2 * r; i < KEYS / 2; i += 4) {
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
__device__ __forceinline__ void pack_weights(unsigned (&p)[KEYS / 16][4],
                                             const float (&s)[KEYS / 2]) {
#pragma unroll
    for (int i = 0; i < KEYS / 4; i++) p[i / 4][i % 4] = pack(s[2 * i], s[2 * i + 1]);
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
        for (int n = 0; n < DIM / 8; n++) {
            int column = 8 * n + 2 * (threadIdx.x % 4);
            float2 pair = make_float2(out[4 * n + 2 * r] * by, out[4 * n + 2 * r + 1] * by);
            if (a.gated) {
                float2 open = *reinterpret_cast<const float2*>(gate + column);
                pair.x *= sigmoid(open.x);
                pair.y *= sigmoid(open.y);
            }
            *reinterpret_cast<float2*>(to + column) = pair;
        }
    }
}

template <int DIM, int GROUPS>
__device__ __forceinline__ void prefill(const Attention& a) {
    constexpr int ROWS = 64 * GROUPS;
    extern __shared__ __align__(1024) uint4 memory[];
    Shared<DIM, GROUPS>& shared = *reinterpret_cast<Shared<DIM, GROUPS>*>(memory);
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
    const uint4* queries = shared.queries + 64 * group * 8;

    start_copy<DIM, GROUPS>(shared.keys[0], a.keys, 0, task, a);
    load_queries<DIM, GROUPS>(shared.queries, task, a);
    wait_for_copies<0>();
    publish_to_products();
    __syncthreads();
    start_copy<DIM, GROUPS>(shared.values[0], a.values, 0, task, a);
    if (tiles > 1) start_copy<DIM, GROUPS>(shared.keys[1], a.keys, KEYS, task, a);
    commit_copies();

    Softmax softmax;
    float out[DIM / 2] = {}, s[KEYS / 2] = {};
    unsigned p[KEYS / 16][4];
    start_scores<DIM, GROUPS>(s, queries, shared.keys[0]);
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
        if (ahead < tiles)
            start_copy<DIM, GROUPS>(shared.values[ahead % 2], a.values, ahead * KEYS, task, a);
        if (ahead + 1 < tiles)
            start_copy<DIM, GROUPS>(shared.keys[tile % 2], a.keys, ahead * KEYS + KEYS, task, a);
        commit_copies();
        // Where all later keys are later than all rows of the warpgroup it only keeps step.
        if (ahead < own_tiles) {
            start_scores<DIM, GROUPS>(s, queries, shared.keys[ahead % 2]);
            start_sums<DIM>(out, p, shared.values[tile % 2]);
            wait_for_products<1>();
            hold(s);
            mask(s, row_first, ahead * KEYS);
            softmax.weigh(s, a.scale);
            wait_for_products<0>();
            hold(out);
            pack_weights(p, s);
            softmax.rescale(out);
        } else if (tile < own_tiles) {
            start_sums<DIM>(out, p, shared.values[tile % 2]);
            wait_for_products<0>();
            hold(out);
        }
    }
    int row = row_first - task.position;
    softmax.finish();
    store<DIM>(out, softmax, task, a, row);
}

#endif

#define PREFILL(DIM, GROUPS)                                                               \
    KERNEL void __launch_bounds__(128 * GROUPS, 1)                                         \
        attention_prefill_hopper_##DIM(Attention a) {                                      \
        RUN(DIM, GROUPS)                                                                   \
    }

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define RUN(DIM, GROUPS) prefill<DIM, GROUPS>(a);
#else
#define RUN(DIM, GROUPS)
#endif

PREFILL(128, 3)
PREFILL(256, 2)
