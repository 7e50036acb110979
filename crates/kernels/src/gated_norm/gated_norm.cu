// `x = rms_norm(x, weight, eps) * silu(z)`, head by head, in place; behind the chunked delta rule.

#include "../gated_delta_rule/chunk.cuh"

constexpr int WARPS = 8;

// Grid: rows of the longest run times value heads, by eight; runs. A warp has a row and head.
KERNEL void __launch_bounds__(WARPS* WARP)
    gated_norm(const float* __restrict__ projected, int64_t cols, int64_t z_offset,
               const float* __restrict__ weight, float eps, float* __restrict__ x, int value_heads,
               const __grid_constant__ Runs all) {
    wait_for_predecessors();
    let_successors_start();
    const Run run = all.runs[blockIdx.y];
    const int item = blockIdx.x * WARPS + threadIdx.x / WARP;
    const int token = item / value_heads, head = item % value_heads;
    if (token >= run.rows) return;
    const int64_t row = run.first_row + token;
    const int at = head * DIM + threadIdx.x % WARP * 4;
    float4* place = (float4*)(x + row * value_heads * DIM + at);
    const float4 o = *place;
    const float4 z = __ldcs((const float4*)(projected + row * cols + z_offset + at));
    const float4 w = *(const float4*)(weight + at % DIM);
    const float sum = warp_sum(o.x * o.x + o.y * o.y + o.z * o.z + o.w * o.w);
    const float scale = rsqrtf(sum / DIM + eps);
    *place = make_float4(o.x * scale * w.x * silu(z.x), o.y * scale * w.y * silu(z.y),
                         o.z * scale * w.z * silu(z.z), o.w * scale * w.w * silu(z.w));
}
