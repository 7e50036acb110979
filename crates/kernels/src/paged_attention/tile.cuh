// A tile of a sequence's rows, of one query head: what a CTA of the prefill kernels works on.
#pragma once

#include "attention.cuh"

// Tokens whose keys and values are taken together.
constexpr int KEYS = 64;

struct Task {
    int sequence;
    int head;
    int kv_head;
    int first_row;  // Of the step.
    int rows;
    int position;  // Of the first row.
    int tokens;    // That the last row sees.
};

template <int ROWS>
__device__ __forceinline__ bool find_task(Task& task, const Attention& a) {
    task.sequence = blockIdx.z;
    task.head = blockIdx.x;
    task.kv_head = task.head / (a.heads / a.kv_heads);
    int rows = a.rows[task.sequence];
    if (rows < a.min_rows || rows > a.max_rows) return false;
    // The longest tiles first: the short ones fill the end of the launch.
    int tile = (rows + ROWS - 1) / ROWS - 1 - (int)blockIdx.y;
    if (tile < 0) return false;
    task.first_row = a.first_row[task.sequence] + tile * ROWS;
    task.rows = min(rows - tile * ROWS, ROWS);
    task.position = a.start[task.sequence] + tile * ROWS;
    task.tokens = task.position + task.rows;
    return true;
}

// Eight elements of a row's query as halves, from 8 · `piece`; rows beyond the last are zero.
__device__ __forceinline__ uint4 load_piece(const Task& task, const Attention& a, int row,
                                            int piece) {
    // The load is done in any case: a branch would keep loads from running beside one another.
    const float* x = a.qkv + (long long)(task.first_row + min(row, task.rows - 1)) * a.cols
                     + task.head * a.query_stride + piece * 8;
    float4 low = __ldg(reinterpret_cast<const float4*>(x));
    float4 high = __ldg(reinterpret_cast<const float4*>(x + 4));
    uint4 halves = make_uint4(pack(low.x, low.y), pack(low.z, low.w), pack(high.x, high.y),
                              pack(high.z, high.w));
    return row < task.rows ? halves : make_uint4(0, 0, 0, 0);
}

// Gates that are loaded before any of them is used.
constexpr int GATES = 8;

// A lane's gates of columns 8k + 2 (lane % 4) and the next. The projection is only read here, which
// the compiler must be told, or each load would wait for the store before it.
__device__ __forceinline__ void load_gates(float2 (&open)[GATES], const float* gate) {
#pragma unroll
    for (int k = 0; k < GATES; k++)
        open[k] = __ldg(reinterpret_cast<const float2*>(gate + 8 * k + threadIdx.x % 4 * 2));
}

__device__ __forceinline__ void store_pair(float* out, float2 pair, int gated, float2 open) {
    if (gated) {
        pair.x *= sigmoid(open.x);
        pair.y *= sigmoid(open.y);
    }
    *reinterpret_cast<float2*>(out + threadIdx.x % 4 * 2) = pair;
}
