#include "../linear/cuda/decode.cuh"

// out[row] = table[tokens[row]], zeros where the table has no such row. Eight columns a thread;
// grid: runs of 1024 columns, rows.
KERNEL __launch_bounds__(128) void embed(
    int format, const uint8_t* units, int padded, int table_rows, int cols, const uint32_t* tokens,
    float* out) {
    let_successors_start();
    wait_for_predecessors();
    const uint32_t token = tokens[blockIdx.y];
    const int t = threadIdx.x % 4;
    const int col = 32 * (blockIdx.x * 32 + threadIdx.x / 4);
    if (col >= cols) return;
    float values[2][8] = {};
    const int g = token % 8, half = token / 8 % 2;
    if (token < table_rows) {
        const int unit_of_tile = col / unit_cols(format);
        const int64_t at = static_cast<int64_t>(token / TILE_ROWS) * (padded / unit_cols(format));
        const uint8_t* unit = units + (at + unit_of_tile) * unit_bytes(format);
        decode(format, unit, col % unit_cols(format) / 32, 4 * g + t, values);
    }
    float* const line = out + static_cast<int64_t>(blockIdx.y) * cols + col + 4 * t;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int at = 16 * (i / 4) + i % 4;
        if (col + 4 * t + at < cols) line[at] = half == 0 ? values[0][i] : values[1][i];
    }
}
