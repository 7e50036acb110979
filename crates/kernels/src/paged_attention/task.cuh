// What a CTA of the decode kernel works on, and its shared memory.
#pragma once

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

// Where element `at` of query `q` lies in a warp's result: so that no lanes meet in a bank.
__device__ __forceinline__ int in_result(int q, int at) { return at ^ (q / 2 * 8); }
