// What a CTA of the decode kernel works on, and its shared memory.
#pragma once

#include "attention.cuh"

constexpr int QUERIES = 8;

struct Decode {
    const float* q_norm;  // [head_dim]
    const float* k_norm;
    // Results that parts leave for one another, NOTHING between launches.
    float4* partial;  // [places, parts, QUERIES * head_dim / 4], not normalised
    float2* weight;   // The same: highest score, sum.
    float eps;
    int first_sequence;  // A place is one of [gridDim.z / tiles, kv_heads, tiles].
    int tiles;           // Tiles of QUERIES queries in the largest sequence.
    int fair_parts;      // Parts of a sequence that fill the card.
    int most_parts;      // The most that a long one is split into, as well.
    int long_turns;      // A part has more turns only if there were too many parts.
    int together;        // All parts of a sequence run at the same time.
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
    int first, end;   // The CTA's tokens.
    int parts;        // CTAs that share these queries.
    int place;
};

// False where this CTA has nothing to do.
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
    int tokens = task.start + rows, blocks = (tokens + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
    int split = max((blocks + d.fair_parts - 1) / d.fair_parts, WARPS);
    split = min(split, d.long_turns * WARPS);
    split = max(split, (blocks + d.most_parts - 1) / d.most_parts);
    task.parts = (blocks + split - 1) / split;
    split = (blocks + task.parts - 1) / task.parts;
    task.first = blockIdx.x * split * BLOCK_TOKENS;
    task.end = min(task.first + split * BLOCK_TOKENS, tokens);
    bool mine = rows >= a.min_rows && rows <= a.max_rows && task.queries > 0;
    return mine && blockIdx.x < task.parts;
}

// An item is four elements of one query's result.
template <int DIM>
constexpr int ITEMS = QUERIES * DIM / 4;

template <int DIM, int WARPS, int BUFFERS>
struct Shared {
    // A warp's blocks of keys and of values, in turn. In the end its result lies in the first.
    uint4 buffers[WARPS][BUFFERS][BLOCK_TOKENS * DIM / 8];
    uint4 queries[QUERIES * DIM / 8];
    float2 weight[WARPS][QUERIES];

    __device__ __forceinline__ float* result(int warp) {
        return reinterpret_cast<float*>(buffers[warp][0]);
    }
};

// Element `at` of a row of halves in shared memory.
template <int DIM>
__device__ __forceinline__ __half* element(uint4* rows, int row, int at) {
    return reinterpret_cast<__half*>(&rows[place<DIM>(row, at / 8)]) + at % 8;
}

// Where element `at` of query `q` lies in a warp's result: so that no lanes meet in a bank.
__device__ __forceinline__ int in_result(int q, int at) { return at ^ (q / 2 * 8); }
