#include "dequantize.cuh"

// Which experts a row uses, and how much of each: one warp a row. `chosen` and `weights` are
// [rows][top_k], in the order of the experts' numbers. Logits that are not finite give weights that
// are not.
KERNEL void moe_route(const float* __restrict__ logits, int experts, int top_k, int renormalise,
                      int* __restrict__ chosen, float* __restrict__ weights) {
    extern __shared__ float values[];
    wait_for_predecessors();
    const int row = blockIdx.x, lane = threadIdx.x;
    logits += (int64_t)row * experts;
    chosen += (int64_t)row * top_k;
    weights += (int64_t)row * top_k;
    float highest = -INFINITY;
    for (int expert = lane; expert < experts; expert += WARP) {
        values[expert] = logits[expert];
        highest = fmaxf(highest, values[expert]);
    }
    // Every lane looks at the logit of whichever expert is picked.
    __syncwarp();
    highest = warp_max(highest);
    float total = 0.0f;
    for (int expert = lane; expert < experts; expert += WARP) {
        total += expf(values[expert] - highest);
    }
    total = warp_sum(total);
    // A bit for each expert of this lane that is chosen.
    uint32_t taken = 0;
    float kept = 0.0f;
    for (int pick = 0; pick < top_k; pick++) {
        float best = -INFINITY;
        int expert = experts;
        for (int at = lane, bit = 0; at < experts; at += WARP, bit++) {
            const bool better = values[at] > best || expert == experts;
            if (!(taken >> bit & 1) && better) best = values[at], expert = at;
        }
#pragma unroll
        for (int offset = WARP / 2; offset > 0; offset /= 2) {
            const float other = __shfl_xor_sync(0xffffffffu, best, offset);
            const int its = __shfl_xor_sync(0xffffffffu, expert, offset);
            const bool none = expert == experts, equal = other == best && its < expert;
            if (its < experts && (none || other > best || equal)) best = other, expert = its;
        }
        // A NaN can keep lanes apart: all follow the first.
        expert = __shfl_sync(0xffffffffu, expert, 0);
        if (expert % WARP == lane) taken |= 1u << (expert / WARP);
        kept += expf(values[expert] - highest);
    }
    const float whole = renormalise && isfinite(total) ? kept : total;
    int before = 0;
    for (int first = 0, bit = 0; first < experts; first += WARP, bit++) {
        const uint32_t here = __ballot_sync(0xffffffffu, taken >> bit & 1);
        if (taken >> bit & 1) {
            const int at = before + __popc(here & ((1u << lane) - 1));
            chosen[at] = first + lane;
            weights[at] = expf(values[first + lane] - highest) / whole;
        }
        before += __popc(here);
    }
}

// activated[row][k][col] = silu(gate_e · x) * (up_e · x) with e = chosen[row][k]; a warp a column,
// blockIdx.x counts rows and choices. The experts' matrices lie one after the other.
KERNEL void moe_gate_up(const uint8_t* __restrict__ gate, const uint8_t* __restrict__ up, int type,
                        int block_elements, int block_bytes, int64_t row_bytes, int ffn, int hidden,
                        int top_k, const int* __restrict__ chosen, const float* __restrict__ x,
                        float* __restrict__ activated) {
    wait_for_predecessors();
    const int lane = threadIdx.x % WARP;
    const int col = blockIdx.y * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (col >= ffn) return;
    const int64_t choice = blockIdx.x;
    const int64_t blocks = ((int64_t)chosen[choice] * ffn + col) * row_bytes;
    x += choice / top_k * hidden;
    float gated = 0.0f, raised = 0.0f;
    for (int k = lane; k < hidden; k += WARP) {
        gated += element(type, gate + blocks, k, block_elements, block_bytes) * x[k];
        raised += element(type, up + blocks, k, block_elements, block_bytes) * x[k];
    }
    gated = warp_sum(gated);
    raised = warp_sum(raised);
    if (lane == 0) activated[choice * ffn + col] = silu(gated) * raised;
}

// out[row][col] = sum over k of weights[row][k] * (down_e · activated[row][k]), in the order of k;
// a warp a column, blockIdx.x is the row.
KERNEL void moe_down(const uint8_t* __restrict__ down, int type, int block_elements,
                     int block_bytes, int64_t row_bytes, int hidden, int ffn, int top_k,
                     const int* __restrict__ chosen, const float* __restrict__ weights,
                     const float* __restrict__ activated, float* __restrict__ out) {
    wait_for_predecessors();
    const int lane = threadIdx.x % WARP;
    const int col = blockIdx.y * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (col >= hidden) return;
    const int64_t row = blockIdx.x;
    float total = 0.0f;
    for (int at = 0; at < top_k; at++) {
        const int64_t choice = row * top_k + at;
        const uint8_t* blocks = down + ((int64_t)chosen[choice] * hidden + col) * row_bytes;
        const float* x = activated + choice * ffn;
        float sum = 0.0f;
        for (int k = lane; k < ffn; k += WARP) {
            sum += element(type, blocks, k, block_elements, block_bytes) * x[k];
        }
        total += weights[choice] * warp_sum(sum);
    }
    if (lane == 0) out[row * hidden + col] = total;
}

// out += sigmoid(gate[row]) * shared
KERNEL void moe_add_shared(const float* __restrict__ gate, const float* __restrict__ shared,
                           int hidden, int64_t items, float* __restrict__ out) {
    wait_for_predecessors();
    const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < items) out[at] += sigmoid(gate[at / hidden]) * shared[at];
}
