#include "common.cuh"

// Completes the description of a step that was queued before the host knew its tokens: row i's is
// the one that the step before has chosen as its i-th. With `advance`, the description is still
// that of the step before, and each sequence is one token further.
KERNEL void step_ahead(const int* __restrict__ chosen, int rows, int advance,
                       const int* __restrict__ row_sequence, int* __restrict__ tokens,
                       int* __restrict__ positions, int* __restrict__ start) {
    wait_for_predecessors();
    const int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows || row_sequence[row] < 0) return;
    // Where nothing was chosen this is no token; the host then has no use for the row either.
    tokens[row] = chosen[row];
    if (!advance) return;
    positions[row]++;
    start[row]++;
}
