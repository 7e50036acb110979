// Attention of a few rows per sequence over a long cache: the keys are split between CTAs.
//
// A CTA takes a run of keys of one key-value head for up to eight queries: the query heads that
// share the head, of as many rows as fit. Its warps take blocks of 16 tokens in turn, straight from
// memory into the fragments of the tensor cores: scores are K · Qᵀ (tokens by queries) and the
// result is Vᵀ · Pᵀ (elements by queries), so that eight queries fill an instruction. The order of
// a head's elements within a dot product is free, which lets each lane read 16 bytes at once; so is
// the order of the result's rows, which lets it read 16 bytes of a value. The CTA that arrives last
// adds the parts up, in their order. How a sequence is split depends on its own length alone.
//
// Optionally the kernel norms and rotates the queries and keys that the projection left, and puts
// the keys and values of the new tokens into the cache, which saves a launch per layer.
#include "attention.cuh"

constexpr int WARPS = 4;
constexpr int QUERIES = 8;
constexpr int MAX_ROWS = 16;
constexpr int MAX_SPLITS = 128;
// Splits are whole numbers of these, one block a warp.
constexpr int SPLIT_TOKENS = WARPS * BLOCK_TOKENS;

struct Decode {
    const float* q_norm;  // Null where queries are rotated and the cache is written already.
    const float* k_norm;
    float* partial;    // [sequences, kv_heads, tiles, splits, QUERIES, head_dim], not normalised
    float2* weight;    // [sequences, kv_heads, tiles, splits, QUERIES]: highest score, sum
    int* arrived;      // [sequences, kv_heads, tiles], zero between launches
    float eps;
    int tiles;         // Tiles of QUERIES queries in the largest sequence.
    int splits;        // As many as a long sequence has; gridDim.x.
    int min_split;     // Tokens.
};

// One block's keys and values as a lane of a warp holds them; see `attend`.
template <int DIM>
struct Block {
    uint4 key[DIM / 32][2];
    uint4 value[DIM / 64][4];
};

__device__ __forceinline__ uint4 load_once(const __half* from) {
    uint4 v;
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from)
                 : "memory");
    return v;
}

// Keys g and g + 8 of the block, where g = lane / 4: 8 elements of each 32.
template <int DIM>
__device__ __forceinline__ void load_keys(Block<DIM>& block, const __half* keys) {
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const __half* from = keys + g * DIM + t * 8;
#pragma unroll
    for (int j = 0; j < DIM / 32; j++) {
        block.key[j][0] = load_once(from + j * 32);
        block.key[j][1] = load_once(from + j * 32 + 8 * DIM);
    }
}

// Values 2t, 2t + 1, 2t + 8 and 2t + 9 of the block, where t = lane % 4: 8 elements of each 64.
// What is beyond the last token may be anything, also NaN, and is replaced by zero.
template <int DIM>
__device__ __forceinline__ void load_values(Block<DIM>& block, const __half* values, int tokens) {
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        int token = 2 * t + k % 2 + k / 2 * 8;
#pragma unroll
        for (int j = 0; j < DIM / 64; j++) {
            const __half* from = values + token * DIM + j * 64 + g * 8;
            block.value[j][k] = token < tokens ? load_once(from) : make_uint4(0, 0, 0, 0);
        }
    }
}

// The running softmax of a lane's two queries, 2t and 2t + 1, and their result's elements
// 64j + 8g + 2i (and the next) at out[j][i].
template <int DIM>
struct Running {
    float highest[2];
    float sum[2];
    float out[DIM / 64][4][4];
};

template <int DIM>
__device__ __forceinline__ void scores(float (&s)[4], const Block<DIM>& block,
                                       const __half (*queries)[DIM + 32]) {
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    float even[4] = {}, odd[4] = {};
#pragma unroll
    for (int j = 0; j < DIM / 32; j++) {
        uint4 q = *reinterpret_cast<const uint4*>(&queries[g][j * 32 + t * 8]);
        uint4 a = block.key[j][0], b = block.key[j][1];
        mma(even, a.x, b.x, a.y, b.y, q.x, q.y);
        mma(odd, a.z, b.z, a.w, b.w, q.z, q.w);
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
            for (int j = 0; j < DIM / 64; j++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    run.out[j][i][q] *= keep;
                    run.out[j][i][q + 2] *= keep;
                }
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
__device__ __forceinline__ void accumulate(Running<DIM>& run, const Block<DIM>& block,
                                           const float (&s)[4]) {
    unsigned b0 = transposed(pack(s[0], s[1])), b1 = transposed(pack(s[2], s[3]));
#pragma unroll
    for (int j = 0; j < DIM / 64; j++) {
        const unsigned* v0 = &block.value[j][0].x;
        const unsigned* v1 = &block.value[j][1].x;
        const unsigned* v2 = &block.value[j][2].x;
        const unsigned* v3 = &block.value[j][3].x;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            unsigned a0 = __byte_perm(v0[i], v1[i], 0x5410);
            unsigned a1 = __byte_perm(v0[i], v1[i], 0x7632);
            unsigned a2 = __byte_perm(v2[i], v3[i], 0x5410);
            unsigned a3 = __byte_perm(v2[i], v3[i], 0x7632);
            mma(run.out[j][i], a0, a1, a2, a3, b0, b1);
        }
    }
}

// What a CTA works on.
struct Task {
    int sequence;
    int kv_head;
    int first_query;  // Of the sequence's rows · group.
    int queries;      // At most QUERIES.
    int start;        // Of the sequence: tokens before its first row.
    int first, end;   // Tokens.
    int parts;        // CTAs that share these queries.
    int place;        // Of [sequences, kv_heads, tiles].
};

// False where this CTA has nothing to do.
__device__ __forceinline__ bool find_task(Task& task, const Attention& a, const Decode& d) {
    task.sequence = blockIdx.z / d.tiles;
    task.kv_head = blockIdx.y;
    int tile = blockIdx.z % d.tiles;
    task.place = (task.sequence * a.kv_heads + task.kv_head) * d.tiles + tile;
    int rows = a.rows[task.sequence];
    task.start = a.start[task.sequence];
    task.first_query = tile * QUERIES;
    task.queries = min(rows * (a.heads / a.kv_heads) - task.first_query, QUERIES);
    int tokens = task.start + rows;
    int split = (tokens + d.splits - 1) / d.splits;
    split = max((split + SPLIT_TOKENS - 1) / SPLIT_TOKENS * SPLIT_TOKENS, d.min_split);
    task.parts = (tokens + split - 1) / split;
    task.first = blockIdx.x * split;
    task.end = min(task.first + split, tokens);
    bool mine = rows >= a.min_rows && rows <= a.max_rows && rows > 0;
    return mine && task.queries > 0 && task.first < tokens;
}

template <int DIM>
struct Shared {
    __half queries[QUERIES][DIM + 32];
    union {
        float2 angles[MAX_ROWS][DIM / 2];
        float out[WARPS][QUERIES][DIM + 4];
        float share[QUERIES][MAX_SPLITS];
    };
    float highest[WARPS][QUERIES];
    float sum[WARPS][QUERIES];
    bool last;
};

// The task's queries as halves; with a norm, normed and rotated on the way.
template <int DIM>
__device__ __forceinline__ void prepare_queries(Shared<DIM>& shared, const Task& task,
                                                const Attention& a, const Decode& d, int pairs) {
    int lane = threadIdx.x % 32, group = a.heads / a.kv_heads;
    for (int q = threadIdx.x / 32; q < QUERIES; q += WARPS) {
        if (q >= task.queries) {
            for (int at = lane; at < DIM; at += 32) shared.queries[q][at] = __half(0.0f);
            continue;
        }
        int row = (task.first_query + q) / group;
        int head = task.kv_head * group + (task.first_query + q) % group;
        const float* x = a.qkv + (long long)(a.first_row[task.sequence] + row) * a.cols
                         + head * a.query_stride;
        float inverse = d.q_norm ? inverse_rms(x, DIM, d.eps) : 0.0f;
#pragma unroll
        for (int k = 0; k < DIM / 32; k++) {
            int at = lane + 32 * k;
            float value = x[at];
            if (d.q_norm) value = rotated(x, d.q_norm, inverse, shared.angles[row], pairs, at);
            shared.queries[q][at] = saturated(value);
        }
    }
}

// Keys and values of the new tokens among the task's own. Tiles of one sequence may write the same
// values to the same place.
template <int DIM>
__device__ __forceinline__ void put_new_tokens(const Shared<DIM>& shared, const Task& task,
                                               const Attention& a, const Decode& d, int pairs) {
    int lane = threadIdx.x % 32;
    int from = max(task.first, task.start);
    for (int item = threadIdx.x / 32; item < 2 * (task.end - from); item += WARPS) {
        int token = from + item / 2, row = token - task.start;
        const int* table = a.block_table + (long long)task.sequence * a.max_blocks;
        long long stored =
            cache_offset(table[token / BLOCK_TOKENS], a.kv_heads, task.kv_head, token, DIM);
        const float* x = a.qkv + (long long)(a.first_row[task.sequence] + row) * a.cols
                         + a.heads * a.query_stride + task.kv_head * DIM;
        if (item % 2 == 1) {
            x += a.kv_heads * DIM;
#pragma unroll
            for (int at = lane; at < DIM; at += 32) a.values[stored + at] = saturated(x[at]);
            continue;
        }
        float inverse = inverse_rms(x, DIM, d.eps);
#pragma unroll
        for (int at = lane; at < DIM; at += 32) {
            float key = rotated(x, d.k_norm, inverse, shared.angles[row], pairs, at);
            a.keys[stored + at] = saturated(key);
        }
    }
}

// The result of query `q` of the task, four elements from `at`.
__device__ __forceinline__ void finish(float4 value, const Task& task, const Attention& a, int q,
                                       int at, int dim) {
    int group = a.heads / a.kv_heads;
    long long row = a.first_row[task.sequence] + (task.first_query + q) / group;
    int head = task.kv_head * group + (task.first_query + q) % group;
    if (a.gated) {
        const float* gate = a.qkv + row * a.cols + head * a.query_stride + dim + at;
        float4 by = *reinterpret_cast<const float4*>(gate);
        value.x *= sigmoid(by.x);
        value.y *= sigmoid(by.y);
        value.z *= sigmoid(by.z);
        value.w *= sigmoid(by.w);
    }
    float* out = a.out + (row * a.heads + head) * dim + at;
    *reinterpret_cast<float4*>(out) = value;
}

__device__ __forceinline__ void add_scaled(float4& sum, float4 value, float by) {
    sum.x += value.x * by;
    sum.y += value.y * by;
    sum.z += value.z * by;
    sum.w += value.w * by;
}

// The warps' results into shared memory.
template <int DIM>
__device__ __forceinline__ void share(Shared<DIM>& shared, Running<DIM>& run) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int q = 0; q < 2; q++) {
#pragma unroll
        for (int other = 4; other < 32; other *= 2)
            run.sum[q] += __shfl_xor_sync(~0u, run.sum[q], other);
        if (g == 0) {
            shared.highest[warp][2 * t + q] = run.highest[q];
            shared.sum[warp][2 * t + q] = run.sum[q];
        }
#pragma unroll
        for (int j = 0; j < DIM / 64; j++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float2 pair = make_float2(run.out[j][i][q], run.out[j][i][q + 2]);
                int at = 64 * j + 8 * g + 2 * i;
                *reinterpret_cast<float2*>(&shared.out[warp][2 * t + q][at]) = pair;
            }
        }
    }
}

// Adds the warps' results up, and finishes or leaves them as this CTA's part.
template <int DIM>
__device__ __forceinline__ void combine_warps(const Shared<DIM>& shared, const Task& task,
                                              const Attention& a, const Decode& d) {
    for (int item = threadIdx.x; item < task.queries * (DIM / 4); item += 32 * WARPS) {
        int q = item / (DIM / 4), at = item % (DIM / 4) * 4;
        float highest = -INFINITY, total = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) highest = fmaxf(highest, shared.highest[w][q]);
        // Of a task's queries an early row may see none of its keys.
        float base = highest == -INFINITY ? 0.0f : highest;
        float4 value = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            float by = exp2_fast(shared.highest[w][q] - base);
            total += shared.sum[w][q] * by;
            add_scaled(value, *reinterpret_cast<const float4*>(&shared.out[w][q][at]), by);
        }
        if (task.parts == 1) {
            float by = 1.0f / total;
            value = make_float4(value.x * by, value.y * by, value.z * by, value.w * by);
            finish(value, task, a, q, at, DIM);
            continue;
        }
        long long part = ((long long)task.place * d.splits + blockIdx.x) * QUERIES + q;
        *reinterpret_cast<float4*>(d.partial + part * DIM + at) = value;
        if (at == 0) d.weight[part] = make_float2(highest, total);
    }
}

// Each part's share of each query's result.
template <int DIM>
__device__ __forceinline__ void weigh_parts(Shared<DIM>& shared, const Task& task,
                                            const Decode& d) {
    int lane = threadIdx.x % 32;
    const float2* weight = d.weight + (long long)task.place * d.splits * QUERIES;
    for (int q = threadIdx.x / 32; q < task.queries; q += WARPS) {
        float2 own[MAX_SPLITS / 32];
        float highest = -INFINITY, total = 0.0f;
#pragma unroll
        for (int k = 0; k < MAX_SPLITS / 32; k++) {
            int part = lane + 32 * k;
            own[k] = part < task.parts ? __ldcg(&weight[part * QUERIES + q])
                                       : make_float2(-INFINITY, 0.0f);
            highest = fmaxf(highest, own[k].x);
        }
#pragma unroll
        for (int other = 16; other > 0; other /= 2)
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, other));
#pragma unroll
        for (int k = 0; k < MAX_SPLITS / 32; k++) {
            own[k].x = exp2_fast(own[k].x - highest);
            total += own[k].x * own[k].y;
        }
#pragma unroll
        for (int other = 16; other > 0; other /= 2)
            total += __shfl_xor_sync(~0u, total, other);
#pragma unroll
        for (int k = 0; k < MAX_SPLITS / 32; k++)
            shared.share[q][lane + 32 * k] = own[k].x / total;
    }
}

// Adds the CTAs' parts up in their order.
template <int DIM>
__device__ __forceinline__ void combine_parts(const Shared<DIM>& shared, const Task& task,
                                              const Attention& a, const Decode& d) {
    const float* partial = d.partial + (long long)task.place * d.splits * QUERIES * DIM;
    for (int item = threadIdx.x; item < task.queries * (DIM / 4); item += 32 * WARPS) {
        int q = item / (DIM / 4), at = item % (DIM / 4) * 4;
        float4 value = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 8
        for (int part = 0; part < task.parts; part++) {
            const float* from = partial + (part * QUERIES + q) * DIM + at;
            add_scaled(value, __ldcg(reinterpret_cast<const float4*>(from)), shared.share[q][part]);
        }
        finish(value, task, a, q, at, DIM);
    }
}

// Where the warp's next 32 blocks from token `first` lie, one a lane.
__device__ __forceinline__ int block_ids(const Task& task, const Attention& a, int first) {
    int token = first + threadIdx.x % 32 * SPLIT_TOKENS;
    const int* table = a.block_table + (long long)task.sequence * a.max_blocks;
    return token < task.end ? table[token / BLOCK_TOKENS] : 0;
}

// The warp's blocks of the task. The first is `block`, whose loads are under way.
template <int DIM>
__device__ __forceinline__ void attend(Running<DIM>& run, Block<DIM>& block, int ids,
                                       const Task& task, const Attention& a,
                                       const __half (*queries)[DIM + 32]) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = a.heads / a.kv_heads;
    int ends[2];
#pragma unroll
    for (int q = 0; q < 2; q++) {
        int query = 2 * (lane % 4) + q;
        int row = (task.first_query + query) / group;
        ends[q] = query < task.queries ? task.start + row + 1 : 0;
    }
    int first = task.first + warp * BLOCK_TOKENS;
    for (int turn = 1; first < task.end; turn++) {
        float s[4];
        scores(s, block, queries);
        int next = first + SPLIT_TOKENS;
        if (turn % 32 == 0) ids = block_ids(task, a, next);
        int id = __shfl_sync(~0u, ids, turn % 32);
        long long offset = cache_offset(id, a.kv_heads, task.kv_head, 0, DIM);
        if (next < task.end) load_keys(block, a.keys + offset);
        weigh(run, s, first + lane / 4, ends, a.scale);
        accumulate(run, block, s);
        if (next < task.end) load_values(block, a.values + offset, task.end - next);
        first = next;
    }
}

template <int DIM>
__device__ __forceinline__ void decode(const Attention& a, const Decode& d,
                                       const Rotation& rotation) {
    __shared__ Shared<DIM> shared;
    let_successors_start();
    Task task;
    if (!find_task(task, a, d)) {
        wait_for_predecessors();
        return;
    }
    // Blocks that earlier steps completed can be read before this step's projection is there.
    int first = task.first + threadIdx.x / 32 * BLOCK_TOKENS;
    int ids = block_ids(task, a, first);
    int id = __shfl_sync(~0u, ids, 0);
    long long offset = cache_offset(id, a.kv_heads, task.kv_head, 0, DIM);
    Block<DIM> block;
    bool early = first + BLOCK_TOKENS <= min(task.start, task.end);
    if (early) {
        load_keys(block, a.keys + offset);
        load_values(block, a.values + offset, BLOCK_TOKENS);
    }
    if (d.q_norm) {
        int rows = a.rows[task.sequence];
        for (int at = threadIdx.x; at < rows * rotation.pairs; at += 32 * WARPS) {
            int row = at / rotation.pairs, pair = at % rotation.pairs;
            shared.angles[row][pair] = angle(rotation, task.start + row, pair);
        }
        __syncthreads();
    }
    wait_for_predecessors();
    prepare_queries(shared, task, a, d, rotation.pairs);
    if (d.q_norm && task.end > task.start) put_new_tokens(shared, task, a, d, rotation.pairs);
    __syncthreads();
    if (!early && first < task.end) {
        load_keys(block, a.keys + offset);
        load_values(block, a.values + offset, task.end - first);
    }
    Running<DIM> run = {{-INFINITY, -INFINITY}};
    attend(run, block, ids, task, a, shared.queries);
    share(shared, run);
    __syncthreads();
    combine_warps(shared, task, a, d);
    if (task.parts == 1) return;

    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        shared.last = atomicAdd(&d.arrived[task.place], 1) == task.parts - 1;
        if (shared.last) d.arrived[task.place] = 0;
    }
    __syncthreads();
    if (!shared.last) return;
    __threadfence();
    weigh_parts(shared, task, d);
    __syncthreads();
    combine_parts(shared, task, a, d);
}

#define DECODE(DIM)                                                                             \
    KERNEL void __launch_bounds__(32 * WARPS) attention_decode_##DIM(            \
        Attention a, Decode d, Rotation rotation) {                                             \
        decode<DIM>(a, d, rotation);                                                            \
    }

DECODE(64)
DECODE(128)
DECODE(256)
