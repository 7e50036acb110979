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

// A block's work: one head of one sequence.
template <int DIM>
struct Head {
    static constexpr int THREADS = DIM / WARP_ROWS * WARP;
    static constexpr int CHANNELS = 3 * DIM;                        // of q, k and v
    static constexpr int OWN = (CHANNELS + THREADS - 1) / THREADS;  // channels of a thread
    static constexpr int PARTS = DIM / WARP;                        // float4 of a row in a lane

    int head, key_head, heads, start, channels;
    bool first_of_key_head;
    float* ring;
    float4* state;  // from a lane's first part of the first row on

    __device__ __forceinline__ Head(const Layer& layer, int sequence, int slot)
        : head(blockIdx.x), heads(layer.value_heads), start(layer.starts[sequence]) {
        const int ratio = heads / layer.key_heads;
        key_head = layer.tiled ? head % layer.key_heads : head / ratio;
        first_of_key_head = layer.tiled ? head < layer.key_heads : head % ratio == 0;
        channels = (2 * layer.key_heads + heads) * DIM;
        ring = layer.ring + (int64_t)slot * TAPS * channels;
        state = (float4*)(layer.memory + ((int64_t)slot * heads + head) * DIM * DIM) +
                threadIdx.x % LANES;
    }

    // The value whose row a lane holds in a group.
    static __device__ __forceinline__ int value(int group) {
        return threadIdx.x / WARP * WARP_ROWS + group * (WARP / LANES) + threadIdx.x % WARP / LANES;
    }

    __device__ __forceinline__ float4* part(int group, int at) const {
        return state + value(group) * (DIM / 4) + at * LANES;
    }

    __device__ __forceinline__ void load_state(float4 (&to)[GROUPS][PARTS]) const {
#pragma unroll
        for (int group = 0; group < GROUPS; group++) {
#pragma unroll
            for (int at = 0; at < PARTS; at++) {
                to[group][at] =
                    start == 0 ? make_float4(0.0f, 0.0f, 0.0f, 0.0f) : *part(group, at);
            }
        }
    }

    __device__ __forceinline__ void store_state(const float4 (&from)[GROUPS][PARTS]) const {
#pragma unroll
        for (int group = 0; group < GROUPS; group++) {
#pragma unroll
            for (int at = 0; at < PARTS; at++) *part(group, at) = from[group][at];
        }
    }

    // The column of one of the head's channels, of which q comes first, then k, then v.
    __device__ __forceinline__ int column(const Layer& layer, int local) const {
        const int of_head = local < DIM       ? key_head
                            : local < 2 * DIM ? layer.key_heads + key_head
                                              : 2 * layer.key_heads + head;
        return of_head * DIM + local % DIM;
    }

    __device__ __forceinline__ void load_channel(Channel& to, const Layer& layer,
                                                 int column) const {
#pragma unroll
        for (int tap = 0; tap < TAPS; tap++) to.taps[tap] = layer.taps[tap * channels + column];
#pragma unroll
        for (int lag = 1; lag < TAPS; lag++) {
            const int position = start - lag;
            to.past[lag - 1] = position < 0 ? 0.0f : ring[position % TAPS * channels + column];
        }
    }

    __device__ __forceinline__ void read_row(Inputs<OWN>& to, const float* row,
                                             const int (&columns)[OWN]) const {
        const float* gates = row + channels + heads * DIM + head;
        to.b = gates[0];
        to.a = gates[heads];
        to.z = row[channels + head * DIM + threadIdx.x % DIM];
#pragma unroll
        for (int at = 0; at < OWN; at++) {
            if (threadIdx.x + at * THREADS < CHANNELS) to.mixed[at] = row[columns[at]];
        }
    }
};

// One token: `mixed` is q, k and v; `state` becomes the next one, and `read_out` what q reads of
// it.
template <int DIM>
__device__ __forceinline__ void update(float4 (&state)[GROUPS][DIM / WARP], const float* mixed,
                                       float beta, float keep, float* read_out) {
    const int part = threadIdx.x % LANES;
    // One pass over the old state serves both reads: with S = keep S_old + u kᵀ,
    // S q = keep (S_old q) + u (k·q).
    float kk = 0.0f, qq = 0.0f, kq = 0.0f, from_k[GROUPS] = {}, from_q[GROUPS] = {};
#pragma unroll
    for (int at = 0; at < DIM / WARP; at++) {
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
        const int value = Head<DIM>::value(group);
        const float read = keep * k_scale * row_sum(from_k[group]);
        const float u = beta * (mixed[2 * DIM + value] - read);
        const float o = keep * q_scale * row_sum(from_q[group]) + u * kq;
        write[group] = u * k_scale;
        if (part == 0) read_out[value] = o;
    }
#pragma unroll
    for (int at = 0; at < DIM / WARP; at++) {
        const float4 k = *(const float4*)&mixed[DIM + at * WARP + part * 4];
#pragma unroll
        for (int group = 0; group < GROUPS; group++) {
            float4& s = state[group][at];
            s.x = keep * s.x + write[group] * k.x;
            s.y = keep * s.y + write[group] * k.y;
            s.z = keep * s.z + write[group] * k.z;
            s.w = keep * s.w + write[group] * k.w;
        }
    }
}

// Of the first DIM threads, each its value of the gated norm.
template <int DIM>
__device__ __forceinline__ float normed(const float* read_out, float eps) {
    float squares = 0.0f;
#pragma unroll
    for (int at = 0; at < DIM / WARP; at++) {
        const float o = read_out[at * WARP + threadIdx.x % WARP];
        squares += warp_sum(o * o);
    }
    return read_out[threadIdx.x] * rsqrtf(squares / DIM + eps);
}

// `ONE`: only sequences with one row, which takes fewer registers.
template <int DIM, bool ONE>
__device__ __forceinline__ void recurrent(const Layer& layer) {
    using Head = Head<DIM>;
    __shared__ __align__(16) float mixed[Head::CHANNELS];  // after convolution and SiLU
    __shared__ float read_out[DIM];
    let_successors_start();
    const int sequence = blockIdx.y, thread = threadIdx.x;
    const int slot = layer.slots[sequence], rows = layer.row_counts[sequence];
    if (slot < 0 || rows == 0 || rows > (ONE ? 1 : layer.most_rows)) {
        wait_for_predecessors();
        return;
    }

    // State and ring were last written in an earlier step, and every step begins with a copy that
    // no kernel overtakes: no need to wait.
    const Head head(layer, sequence, slot);
    float4 state[GROUPS][Head::PARTS];
    head.load_state(state);
    Channel own[Head::OWN];
    int columns[Head::OWN];
#pragma unroll
    for (int at = 0; at < Head::OWN; at++) {
        const int local = thread + at * Head::THREADS;
        if (local >= Head::CHANNELS) continue;
        columns[at] = head.column(layer, local);
        head.load_channel(own[at], layer, columns[at]);
    }
    const float decay = layer.decay[head.head], dt_bias = layer.dt_bias[head.head];
    const float weight = layer.norm[thread % DIM];
    const int64_t first_row = layer.first_rows[sequence];
    const float* row = layer.projected + first_row * layer.cols;
    wait_for_predecessors();

    Inputs<Head::OWN> next;
    head.read_row(next, row, columns);
    for (int token = 0; token < (ONE ? 1 : rows); token++) {
        const Inputs<Head::OWN> inputs = next;
        if (!ONE && token + 1 < rows) {
            row += layer.cols;
            head.read_row(next, row, columns);
        }
#pragma unroll
        for (int at = 0; at < Head::OWN; at++) {
            const int local = thread + at * Head::THREADS;
            if (local >= Head::CHANNELS) continue;
            mixed[local] = own[at].next(inputs.mixed[at]);
            // No block reads this row of the ring now. With more tokens some would, so the inputs
            // are kept by a launch behind this one.
            if ((ONE || rows == 1) && (local >= 2 * DIM || head.first_of_key_head)) {
                head.ring[head.start % TAPS * head.channels + columns[at]] = inputs.mixed[at];
            }
        }
        __syncthreads();
        const float keep = expf(decay * softplus(inputs.a + dt_bias));
        update<DIM>(state, mixed, sigmoid(inputs.b), keep, read_out);
        if (ONE || token == rows - 1) head.store_state(state);
        __syncthreads();
        if (thread < DIM) {
            const float y = normed<DIM>(read_out, layer.eps) * weight * silu(inputs.z);
            layer.out[((first_row + token) * head.heads + head.head) * DIM + thread] = y;
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
