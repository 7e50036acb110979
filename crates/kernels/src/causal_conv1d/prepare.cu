// The convolution ahead of the chunked delta rule: SiLU, norms of queries and keys, and f16 tiles
// of 64 tokens and one head, as the kernels behind it read them. Rows past the end are zero.

#include "../gated_delta_rule/chunk.cuh"

namespace {

constexpr int TAPS = 4;
constexpr int WARPS = 8;
constexpr int TOKENS = CHUNK / WARPS;  // of a warp

__device__ __forceinline__ float4 silu_of_sum(const float4 (&taps)[TAPS], const float4* x) {
    float4 y;
    y.x = silu((taps[3].x * x[3].x + taps[0].x * x[0].x) +
               (taps[1].x * x[1].x + taps[2].x * x[2].x));
    y.y = silu((taps[3].y * x[3].y + taps[0].y * x[0].y) +
               (taps[1].y * x[1].y + taps[2].y * x[2].y));
    y.z = silu((taps[3].z * x[3].z + taps[0].z * x[0].z) +
               (taps[1].z * x[1].z + taps[2].z * x[2].z));
    y.w = silu((taps[3].w * x[3].w + taps[0].w * x[0].w) +
               (taps[1].w * x[1].w + taps[2].w * x[2].w));
    return y;
}

}  // namespace

// Grid: heads of q, k and v, chunks of the longest run, runs. Neighbouring blocks read neighbouring
// columns.
KERNEL void __launch_bounds__(WARPS* WARP) delta_prepare(
    const float* __restrict__ projected, int64_t cols, const float* __restrict__ taps,
    const float* __restrict__ ring, __half* __restrict__ queries, __half* __restrict__ keys,
    __half* __restrict__ values, int key_heads, int value_heads, const __grid_constant__ Runs all) {
    wait_for_predecessors();
    let_successors_start();
    const Run run = all.runs[blockIdx.z];
    if ((int)blockIdx.y * CHUNK >= run.rows) return;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int channels = (2 * key_heads + value_heads) * DIM;
    const int head = blockIdx.x, column = head * DIM + lane * 4;
    const int first = blockIdx.y * CHUNK + warp * TOKENS;

    float4 weights[TAPS], x[TOKENS + TAPS - 1];
#pragma unroll
    for (int tap = 0; tap < TAPS; tap++) {
        weights[tap] = *(const float4*)(taps + tap * channels + column);
    }
#pragma unroll
    for (int at = 0; at < TOKENS + TAPS - 1; at++) {
        const int token = first + at - (TAPS - 1), position = run.position + token;
        x[at] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (token < run.rows && position >= 0) {
            const int64_t slot_row = (int64_t)run.slot * TAPS + position % TAPS;
            const float* row = token + run.before >= 0
                                   ? projected + (int64_t)(run.first_row + token) * cols
                                   : ring + slot_row * channels;
            x[at] = *(const float4*)(row + column);
        }
    }

    const bool is_value = head >= 2 * key_heads;
    const int64_t tile = run.tile + blockIdx.y;
    const int value_head = head - 2 * key_heads;
    __half* to = is_value           ? values + (tile * value_heads + value_head) * TILE
                 : head < key_heads ? queries + (tile * key_heads + head) * TILE
                                    : keys + (tile * key_heads + head - key_heads) * TILE;
#pragma unroll
    for (int at = 0; at < TOKENS; at++) {
        float4 y = silu_of_sum(weights, x + at);
        float scale = first + at < run.rows ? 1.0f : 0.0f;
        if (!is_value) {
            const float sum = warp_sum(y.x * y.x + y.y * y.y + y.z * y.z + y.w * y.w);
            scale *= rsqrtf(sum + 1e-6f);
        }
        const int row = warp * TOKENS + at, piece = lane / 2;
        const int bytes = is_value ? value_place(lane / 4, row, piece & 1) : tile_place(row, piece);
        *(uint2*)((char*)to + bytes + (lane & 1) * 8) =
            make_uint2(halves(y.x * scale, y.y * scale), halves(y.z * scale, y.w * scale));
    }
}
