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
    if (row >= task.rows) return make_uint4(0, 0, 0, 0);
    const float* x = a.qkv + (long long)(task.first_row + row) * a.cols
                     + task.head * a.query_stride + piece * 8;
    float4 low = *reinterpret_cast<const float4*>(x);
    float4 high = *reinterpret_cast<const float4*>(x + 4);
    return make_uint4(pack(low.x, low.y), pack(low.z, low.w), pack(high.x, high.y),
                      pack(high.z, high.w));
}
