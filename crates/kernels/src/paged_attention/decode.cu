// Attention of a few rows per sequence over a long cache: the keys are split between CTAs.
//
// A CTA takes a run of tokens of one key-value head for up to eight queries: the query heads that
// share the head, of as many rows as fit. Its warps take blocks of 16 tokens in turn, from the last
// to the first. Scores are K · Qᵀ (tokens by queries) and the result is Vᵀ · Pᵀ (elements by
// queries), so that eight queries fill an instruction of the tensor cores.
//
// The kernel norms and rotates queries and keys itself and puts the new tokens' keys and values into
// the cache: a launch per layer less, and while it waits for the projection, the blocks that earlier
// steps wrote are on their way already. New tokens go to shared memory directly.
//
// The CTAs of a cluster add their results up through shared memory, each a part of the elements.
// Where a sequence takes several clusters, the one that arrives last adds the clusters' results up,
// in their order. How a sequence is split depends on its own length alone, so a row's result is the
// same whatever else is in the step.
#include "attention.cuh"
#include "cluster.cuh"

constexpr int QUERIES = 8;

struct Decode {
    const float* q_norm;  // [head_dim]
    const float* k_norm;
    float* partial;  // [places, clusters, QUERIES, head_dim], not normalised
    float2* weight;  // [places, clusters, ranks, QUERIES]: highest score, sum
    int* arrived;    // [places, ranks], zero between launches
    float eps;
    int first_sequence;  // A place is one of [gridDim.z / tiles, kv_heads, tiles].
    int tiles;           // Tiles of QUERIES queries in the largest sequence.
    int splits;          // The most parts that a sequence is split into; a multiple of the ranks.
    int min_split;       // Tokens; a multiple of what a CTA's warps take in a turn.
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
__device__ __forceinline__ bool find_task(Task& task, const Attention& a, const Decode& d) {
    int tile = blockIdx.z % d.tiles, turn = d.min_split;
    task.sequence = d.first_sequence + blockIdx.z / d.tiles;
    task.kv_head = blockIdx.y;
    task.place = (blockIdx.z / d.tiles * a.kv_heads + task.kv_head) * d.tiles + tile;
    int rows = a.rows[task.sequence];
    task.start = a.start[task.sequence];
    task.first_row = a.first_row[task.sequence];
    task.first_query = tile * QUERIES;
    task.queries = min(rows * (a.heads / a.kv_heads) - task.first_query, QUERIES);
    int tokens = task.start + rows;
    int split = (tokens + d.splits * turn - 1) / (d.splits * turn) * turn;
    int parts = (tokens + split - 1) / split, ranks = cluster_size();
    task.clusters = (parts + ranks - 1) / ranks;
    task.first = blockIdx.x * split;
    task.end = min(task.first + split, tokens);
    bool mine = rows >= a.min_rows && rows <= a.max_rows && task.queries > 0;
    return mine && blockIdx.x / ranks < task.clusters;
}

// Eight queries' results of a warp or a CTA: elements not normalised, highest score, sum.
template <int DIM>
struct Result {
    float out[QUERIES][DIM];
    float2 weight[QUERIES];
};

// Shared memory. A warp's result takes the place of its keys, the CTA's that of all values.
template <int DIM, int WARPS>
struct Shared {
    uint4 keys[WARPS][BLOCK_TOKENS * DIM / 8];
    union {
        uint4 values[WARPS][BLOCK_TOKENS * DIM / 8];
        Result<DIM> result;
    };
    uint4 queries[QUERIES * DIM / 8];
    float2 weight[WARPS][QUERIES];
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
__device__ __forceinline__ void scores(float (&s)[4], const uint4* keys,
                                       const unsigned (&queries)[DIM / 32][4]) {
    int row = threadIdx.x % 16, half = threadIdx.x % 32 / 16;
    float even[4] = {}, odd[4] = {};
#pragma unroll
    for (int j = 0; j < DIM / 32; j++) {
        unsigned k[4];
        load_tiles(k, &keys[place<DIM>(row, 4 * j + half)]);
        mma(even, k, queries[j][0], queries[j][1]);
        load_tiles(k, &keys[place<DIM>(row, 4 * j + 2 + half)]);
        mma(odd, k, queries[j][2], queries[j][3]);
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
            float keep = highest[q] > run.highest[q] ? exp2_fast(run.highest[q] - highest[q]) : 1.0f;
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
    unsigned queries[DIM / 32][4];
#pragma unroll
    for (int j = 0; j < DIM / 32; j++)
        load_tiles(queries[j], &shared.queries[place<DIM>(lane % 8, 4 * j + lane / 8)]);
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
        scores<DIM>(s, keys, queries);
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

// A sum of results that have a highest score each: four elements of one query.
struct Sum {
    float highest = -INFINITY;
    float total = 0.0f;
    float4 value = {};

    __device__ __forceinline__ void add(float4 other, float2 weight) {
        // A part without keys for this query holds anything.
        if (weight.x == -INFINITY) return;
        float base = fmaxf(highest, weight.x);
        float keep = exp2_fast(highest - base), by = exp2_fast(weight.x - base);
        highest = base;
        total = total * keep + weight.y * by;
        value.x = value.x * keep + other.x * by;
        value.y = value.y * keep + other.y * by;
        value.z = value.z * keep + other.z * by;
        value.w = value.w * keep + other.w * by;
    }
};

// Adds the warps' results up to the CTA's.
template <int DIM, int WARPS>
__device__ __forceinline__ void combine_warps(Shared<DIM, WARPS>& shared, const Task& task) {
    for (int item = threadIdx.x; item < task.queries * (DIM / 4); item += 32 * WARPS) {
        int q = item / (DIM / 4), at = item % (DIM / 4) * 4;
        Sum sum;
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            const float* out = reinterpret_cast<const float*>(shared.keys[w]);
            const float* from = &out[q * DIM + in_result(q, at)];
            sum.add(*reinterpret_cast<const float4*>(from), shared.weight[w][q]);
        }
        *reinterpret_cast<float4*>(&shared.result.out[q][at]) = sum.value;
        if (at == 0) shared.result.weight[q] = make_float2(sum.highest, sum.total);
    }
}

// The result of query `q` of the task, four elements from `at`.
__device__ __forceinline__ void finish(const Sum& sum, float4 gate, const Task& task,
                                       const Attention& a, int q, int at, int dim) {
    int group = a.heads / a.kv_heads, query = task.first_query + q;
    long long row = task.first_row + query / group;
    int head = task.kv_head * group + query % group;
    float by = 1.0f / sum.total;
    float4 value = make_float4(sum.value.x * by, sum.value.y * by, sum.value.z * by,
                               sum.value.w * by);
    if (a.gated) {
        value.x *= sigmoid(gate.x);
        value.y *= sigmoid(gate.y);
        value.z *= sigmoid(gate.z);
        value.w *= sigmoid(gate.w);
    }
    *reinterpret_cast<float4*>(a.out + (row * a.heads + head) * dim + at) = value;
}

__device__ __forceinline__ float4 load_gate(const Task& task, const Attention& a, int q, int at,
                                            int dim) {
    if (!a.gated) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    int group = a.heads / a.kv_heads, query = task.first_query + q;
    long long row = task.first_row + query / group;
    int head = task.kv_head * group + query % group;
    const float* gate = a.qkv + row * a.cols + head * a.query_stride + dim + at;
    return *reinterpret_cast<const float4*>(gate);
}

// Adds the cluster's results up, this CTA a part of their elements, and finishes them or leaves
// them to whichever cluster arrives last.
template <int DIM, int WARPS>
__device__ __forceinline__ void combine_cluster(const Shared<DIM, WARPS>& shared, const Task& task,
                                                const Attention& a, const Decode& d, int item) {
    int q = item / (DIM / 4), at = item % (DIM / 4) * 4, ranks = cluster_size();
    float4 gate = task.clusters == 1 ? load_gate(task, a, q, at, DIM) : float4{};
    Sum sum;
#pragma unroll 8
    for (int rank = 0; rank < ranks; rank++) {
        const Result<DIM>* there = in_block(&shared.result, rank);
        sum.add(*reinterpret_cast<const float4*>(&there->out[q][at]), there->weight[q]);
    }
    if (task.clusters == 1) {
        finish(sum, gate, task, a, q, at, DIM);
        return;
    }
    int cluster = blockIdx.x / ranks, rank = cluster_rank(), most = d.splits / ranks;
    long long part = (long long)task.place * most + cluster;
    *reinterpret_cast<float4*>(d.partial + (part * QUERIES + q) * DIM + at) = sum.value;
    d.weight[(part * ranks + rank) * QUERIES + q] = make_float2(sum.highest, sum.total);
}

// Adds the clusters' results up in their order.
template <int DIM>
__device__ __forceinline__ void combine_clusters(const Task& task, const Attention& a,
                                                 const Decode& d, int item) {
    int q = item / (DIM / 4), at = item % (DIM / 4) * 4, ranks = cluster_size();
    int rank = cluster_rank(), most = d.splits / ranks;
    float4 gate = load_gate(task, a, q, at, DIM);
    long long first = (long long)task.place * most;
    Sum sum;
#pragma unroll 4
    for (int cluster = 0; cluster < task.clusters; cluster++) {
        long long part = first + cluster;
        const float* from = d.partial + (part * QUERIES + q) * DIM + at;
        float2 weight = __ldcg(&d.weight[(part * ranks + rank) * QUERIES + q]);
        sum.add(__ldcg(reinterpret_cast<const float4*>(from)), weight);
    }
    finish(sum, gate, task, a, q, at, DIM);
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

template <int DIM, int WARPS>
__device__ __forceinline__ void decode(const Attention& a, const Decode& d,
                                       const Rotation& rotation) {
    extern __shared__ uint4 memory[];
    Shared<DIM, WARPS>& shared = *reinterpret_cast<Shared<DIM, WARPS>*>(memory);
    int warp = threadIdx.x / 32;
    let_successors_start();
    Task task;
    if (!find_task(task, a, d)) {
        wait_for_predecessors();
        return;
    }
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
    combine_warps(shared, task);
    cluster_sync();
    int ranks = cluster_size(), rank = cluster_rank();
    int per_rank = (task.queries * (DIM / 4) + ranks - 1) / ranks;
    int begin = rank * per_rank, end = min(begin + per_rank, task.queries * (DIM / 4));
    for (int item = begin + threadIdx.x; item < end; item += 32 * WARPS)
        combine_cluster(shared, task, a, d, item);
    // Nobody may go while others read its memory.
    cluster_sync();
    if (task.clusters == 1) return;
    if (!arrives_last(&d.arrived[task.place * ranks + rank], task.clusters - 1, &shared.last)) return;
    for (int item = begin + threadIdx.x; item < end; item += 32 * WARPS)
        combine_clusters<DIM>(task, a, d, item);
}

static_assert(sizeof(Shared<64, 8>) == 34320 && sizeof(Shared<128, 8>) == 68112
                  && sizeof(Shared<256, 4>) == 69904,
              "the launch asks for as much");

#define DECODE(DIM, WARPS)                                                                      \
    KERNEL void __launch_bounds__(32 * WARPS) attention_decode_##DIM(Attention a, Decode d,     \
                                                                     Rotation rotation) {       \
        decode<DIM, WARPS>(a, d, rotation);                                                     \
    }

DECODE(64, 8)
DECODE(128, 8)
DECODE(256, 4)
