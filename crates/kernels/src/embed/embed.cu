#include "dequantize.cuh"

// out[row] = table[tokens[row]], zeros where the table has no such row; blockIdx.y is the row. The
// table is in file order.
KERNEL void embed(const uint8_t* __restrict__ table, const uint32_t* __restrict__ tokens, int type,
                  int block_elements, int block_bytes, int64_t row_bytes, int table_rows,
                  int cols,
                  float* __restrict__ out) {
    wait_for_predecessors();
    const int row = blockIdx.y;
    const uint32_t token = tokens[row];
    const uint8_t* blocks = table + token * row_bytes;
    const int col = blockIdx.x * blockDim.x + threadIdx.x;
    if (col < cols) {
        out[(int64_t)row * cols + col] =
            token < table_rows ? element(type, blocks, col, block_elements, block_bytes) : 0.0f;
    }
}
