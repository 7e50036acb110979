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
#include "attention.cuh"
#include "cluster.cuh"

constexpr int QUERIES = 8;
constexpr int MAX_RANKS = 8;

struct Decode {
    const float* q_norm;  // [head_dim]
    const float* k_norm;
    float4* partial;  // [places, clusters, QUERIES * head_dim / 4], not normalised
    float2* weight;   // The same: highest score, sum.
    int* arrived;     // [places, ranks], zero between launches
    float eps;
    int first_sequence;  // A place is one of [gridDim.z / tiles, kv_heads, tiles].
    int tiles;           // Tiles of QUERIES queries in the largest sequence.
    int fair_splits;     // Parts of a sequence that fill the card; a multiple of the ranks.
    int most_splits;     // The most that a long one is split into, as well.
    int long_turns;      // A part has more turns only if there were too many parts.
};

static_assert(sizeof(Decode) == 64, "cuda.rs has the same");

// What a CTA works on.
struct Task {
    int sequence;
    int kv_head;
    int first_query;  // Of the sequence's rows · group.
    int queries;      // At most QUERIES.
    int first_row;    // Of the step.
    int start;        // Tokens before the sequence's first row.
    int first, end;   // The CTA's tokens; none where first >= end.
    int clusters;     // That share these queries.
    int place;
};

// False where this CTA's cluster has nothing to do.
template <int WARPS>
__device__ __forceinline__ bool find_task(Task& task, const Attention& a, const Decode& d) {
    int tile = blockIdx.z % d.tiles;
    task.sequence = d.first_sequence + blockIdx.z / d.tiles;
    task.kv_head = blockIdx.y;
    task.place = (blockIdx.z / d.tiles * a.kv_heads + task.kv_head) * d.tiles + tile;
    int rows = a.rows[task.sequence];
    task.start = a.start[task.sequence];
    task.first_row = a.first_row[task.sequence];
    task.first_query = tile * QUERIES;
    task.queries = min(rows * (a.heads / a.kv_heads) - task.first_query, QUERIES);
    constexpr int TURN = WARPS * BLOCK_TOKENS;
    int tokens = task.start + rows, turns = (tokens + TURN - 1) / TURN;
    int split = min((turns + d.fair_splits - 1) / d.fair_splits, d.long_turns);
    split = max(split, (turns + d.most_splits - 1) / d.most_splits);
    int ranks = cluster_size(), parts = (turns + split - 1) / split;
    task.clusters = (parts + ranks - 1) / ranks;
    task.first = blockIdx.x * split * TURN;
    task.end = min(task.first + split * TURN, tokens);
    bool mine = rows >= a.min_rows && rows <= a.max_rows && task.queries > 0;
    return mine && blockIdx.x / ranks < task.clusters;
}

// An item is four elements of one query's result.
template <int DIM>
constexpr int ITEMS = QUERIES * DIM / 4;

// A warp's result takes the place of its keys.
template <int DIM, int WARPS>
struct Shared {
    uint4 keys[WARPS][BLOCK_TOKENS * DIM / 8];
    uint4 values[WARPS][BLOCK_TOKENS * DIM / 8];
    uint4 queries[QUERIES * DIM / 8];
    float2 weight[WARPS][QUERIES];
    // What the cluster's CTAs sent of this CTA's items.
    float4 sent[ITEMS<DIM> + MAX_RANKS];
    float2 sent_weight[ITEMS<DIM> + MAX_RANKS];
    int last;
};

// Element `at` of a row of halves in shared memory.
template <int DIM>
__device__ __forceinline__ __half* element(uint4* rows, int row, int at) {
    return reinterpret_cast<__half*>(&rows[place<DIM>(row, at / 8)]) + at % 8;
}

// What norm and rotation of a head need besides the head: a lane's elements lane + 32k.
template <int DIM>
struct Turn {
    float own[DIM / 32], other[DIM / 32];  // Weights, sine and sign in `other`'s.
    float cosine[DIM / 32];
};

template <int DIM>
__device__ __forceinline__ void prepare_turn(Turn<DIM>& turn, const float* weight,
                                             const Rotation& rotation, int position) {
#pragma unroll
    for (int k = 0; k < DIM / 32; k++) {
        int at = threadIdx.x % 32 + 32 * k, pairs = rotation.pairs;
        turn.own[k] = weight[at];
        turn.other[k] = 0.0f;
        if (at < 2 * pairs) {
            bool low = at < pairs;
            float2 by = angle(rotation, position, low ? at : at - pairs);
            turn.other[k] = weight[low ? at + pairs : at - pairs] * (low ? -by.y : by.y);
            turn.own[k] *= by.x;
        }
    }
}

// Norms and rotates a head: element lane + 32k is result[k].
template <int DIM>
__device__ __forceinline__ void apply_turn(float (&result)[DIM / 32], const Turn<DIM>& turn,
                                           const float* head, int pairs, float eps) {
    float other[DIM / 32], sum = 0.0f;
#pragma unroll
    for (int k = 0; k < DIM / 32; k++) {
        int at = threadIdx.x % 32 + 32 * k;
        int partner = at >= 2 * pairs ? at : at < pairs ? at + pairs : at - pairs;
        result[k] = head[at];
        other[k] = head[partner];
    }
#pragma unroll
    for (int k = 0; k < DIM / 32; k++) sum += result[k] * result[k];
    float inverse = rsqrtf(warp_sum(sum) / DIM + eps);
#pragma unroll
    for (int k = 0; k < DIM / 32; k++)
        result[k] = (result[k] * turn.own[k] + other[k] * turn.other[k]) * inverse;
}

// Items of the prologue, one a warp: the task's queries, then the new tokens' keys among the task's
// own, then their values. Tiles of one sequence may write the same values to the same place.
struct Items {
    int first_new;  // Token.
    int new_tokens;
    __device__ __forceinline__ Items(const Task& task) {
        first_new = max(task.first, task.start);
        new_tokens = max(task.end - first_new, 0);
    }
    __device__ __forceinline__ int count(const Task& task) const {
        return task.queries + 2 * new_tokens;
    }
};

template <int DIM>
__device__ __forceinline__ void prepare_item(Turn<DIM>& turn, int item, const Items& items,
                                             const Task& task, const Attention& a, const Decode& d,
                                             const Rotation& rotation) {
    bool is_query = item < task.queries;
    int position = is_query ? task.start + (task.first_query + item) / (a.heads / a.kv_heads)
                            : items.first_new + item - task.queries;
    if (item < task.queries + items.new_tokens)
        prepare_turn(turn, is_query ? d.q_norm : d.k_norm, rotation, position);
}

template <int DIM, int WARPS>
__device__ __forceinline__ void run_item(Shared<DIM, WARPS>& shared, const Turn<DIM>& turn,
                                         int item, const Items& items, const Task& task,
                                         const Attention& a, const Decode& d, int pairs) {
    int lane = threadIdx.x % 32, group = a.heads / a.kv_heads;
    float x[DIM / 32];
    if (item < task.queries) {
        int query = task.first_query + item;
        long long row = task.first_row + query / group;
        int head = task.kv_head * group + query % group;
        apply_turn(x, turn, a.qkv + row * a.cols + head * a.query_stride, pairs, d.eps);
#pragma unroll
        for (int k = 0; k < DIM / 32; k++)
            *element<DIM>(shared.queries, item, lane + 32 * k) = saturated(x[k]);
        return;
    }
    int at = item - task.queries;
    bool is_key = at < items.new_tokens;
    int token = items.first_new + (is_key ? at : at - items.new_tokens);
    const float* from = a.qkv + (long long)(task.first_row + token - task.start) * a.cols
                        + a.heads * a.query_stride + task.kv_head * DIM;
    if (is_key) {
        apply_turn(x, turn, from, pairs, d.eps);
    } else {
#pragma unroll
        for (int k = 0; k < DIM / 32; k++) x[k] = from[a.kv_heads * DIM + lane + 32 * k];
    }
    int id = a.block_table[(long long)task.sequence * a.max_blocks + token / BLOCK_TOKENS];
    __half* to = is_key ? a.keys : a.values;
    to += cache_offset(id, a.kv_heads, task.kv_head, token, DIM);
    // The warp whose first block it is: blocks are taken from the last.
    int warp = (task.end - 1) / BLOCK_TOKENS - token / BLOCK_TOKENS;
    uint4* here = is_key ? shared.keys[warp] : shared.values[warp];
#pragma unroll
    for (int k = 0; k < DIM / 32; k++) {
        __half half = saturated(x[k]);
        to[lane + 32 * k] = half;
        *element<DIM>(here, token % BLOCK_TOKENS, lane + 32 * k) = half;
    }
}

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

// Where element `at` of query `q` lies in a warp's result: so that no lanes meet in a bank.
__device__ __forceinline__ int in_result(int q, int at) { return at ^ (q / 2 * 8); }

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

// One item of a sum of results: highest score and sum, elements not normalised.
struct Sum {
    float2 weight;
    float4 value;
};

// The sum of some: in their order, to a common highest score. A part without keys for this query
// has none, and elements of zero.
template <int N>
__device__ __forceinline__ Sum total(const Sum (&parts)[N]) {
    float highest = -INFINITY;
#pragma unroll
    for (int i = 0; i < N; i++) highest = fmaxf(highest, parts[i].weight.x);
    float base = highest == -INFINITY ? 0.0f : highest;
    Sum sum = {{highest, 0.0f}, {}};
#pragma unroll
    for (int i = 0; i < N; i++) {
        float by = exp2_fast(parts[i].weight.x - base);
        sum.weight.y += parts[i].weight.y * by;
        sum.value.x += parts[i].value.x * by;
        sum.value.y += parts[i].value.y * by;
        sum.value.z += parts[i].value.z * by;
        sum.value.w += parts[i].value.w * by;
    }
    return sum;
}

// An item of the CTA's result.
template <int DIM, int WARPS>
__device__ __forceinline__ Sum sum_of_warps(const Shared<DIM, WARPS>& shared, int item) {
    int q = item / (DIM / 4), at = item % (DIM / 4) * 4;
    Sum parts[WARPS];
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        const float* out = reinterpret_cast<const float*>(shared.keys[w]);
        const float* from = &out[q * DIM + in_result(q, at)];
        parts[w] = {shared.weight[w][q], *reinterpret_cast<const float4*>(from)};
    }
    return total(parts);
}

// Item `at` of this CTA's `share` of them, as the cluster's CTAs sent it.
template <int DIM, int WARPS>
__device__ __forceinline__ Sum sum_of_ranks(const Shared<DIM, WARPS>& shared, int at, int share) {
    int ranks = cluster_size();
    Sum parts[MAX_RANKS];
#pragma unroll
    for (int rank = 0; rank < MAX_RANKS; rank++) {
        parts[rank] = {{-INFINITY, 0.0f}, {}};
        if (rank >= ranks) continue;
        parts[rank] = {shared.sent_weight[rank * share + at], shared.sent[rank * share + at]};
    }
    return total(parts);
}

// An item of the clusters' results.
template <int DIM>
__device__ __forceinline__ Sum sum_of_clusters(const Task& task, const Decode& d, int item) {
    constexpr int TOGETHER = 8;
    long long first = (long long)task.place * (d.most_splits / cluster_size());
    Sum all[2] = {{{-INFINITY, 0.0f}, {}}};
    for (int cluster = 0; cluster < task.clusters; cluster += TOGETHER) {
        Sum parts[TOGETHER];
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            parts[i] = {{-INFINITY, 0.0f}, {}};
            if (cluster + i >= task.clusters) continue;
            long long at = (first + cluster + i) * ITEMS<DIM> + item;
            parts[i] = {__ldcg(&d.weight[at]), __ldcg(&d.partial[at])};
        }
        all[1] = total(parts);
        all[0] = total(all);
    }
    return all[0];
}

// Where an item is in the step: its row, and its column within the query heads' results.
struct Place {
    long long row;
    int head;
    int at;
};

template <int DIM>
__device__ __forceinline__ Place place_of(const Task& task, const Attention& a, int item) {
    int group = a.heads / a.kv_heads, query = task.first_query + item / (DIM / 4);
    return {task.first_row + query / group, task.kv_head * group + query % group,
            item % (DIM / 4) * 4};
}

template <int DIM>
__device__ __forceinline__ float4 load_gate(const Task& task, const Attention& a, int item) {
    if (!a.gated) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    Place to = place_of<DIM>(task, a, item);
    const float* gate = a.qkv + to.row * a.cols + to.head * a.query_stride + DIM + to.at;
    return *reinterpret_cast<const float4*>(gate);
}

// The result, normalised and gated.
template <int DIM>
__device__ __forceinline__ void finish(const Sum& sum, float4 gate, const Task& task,
                                       const Attention& a, int item) {
    Place to = place_of<DIM>(task, a, item);
    float by = 1.0f / sum.weight.y;
    float4 value = make_float4(sum.value.x * by, sum.value.y * by, sum.value.z * by,
                               sum.value.w * by);
    if (a.gated) {
        value.x *= sigmoid(gate.x);
        value.y *= sigmoid(gate.y);
        value.z *= sigmoid(gate.z);
        value.w *= sigmoid(gate.w);
    }
    *reinterpret_cast<float4*>(a.out + (to.row * a.heads + to.head) * DIM + to.at) = value;
}

// True in all threads of the last CTA of this rank to get here, to which the others' results are
// visible.
__device__ __forceinline__ bool arrives_last(int* arrived, int others, int* last) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        *last = atomicAdd(arrived, 1) == others;
        if (*last) *arrived = 0;
        __threadfence();
    }
    __syncthreads();
    return *last;
}

// Adds the warps' results up, then the cluster's, then the clusters'. All warps have left theirs.
template <int DIM, int WARPS>
__device__ __forceinline__ void combine(Shared<DIM, WARPS>& shared, const Task& task, const Attention& a,
                                        const Decode& d) {
    int ranks = cluster_size(), rank = cluster_rank();
    int items = task.queries * (DIM / 4), share = (items + ranks - 1) / ranks;
    int first = rank * share, own = min(share, items - first);
    bool alone = task.clusters == 1;
    if (ranks > 1) {
        cluster_wait();  // All have started.
        for (int item = threadIdx.x; item < items; item += 32 * WARPS) {
            Sum sum = sum_of_warps(shared, item);
            int at = rank * share + item % share;
            *in_block(&shared.sent[at], item / share) = sum.value;
            *in_block(&shared.sent_weight[at], item / share) = sum.weight;
        }
        cluster_arrive();
    }
    float4 gate = {};
    if (threadIdx.x < own) gate = load_gate<DIM>(task, a, first + threadIdx.x);
    if (ranks > 1) cluster_wait();
    int cluster = blockIdx.x / ranks, most = d.most_splits / ranks;
    float4* partial = d.partial + ((long long)task.place * most + cluster) * ITEMS<DIM>;
    float2* weight = d.weight + ((long long)task.place * most + cluster) * ITEMS<DIM>;
    for (int at = threadIdx.x; at < own; at += 32 * WARPS) {
        int item = first + at;
        Sum sum = ranks > 1 ? sum_of_ranks(shared, at, share) : sum_of_warps(shared, item);
        if (at != threadIdx.x) gate = load_gate<DIM>(task, a, item);
        if (alone) {
            finish<DIM>(sum, gate, task, a, item);
        } else {
            partial[item] = sum.value;
            weight[item] = sum.weight;
        }
    }
    if (alone) return;
    int* arrived = &d.arrived[task.place * ranks + rank];
    if (!arrives_last(arrived, task.clusters - 1, &shared.last)) return;
    for (int at = threadIdx.x; at < own; at += 32 * WARPS) {
        int item = first + at;
        if (at != threadIdx.x || own > 32 * WARPS) gate = load_gate<DIM>(task, a, item);
        finish<DIM>(sum_of_clusters<DIM>(task, d, item), gate, task, a, item);
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
