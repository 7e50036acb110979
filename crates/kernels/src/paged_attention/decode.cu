// Attention of a few rows per sequence over a long cache: the keys are split between CTAs.
//
// A CTA takes a run of tokens of one key-value head for up to eight queries: the query heads that
// share the head, of as many rows as fit. Its warps take blocks of 16 tokens in turn, from the last
// to the first. Scores are K · Qᵀ (tokens by queries) and the result is Vᵀ · Pᵀ (elements by
// queries), so that eight queries fill an instruction of the tensor cores.
//
// The kernel norms and rotates queries and keys itself and puts the new tokens' keys and values
// into the cache: a launch per layer less, and while it waits for the projection, the blocks that
// earlier steps wrote are on their way already. New tokens go to shared memory directly.
//
// The CTAs of a cluster send their results to one another, each its share of the elements, and add
// up what they got. Where a sequence takes several clusters, the one that arrives last adds the
// clusters' results up. All sums are taken in a fixed order.
#include "combine.cuh"
#include "prologue.cuh"

// Starts to copy a block of keys: those of earlier steps. What else its rows hold is not looked at.
template <int DIM>
__device__ __forceinline__ void copy_keys(uint4* to, const __half* from, int old_tokens) {
#pragma unroll
    for (int k = 0; k < BLOCK_TOKENS * DIM / 256; k++) {
        int at = 32 * k + threadIdx.x % 32, row = at / (DIM / 8), piece = at % (DIM / 8);
        if (row < old_tokens) copy_async(&to[place<DIM>(row, piece)], from + at * 8, true);
    }
}

// Starts to copy a block of values: those of earlier steps. What is beyond the last token must be
// zero, for a weight of zero does not make up for NaN.
template <int DIM>
__device__ __forceinline__ void copy_values(uint4* to, const __half* from, int old_tokens,
                                            int tokens) {
#pragma unroll
    for (int k = 0; k < BLOCK_TOKENS * DIM / 256; k++) {
        int at = 32 * k + threadIdx.x % 32, row = at / (DIM / 8), piece = at % (DIM / 8);
        if (row < old_tokens || row >= tokens)
            copy_async(&to[place<DIM>(row, piece)], from + at * 8, row < old_tokens);
    }
}

// A lane's running softmax of its queries 2t and 2t + 1, where t = lane % 4, and their result's
// elements 16m + lane / 4 (and 8 more) at out[m].
template <int DIM>
struct Running {
    float highest[2];
    float sum[2];
    float out[DIM / 16][4];
};

// Scores of tokens lane / 4 (and 8 more) with queries 2t and 2t + 1.
template <int DIM>
__device__ __forceinline__ void scores(float (&s)[4], const uint4* keys, const uint4* queries) {
    int lane = threadIdx.x % 32, row = lane % 16, half = lane / 16;
    float even[4] = {}, odd[4] = {};
#pragma unroll
    for (int j = 0; j < DIM / 32; j++) {
        unsigned k[4], q[4];
        load_tiles(q, &queries[place<DIM>(lane % 8, 4 * j + lane / 8)]);
        load_tiles(k, &keys[place<DIM>(row, 4 * j + half)]);
        mma(even, k, q[0], q[1]);
        load_tiles(k, &keys[place<DIM>(row, 4 * j + 2 + half)]);
        mma(odd, k, q[2], q[3]);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) s[i] = even[i] + odd[i];
}

// Takes scores of tokens `token` and `token + 8` into the softmax: s becomes their weights.
template <int DIM>
__device__ __forceinline__ void weigh(Running<DIM>& run, float (&s)[4], int token,
                                      const int (&ends)[2], float scale) {
    float highest[2];
#pragma unroll
    for (int q = 0; q < 2; q++) {
        s[q] = token < ends[q] ? s[q] * scale : -INFINITY;
        s[q + 2] = token + 8 < ends[q] ? s[q + 2] * scale : -INFINITY;
        highest[q] = fmaxf(s[q], s[q + 2]);
#pragma unroll
        for (int lane = 4; lane < 32; lane *= 2)
            highest[q] = fmaxf(highest[q], __shfl_xor_sync(~0u, highest[q], lane));
        highest[q] = fmaxf(highest[q], run.highest[q]);
    }
    bool grows = highest[0] > run.highest[0] || highest[1] > run.highest[1];
    if (__any_sync(~0u, grows)) {
#pragma unroll
        for (int q = 0; q < 2; q++) {
            bool same = highest[q] == run.highest[q];
            float keep = same ? 1.0f : exp2_fast(run.highest[q] - highest[q]);
            run.highest[q] = highest[q];
            run.sum[q] *= keep;
#pragma unroll
            for (int m = 0; m < DIM / 16; m++) {
                run.out[m][q] *= keep;
                run.out[m][q + 2] *= keep;
            }
        }
    }
#pragma unroll
    for (int q = 0; q < 2; q++) {
        // A query that has seen no key yet has no highest score to subtract.
        float base = highest[q] == -INFINITY ? 0.0f : highest[q];
        s[q] = exp2_fast(s[q] - base);
        s[q + 2] = exp2_fast(s[q + 2] - base);
        run.sum[q] += s[q] + s[q + 2];
    }
}

template <int DIM>
__device__ __forceinline__ void accumulate(Running<DIM>& run, const uint4* values,
                                           const float (&s)[4]) {
    int lane = threadIdx.x % 32, row = lane % 8 + lane / 16 * 8, half = lane / 8 % 2;
    unsigned b0 = transposed(pack(s[0], s[1])), b1 = transposed(pack(s[2], s[3]));
#pragma unroll
    for (int m = 0; m < DIM / 16; m++) {
        unsigned v[4];
        load_tiles_transposed(v, &values[place<DIM>(row, 2 * m + half)]);
        mma(run.out[m], v, b0, b1);
    }
}

// Where the warp's blocks lie, from the `turn`-th on, one a lane: blocks are taken from the last.
template <int WARPS>
__device__ __forceinline__ int block_ids(const Task& task, const Attention& a, int turn) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int block = (task.end - 1) / BLOCK_TOKENS - warp - WARPS * (turn + lane);
    if (block * BLOCK_TOKENS < task.first) return 0;
    return a.block_table[(long long)task.sequence * a.max_blocks + block];
}

// All blocks of the warp. Copies of the first are under way, keys and values each in a group.
template <int DIM, int WARPS>
__device__ __forceinline__ void attend(Running<DIM>& run, Shared<DIM, WARPS>& shared, int ids,
                                       const Task& task, const Attention& a) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = a.heads / a.kv_heads;
    uint4 *keys = shared.keys[warp], *values = shared.values[warp];
    int ends[2];
#pragma unroll
    for (int q = 0; q < 2; q++) {
        int query = 2 * (lane % 4) + q;
        int row = (task.first_query + query) / group;
        ends[q] = query < task.queries ? task.start + row + 1 : 0;
    }
    int first = ((task.end - 1) / BLOCK_TOKENS - warp) * BLOCK_TOKENS;
    for (int turn = 1; first >= task.first; turn++) {
        if (turn % 32 == 0) ids = block_ids<WARPS>(task, a, turn);
        int id = __shfl_sync(~0u, ids, turn % 32), next = first - WARPS * BLOCK_TOKENS;
        long long offset = cache_offset(id, a.kv_heads, task.kv_head, 0, DIM);
        wait_for_copies<1>();
        __syncwarp();
        float s[4];
        scores<DIM>(s, keys, shared.queries);
        __syncwarp();
        if (next >= task.first) copy_keys<DIM>(keys, a.keys + offset, BLOCK_TOKENS);
        commit_copies();
        weigh(run, s, first + lane / 4, ends, a.scale);
        wait_for_copies<1>();
        __syncwarp();
        accumulate(run, values, s);
        __syncwarp();
        if (next >= task.first)
            copy_values<DIM>(values, a.values + offset, BLOCK_TOKENS, BLOCK_TOKENS);
        commit_copies();
        first = next;
    }
}

// The warp's result into shared memory, where its keys were.
template <int DIM, int WARPS>
__device__ __forceinline__ void share(Shared<DIM, WARPS>& shared, Running<DIM>& run) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    float* out = reinterpret_cast<float*>(shared.keys[warp]);
    wait_for_copies<0>();
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int q = 2 * t + i;
#pragma unroll
        for (int other = 4; other < 32; other *= 2)
            run.sum[i] += __shfl_xor_sync(~0u, run.sum[i], other);
        if (g == 0) shared.weight[warp][q] = make_float2(run.highest[i], run.sum[i]);
#pragma unroll
        for (int m = 0; m < DIM / 16; m++) {
            out[q * DIM + in_result(q, 16 * m + g)] = run.out[m][i];
            out[q * DIM + in_result(q, 16 * m + 8 + g)] = run.out[m][i + 2];
        }
    }
}

template <int DIM, int WARPS>
__device__ __forceinline__ void decode(const Attention& a, const Decode& d,
                                       const Rotation& rotation) {
    extern __shared__ uint4 memory[];
    Shared<DIM, WARPS>& shared = *reinterpret_cast<Shared<DIM, WARPS>*>(memory);
    int warp = threadIdx.x / 32;
    let_successors_start();
    Task task;
    if (!find_task<WARPS>(task, a, d)) {
        wait_for_predecessors();
        return;
    }
    if (cluster_size() > 1) cluster_arrive();
    int first = ((task.end - 1) / BLOCK_TOKENS - warp) * BLOCK_TOKENS;
    int ids = block_ids<WARPS>(task, a, 0);
    if (task.first < task.end && first >= task.first) {
        int id = __shfl_sync(~0u, ids, 0), old = task.start - first;
        long long offset = cache_offset(id, a.kv_heads, task.kv_head, 0, DIM);
        copy_keys<DIM>(shared.keys[warp], a.keys + offset, old);
        commit_copies();
        copy_values<DIM>(shared.values[warp], a.values + offset, old, task.end - first);
        commit_copies();
    }
    Running<DIM> run = {{-INFINITY, -INFINITY}};
    if (task.first < task.end) {
        Items items(task);
        Turn<DIM> turn;
        prepare_item(turn, warp, items, task, a, d, rotation);
        wait_for_predecessors();
        for (int item = warp; item < items.count(task); item += WARPS) {
            if (item != warp) prepare_item(turn, item, items, task, a, d, rotation);
            run_item(shared, turn, item, items, task, a, d, rotation.pairs);
        }
        __syncthreads();
        attend(run, shared, ids, task, a);
    } else {
        wait_for_predecessors();
    }
    share(shared, run);
    __syncthreads();
    combine(shared, task, a, d);
}

static_assert(sizeof(Shared<64, 8>) == 37584 && sizeof(Shared<128, 8>) == 74448
                  && sizeof(Shared<256, 8>) == 148176 && sizeof(Shared<256, 4>) == 82384,
              "the launch asks for as much");

#define DECODE(NAME, DIM, WARPS)                                                          \
    KERNEL void __launch_bounds__(32 * WARPS, 2) NAME(Attention a, Decode d, Rotation r) { \
        decode<DIM, WARPS>(a, d, r);                                                      \
    }

DECODE(attention_decode_64, 64, 8)
DECODE(attention_decode_128, 128, 8)
DECODE(attention_decode_256, 256, 8)
// For cards whose blocks have less shared memory.
DECODE(attention_decode_256_narrow, 256, 4)
