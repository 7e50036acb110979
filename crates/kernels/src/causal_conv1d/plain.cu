#include "common.cuh"

// One thread a sequence and channel, token after token. x [rows][cols], of which the first
// `channels` columns are convolved in place; state [slot][taps][channels], the input at position p
// in row p % taps.
KERNEL void causal_conv1d_plain(float* __restrict__ x, int cols, int channels, int taps,
                                const float* __restrict__ weights, float* __restrict__ state,
                                const int* __restrict__ first_row,
                                const int* __restrict__ seq_rows, const int* __restrict__ start,
                                const int* __restrict__ slot) {
    constexpr int MOST = 8;
    wait_for_predecessors();
    const int sequence = blockIdx.y, channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= channels || slot[sequence] < 0) return;
    float* kept = state + (int64_t)slot[sequence] * taps * channels + channel;
    float weight[MOST], history[MOST];
#pragma unroll
    for (int tap = 0; tap < MOST; tap++) {
        weight[tap] = tap < taps ? weights[tap * channels + channel] : 0.0f;
        history[tap] = 0.0f;
        if (tap >= taps) continue;
        // The inputs before position 0 are zero, also for the steps that follow.
        if (start[sequence] == 0) kept[(int64_t)tap * channels] = 0.0f;
        else if (tap < taps - 1) {
            history[tap] = kept[(int64_t)((start[sequence] + tap + 1) % taps) * channels];
        }
    }
    float* at = x + (int64_t)first_row[sequence] * cols + channel;
    for (int row = 0; row < seq_rows[sequence]; row++, at += cols) {
        float sum = 0.0f;
#pragma unroll
        for (int tap = 0; tap < MOST; tap++) {
            if (tap == taps - 1) {
                history[tap] = *at;
                kept[(int64_t)((start[sequence] + row) % taps) * channels] = *at;
            }
            if (tap < taps) sum += weight[tap] * history[tap];
        }
#pragma unroll
        for (int tap = 0; tap + 1 < MOST; tap++) {
            if (tap < taps - 1) history[tap] = history[tap + 1];
        }
        *at = silu(sum);
    }
}
