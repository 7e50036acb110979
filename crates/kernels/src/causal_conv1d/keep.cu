// Keeps a sequence's last inputs for its next step: `ring[slot][position % 4]` takes the raw row at
// that position. For sequences of several rows; the recurrent kernel keeps single ones itself.

#include "common.cuh"

constexpr int TAPS = 4;

// Grid: channels, sequences.
KERNEL void conv_keep(const float* __restrict__ projected, int64_t cols, float* __restrict__ ring,
                      const int* __restrict__ first_rows, const int* __restrict__ row_counts,
                      const int* __restrict__ starts, const int* __restrict__ slots, int channels) {
    wait_for_predecessors();
    let_successors_start();
    const int sequence = blockIdx.y, column = blockIdx.x * blockDim.x + threadIdx.x;
    const int slot = slots[sequence], rows = row_counts[sequence];
    if (slot < 0 || rows < 2 || column >= channels) return;
    for (int row = max(rows - TAPS, 0); row < rows; row++) {
        const int64_t to = (int64_t)slot * TAPS + (starts[sequence] + row) % TAPS;
        const float* from = projected + (first_rows[sequence] + row) * cols;
        ring[to * channels + column] = from[column];
    }
}
