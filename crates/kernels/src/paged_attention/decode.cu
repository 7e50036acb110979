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
// Each warp has two or three buffers, which take its blocks' keys and values in turn. Three belong
// to the kernels for one sequence alone: what they hold is there when the projection is.
//
// CTAs that share a sequence's keys leave their results in memory for one another, and each adds up
// what the others left of its share of the elements. All sums are taken in a fixed order.
#include "combine.cuh"
#include "prologue.cuh"

// Starts to copy a block of keys, or of values: those of earlier steps. What is beyond the last
// token must be zero among values, for a weight of zero does not make up for NaN; what else the
// rows of keys hold is not looked at.
template <int DIM, bool VALUES>
__device__ __forceinline__ void copy_first(uint4* to, const __half* from, int old_tokens,
                                           int tokens) {
#pragma unroll
    for (int k = 0; k < BLOCK_TOKENS * DIM / 256; k++) {
        int at = 32 * k + threadIdx.x % 32, row = at / (DIM / 8), piece = at % (DIM / 8);
        bool old = row < old_tokens, beyond = VALUES && row >= tokens;
        if (old || beyond) copy_async(&to[place<DIM>(row, piece)], from + at * 8, old);
    }
}

// The same of a block that earlier steps wrote. Those of a long sequence are more than the
// second-level cache holds, and would drive out what every layer needs.
template <int DIM>
__device__ __forceinline__ void copy_whole(uint4* to, const __half* from, uint64_t policy) {
#pragma unroll
    for (int k = 0; k < BLOCK_TOKENS * DIM / 256; k++) {
        int at = 32 * k + threadIdx.x % 32, row = at / (DIM / 8), piece = at % (DIM / 8);
        copy_once(&to[place<DIM>(row, piece)], from + at * 8, policy);
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

// What a warp asks for: its blocks' keys and values in turn, each a group of copies. Only the first
// block may have new tokens, and end before its last row.
template <int DIM, int WARPS>
struct Asker {
    const Task& task;
    const Attention& a;
    int first;         // Token of the block whose keys or values come next.
    int turn = 0;
    int ids;
    long long offset;  // Of the block in the cache.
    uint64_t policy = evict_first();

    __device__ __forceinline__ Asker(const Task& task, const Attention& a) : task(task), a(a) {
        int warp = threadIdx.x / 32;
        first = ((task.end - 1) / BLOCK_TOKENS - warp) * BLOCK_TOKENS;
    }

    template <bool FIRST>
    __device__ __forceinline__ void keys(uint4* to) {
        if (turn % 32 == 0) ids = block_ids<WARPS>(task, a, turn);
        int id = __shfl_sync(~0u, ids, turn % 32);
        offset = cache_offset(id, a.kv_heads, task.kv_head, 0, DIM);
        copy<FIRST, false>(to, a.keys + offset);
    }

    template <bool FIRST>
    __device__ __forceinline__ void values(uint4* to) {
        copy<FIRST, true>(to, a.values + offset);
        turn++;
        first -= WARPS * BLOCK_TOKENS;
    }

    template <bool FIRST, bool VALUES>
    __device__ __forceinline__ void copy(uint4* to, const __half* from) const {
        if (first >= task.first) {
            if (FIRST) {
                copy_first<DIM, VALUES>(to, from, task.start - first, task.end - first);
            } else {
                copy_whole<DIM>(to, from, policy);
            }
        }
        commit_copies();
    }
};

// All blocks of the warp. Copies are under way into all of its buffers.
template <int DIM, int WARPS, int BUFFERS>
__device__ __forceinline__ void attend(Running<DIM>& run, Shared<DIM, WARPS, BUFFERS>& shared,
                                       Asker<DIM, WARPS>& asker, const Task& task,
                                       const Attention& a) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = a.heads / a.kv_heads;
    int ends[2];
#pragma unroll
    for (int q = 0; q < 2; q++) {
        int query = 2 * (lane % 4) + q;
        int row = (task.first_query + query) / group;
        ends[q] = query < task.queries ? task.start + row + 1 : 0;
    }
    int first = ((task.end - 1) / BLOCK_TOKENS - warp) * BLOCK_TOKENS, buffer = 0;
    for (; first >= task.first; first -= WARPS * BLOCK_TOKENS) {
        wait_for_copies<BUFFERS - 1>();
        __syncwarp();
        float s[4];
        uint4* keys = shared.buffers[warp][buffer];
        scores<DIM>(s, keys, shared.queries);
        __syncwarp();
        BUFFERS == 2 ? asker.template keys<false>(keys) : asker.template values<false>(keys);
        if (++buffer == BUFFERS) buffer = 0;
        weigh(run, s, first + lane / 4, ends, a.scale);
        wait_for_copies<BUFFERS - 1>();
        __syncwarp();
        uint4* values = shared.buffers[warp][buffer];
        accumulate(run, values, s);
        __syncwarp();
        BUFFERS == 2 ? asker.template values<false>(values) : asker.template keys<false>(values);
        if (++buffer == BUFFERS) buffer = 0;
    }
}

// The warp's result into shared memory, where its first keys were.
template <int DIM, int WARPS, int BUFFERS>
__device__ __forceinline__ void share(Shared<DIM, WARPS, BUFFERS>& shared, Running<DIM>& run) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    float* out = shared.result(warp);
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

template <int DIM, int WARPS, int BUFFERS>
__device__ __forceinline__ void decode(const Attention& a, const Decode& d,
                                       const Rotation& rotation) {
    extern __shared__ uint4 memory[];
    using Memory = Shared<DIM, WARPS, BUFFERS>;
    Memory& shared = *reinterpret_cast<Memory*>(memory);
    int warp = threadIdx.x / 32;
    let_successors_start();
    Task task;
    if (!find_task<WARPS>(task, a, d)) {
        wait_for_predecessors();
        return;
    }
    Asker<DIM, WARPS> asker(task, a);
    asker.template keys<true>(shared.buffers[warp][0]);
    asker.template values<true>(shared.buffers[warp][1]);
    if (BUFFERS == 3) asker.template keys<false>(shared.buffers[warp][2]);
    Running<DIM> run = {{-INFINITY, -INFINITY}};
    Items items(task);
    Turn<DIM> turn;
    prepare_item(turn, warp, items, task, a, d, rotation);
    wait_for_predecessors();
    for (int item = warp; item < items.count(task); item += WARPS) {
        if (item != warp) prepare_item(turn, item, items, task, a, d, rotation);
        run_item(shared, turn, item, items, task, a, d, rotation.pairs);
    }
    __syncthreads();
    attend(run, shared, asker, task, a);
    share(shared, run);
    __syncthreads();
    combine(shared, task, a, d);
}

static_assert(sizeof(Shared<64, 8, 2>) == 34304 && sizeof(Shared<128, 8, 2>) == 68096
                  && sizeof(Shared<256, 8, 2>) == 135680 && sizeof(Shared<256, 4, 2>) == 69888
                  && sizeof(Shared<64, 8, 3>) == 50688 && sizeof(Shared<128, 8, 3>) == 100864
                  && sizeof(Shared<256, 4, 3>) == 102656,
              "the launch asks for as much");

#define DECODE(NAME, DIM, WARPS, BUFFERS)                                                 \
    KERNEL void __launch_bounds__(32 * WARPS, 2) NAME(Attention a, Decode d, Rotation r) { \
        decode<DIM, WARPS, BUFFERS>(a, d, r);                                             \
    }

DECODE(attention_decode_64, 64, 8, 2)
DECODE(attention_decode_128, 128, 8, 2)
DECODE(attention_decode_256, 256, 8, 2)
// For cards whose blocks have less shared memory.
DECODE(attention_decode_256_narrow, 256, 4, 2)
// For one sequence alone: a block beside one of a linear layer.
DECODE(attention_alone_64, 64, 8, 3)
DECODE(attention_alone_128, 128, 8, 3)
DECODE(attention_alone_256, 256, 4, 3)
