// A delta-rule layer between its projections, token by token: convolution and SiLU, norms of
// queries and keys, gates, the recurrence and the gated norm, in one launch. For decode, and for
// steps with few tokens a sequence.
//
// One block a sequence and value head. Eight lanes share a row of the state [value][key], so a warp
// reads four rows at once, and it owns two such groups. The state stays in registers from the first
// token to the last.

#include "common.cuh"

namespace {

constexpr int TAPS = 4;
constexpr int LANES = 8;   // lanes that share a row
constexpr int GROUPS = 2;  // groups of rows that a warp owns
constexpr int WARP_ROWS = GROUPS * WARP / LANES;

// log(1 + exp(x)); above 20 that is x in single precision, and exp would overflow later.
__device__ __forceinline__ float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

__device__ __forceinline__ float row_sum(float value) {
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, offset);
    }
    return value;
}

__device__ __forceinline__ float dot(float4 a, float4 b) {
    return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}

// What the kernels take; see `cuda.rs`. State and ring are `[slot]`s of `[value_head][value][key]`
// and `[position % 4][channel]`.
struct Layer {
    const float* projected;
    int64_t cols;
    const float *taps, *decay, *dt_bias, *norm;
    float eps;
    float *ring, *memory, *out;
    const int *first_rows, *row_counts, *starts, *slots;
    int key_heads, value_heads, tiled, most_rows;
};

// One channel's convolution: its weights, and the inputs before the present one, newest first.
struct Channel {
    float taps[TAPS];
    float past[TAPS - 1];

    __device__ __forceinline__ float next(float input) {
        const float sum = (taps[3] * input + taps[0] * past[2]) +
                          (taps[1] * past[1] + taps[2] * past[0]);
        past[2] = past[1];
        past[1] = past[0];
        past[0] = input;
        return silu(sum);
    }
};

// What a thread reads of a row of the projection.
template <int OWN>
struct Inputs {
    float mixed[OWN];  // its channels, before the convolution
    float b, a, z;
};

// `ONE`: only sequences with one row, which takes fewer registers.
template <int DIM, bool ONE>
__device__ __forceinline__ void recurrent(const Layer& layer) {
    constexpr int THREADS = DIM / WARP_ROWS * WARP;
    constexpr int CHANNELS = 3 * DIM;                           // of q, k and v
    constexpr int OWN = (CHANNELS + THREADS - 1) / THREADS;     // channels of a thread
    constexpr int PARTS = DIM / WARP;                           // float4 of a row that a lane holds
    __shared__ __align__(16) float mixed[CHANNELS];             // after convolution and SiLU
    __shared__ float read_out[DIM];

    let_successors_start();
    const int head = blockIdx.x, sequence = blockIdx.y;
    const int thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
    const int slot = layer.slots[sequence], rows = layer.row_counts[sequence];
    if (slot < 0 || rows == 0 || rows > (ONE ? 1 : layer.most_rows)) {
        wait_for_predecessors();
        return;
    }
    const int start = layer.starts[sequence], heads = layer.value_heads;
    const int ratio = heads / layer.key_heads;
    const int key_head = layer.tiled ? head % layer.key_heads : head / ratio;
    const int channels = (2 * layer.key_heads + heads) * DIM;

    // State and ring were last written in an earlier step, and every step begins with a copy that
    // no kernel overtakes: no need to wait.
    const int part = lane % LANES;
    int values[GROUPS];
    float4 state[GROUPS][PARTS];
    float4* const own_state =
        (float4*)(layer.memory + ((int64_t)slot * heads + head) * DIM * DIM) + part;
#pragma unroll
    for (int group = 0; group < GROUPS; group++) {
        values[group] = warp * WARP_ROWS + group * (WARP / LANES) + lane / LANES;
#pragma unroll
        for (int at = 0; at < PARTS; at++) {
            const float4* from = own_state + values[group] * (DIM / 4) + at * LANES;
            state[group][at] = start == 0 ? make_float4(0.0f, 0.0f, 0.0f, 0.0f) : __ldcs(from);
        }
    }
    float* const ring = layer.ring + (int64_t)slot * TAPS * channels;
    Channel own[OWN];
    int columns[OWN];
#pragma unroll
    for (int at = 0; at < OWN; at++) {
        const int local = thread + at * THREADS;
        if (local >= CHANNELS) continue;
        const int of_head = local < DIM       ? key_head
                            : local < 2 * DIM ? layer.key_heads + key_head
                                              : 2 * layer.key_heads + head;
        columns[at] = of_head * DIM + local % DIM;
#pragma unroll
        for (int tap = 0; tap < TAPS; tap++) {
            own[at].taps[tap] = layer.taps[tap * channels + columns[at]];
        }
#pragma unroll
        for (int lag = 1; lag < TAPS; lag++) {
            const int position = start - lag;
            own[at].past[lag - 1] =
                position < 0 ? 0.0f : ring[(position % TAPS) * channels + columns[at]];
        }
    }
    const float decay = layer.decay[head], dt_bias = layer.dt_bias[head];
    const float weight = layer.norm[thread % DIM];
    const int64_t first_row = layer.first_rows[sequence];
    const float* row = layer.projected + first_row * layer.cols;
    auto read_row = [&](Inputs<OWN>& to) {
        const float* gates = row + channels + heads * DIM + head;
        to.b = gates[0];
        to.a = gates[heads];
        to.z = row[channels + head * DIM + thread % DIM];
#pragma unroll
        for (int at = 0; at < OWN; at++) {
            if (thread + at * THREADS < CHANNELS) to.mixed[at] = row[columns[at]];
        }
    };
    wait_for_predecessors();

    Inputs<OWN> next;
    read_row(next);
    for (int token = 0; token < (ONE ? 1 : rows); token++) {
        const Inputs<OWN> inputs = next;
        if (!ONE && token + 1 < rows) {
            row += layer.cols;
            read_row(next);
        }
        const float beta = sigmoid(inputs.b);
        const float keep = expf(decay * softplus(inputs.a + dt_bias));
#pragma unroll
        for (int at = 0; at < OWN; at++) {
            const int local = thread + at * THREADS;
            if (local >= CHANNELS) continue;
            mixed[local] = own[at].next(inputs.mixed[at]);
            // No block reads this row of the ring now. With more tokens some would, so the inputs
            // are kept by a launch behind this one.
            const bool first = layer.tiled ? head < layer.key_heads : head % ratio == 0;
            if ((ONE || rows == 1) && (local >= 2 * DIM || first)) {
                ring[(start % TAPS) * channels + columns[at]] = inputs.mixed[at];
            }
        }
        __syncthreads();

        // One pass over the old state serves both reads: with S = keep S_old + u kᵀ,
        // S q = keep (S_old q) + u (k·q).
        float kk = 0.0f, qq = 0.0f, kq = 0.0f, from_k[GROUPS] = {}, from_q[GROUPS] = {};
#pragma unroll
        for (int at = 0; at < PARTS; at++) {
            const float4 q = *(const float4*)&mixed[at * WARP + part * 4];
            const float4 k = *(const float4*)&mixed[DIM + at * WARP + part * 4];
            kk += dot(k, k);
            qq += dot(q, q);
            kq += dot(k, q);
#pragma unroll
            for (int group = 0; group < GROUPS; group++) {
                from_k[group] += dot(state[group][at], k);
                from_q[group] += dot(state[group][at], q);
            }
        }
        const float k_scale = rsqrtf(row_sum(kk) + 1e-6f);
        const float q_scale = rsqrtf((row_sum(qq) + 1e-6f) * DIM);
        kq = row_sum(kq) * k_scale * q_scale;
        float write[GROUPS];
#pragma unroll
        for (int group = 0; group < GROUPS; group++) {
            const float read = keep * k_scale * row_sum(from_k[group]);
            const float u = beta * (mixed[2 * DIM + values[group]] - read);
            const float o = keep * q_scale * row_sum(from_q[group]) + u * kq;
            write[group] = u * k_scale;
            if (part == 0) read_out[values[group]] = o;
        }
#pragma unroll
        for (int at = 0; at < PARTS; at++) {
            const float4 k = *(const float4*)&mixed[DIM + at * WARP + part * 4];
#pragma unroll
            for (int group = 0; group < GROUPS; group++) {
                float4& s = state[group][at];
                s.x = keep * s.x + write[group] * k.x;
                s.y = keep * s.y + write[group] * k.y;
                s.z = keep * s.z + write[group] * k.z;
                s.w = keep * s.w + write[group] * k.w;
                if (ONE || token == rows - 1) {
                    __stcs(own_state + values[group] * (DIM / 4) + at * LANES, s);
                }
            }
        }
        __syncthreads();

        if (thread < DIM) {
            float squares = 0.0f;
#pragma unroll
            for (int at = 0; at < PARTS; at++) {
                const float o = read_out[at * WARP + lane];
                squares += warp_sum(o * o);
            }
            const float y = read_out[thread] * rsqrtf(squares / DIM + layer.eps) * weight;
            layer.out[((first_row + token) * heads + head) * DIM + thread] = y * silu(inputs.z);
        }
    }
}

}  // namespace

// Grid: value heads, sequences.
#define RECURRENT(NAME, DIM, ONE, BLOCKS)                                                          \
    KERNEL void __launch_bounds__(DIM / WARP_ROWS * WARP, BLOCKS) NAME(                            \
        const float* projected, int64_t cols, const float* taps, const float* decay,               \
        const float* dt_bias, const float* norm, float eps, float* ring, float* memory,            \
        float* out, const int* first_rows, const int* row_counts, const int* starts,               \
        const int* slots, int key_heads, int value_heads, int tiled, int most_rows) {              \
        recurrent<DIM, ONE>({projected, cols, taps, decay, dt_bias, norm, eps, ring, memory, out,  \
                             first_rows, row_counts, starts, slots, key_heads, value_heads, tiled, \
                             most_rows});                                                          \
    }

RECURRENT(delta_recurrent_32, 32, false, 1)
RECURRENT(delta_recurrent_64, 64, false, 1)
RECURRENT(delta_recurrent_128, 128, false, 1)
// Two blocks a multiprocessor: one's state comes while the other's is worked on.
RECURRENT(delta_decode_128, 128, true, 2)
