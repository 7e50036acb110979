// Weights back to rows: of a whole matrix for the library's multiplication, or of single rows.

#include "decode.cuh"
#include "operand.cuh"

enum Kind : int { HALVES = 0, MAIN, REST };  // Halves; bfloat16; what a bfloat16 leaves over.

__device__ __forceinline__ uint16_t bits_of(int kind, float value) {
    if (kind == HALVES) return __half_as_ushort(saturating_half(value));
    const __nv_bfloat16 main = __float2bfloat16_rn(value);
    if (kind == MAIN) return __bfloat16_as_ushort(main);
    return __bfloat16_as_ushort(__float2bfloat16_rn(value - __bfloat162float(main)));
}

// Rows of 16-bit floats, `padded` columns in the order of the activations. A block of 128 threads
// decodes a unit; grid: units of a tile, tiles.
KERNEL __launch_bounds__(128) void linear_decode(
    int format, int kind, const uint8_t* units, int padded, uint16_t* out) {
    let_successors_start();
    wait_for_predecessors();
    const int64_t at = static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
    const uint8_t* unit = units + at * unit_bytes(format);
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    for (int group = threadIdx.x / WARP; group < unit_cols(format) / 32; group += 4) {
        float values[2][8];
        decode(format, unit, group, lane, values);
        const int col = blockIdx.x * unit_cols(format) + 32 * group + 8 * t;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint16_t bits[8];
#pragma unroll
            for (int i = 0; i < 8; i++) bits[i] = bits_of(kind, values[half][i]);
            const int64_t row = static_cast<int64_t>(blockIdx.y) * TILE_ROWS + g + 8 * half;
            const uint4 packed = {pack(bits[0], bits[1]), pack(bits[2], bits[3]),
                                  pack(bits[4], bits[5]), pack(bits[6], bits[7])};
            *reinterpret_cast<uint4*>(out + row * padded + col) = packed;
        }
    }
}
