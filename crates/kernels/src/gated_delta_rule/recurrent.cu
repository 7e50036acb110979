// A delta-rule layer between its projections, token by token: convolution and SiLU, norms of
// queries and keys, gates, the recurrence and the gated norm, in one launch. For decode, and for
// steps with few tokens a sequence.
//
// One cluster of SPLIT blocks a sequence and value head; a block owns DIM / SPLIT values, that is,
// rows of the state [value][key]. Eight lanes share a row, so a warp reads four rows at once, and it
// owns GROUPS times four. The state stays in registers from the first token to the last.
//
// Every sum is taken in the same order whatever SPLIT is, so that the bits of a sequence's result
// do not depend on how many others are in the step.

#include "common.cuh"

namespace {

constexpr int TAPS = 4;
constexpr int LANES = 8;              // lanes that share a row

// log(1 + exp(x)); above 20 that is x in single precision, and exp would overflow later.
__device__ __forceinline__ float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

__device__ __forceinline__ float row_sum(float value) {
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, offset);
    }
    return value;
}

__device__ __forceinline__ void cluster_barrier() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// Writes a float to the same place of block `rank` of the cluster.
__device__ __forceinline__ void put_in_block(float* place, int rank, float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    const uint32_t here = (uint32_t)__cvta_generic_to_shared(place);
    uint32_t there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(there), "f"(value) : "memory");
#endif
}

// One channel's convolution: its weights, and the inputs before the present one, newest first.
struct Channel {
    float taps[TAPS];
    float past[TAPS - 1];
};

// What a thread reads of a row of the projection.
template <int OWN>
struct Inputs {
    float mixed[OWN];  // its channels, before the convolution
    float b, a, z;
};

// `ONE`: only sequences with one row, which takes fewer registers.
template <int DIM, int SPLIT, int GROUPS, bool ONE>
__device__ __forceinline__ void recurrent(
    const float* __restrict__ projected, int64_t cols, const float* __restrict__ taps,
    const float* __restrict__ decay, const float* __restrict__ dt_bias,
    const float* __restrict__ norm, float eps, float* __restrict__ ring,
    float* __restrict__ memory, float* __restrict__ out, const int* __restrict__ first_rows,
    const int* __restrict__ row_counts, const int* __restrict__ starts,
    const int* __restrict__ slots, int key_heads, int value_heads, int tiled, int most_rows) {
    constexpr int WARP_ROWS = GROUPS * WARP / LANES;
    constexpr int VALUES = DIM / SPLIT;                    // rows of the state in this block
    constexpr int THREADS = VALUES / WARP_ROWS * WARP;
    constexpr int CHANNELS = 2 * DIM + VALUES;             // convolved here: q, k and own values
    constexpr int OWN = (CHANNELS + THREADS - 1) / THREADS;
    constexpr int PARTS = DIM / WARP;                      // float4 of a row that a lane holds
    constexpr int SUMS = VALUES / WARP;                    // partial sums of squares in this block
    static_assert(VALUES % WARP == 0, "the norm sums over whole warps");
    __shared__ __align__(16) float mixed[CHANNELS];        // q, k, v after convolution and SiLU
    __shared__ float read_out[VALUES];
    __shared__ float squares[2][DIM / WARP];               // of all blocks, by parity of the token

    const int rank = blockIdx.x, head = blockIdx.y, sequence = blockIdx.z;
    const int thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
    const int slot = slots[sequence], rows = row_counts[sequence], start = starts[sequence];
    if (slot < 0 || rows == 0 || rows > (ONE ? 1 : most_rows)) {
        wait_for_predecessors();
        let_successors_start();
        return;
    }
    const int ratio = value_heads / key_heads;
    const int key_head = tiled ? head % key_heads : head / ratio;
    const bool first_of_key_head = tiled ? head < key_heads : head % ratio == 0;
    const int channels = (2 * key_heads + value_heads) * DIM;

    // State and inputs of earlier steps were written before this step began: no need to wait.
    float* own_state = memory + ((int64_t)slot * value_heads + head) * DIM * DIM;
    const int part = lane % LANES;
    int value_rows[GROUPS];
    float4 state[GROUPS][PARTS];
#pragma unroll
    for (int group = 0; group < GROUPS; group++) {
        value_rows[group] = warp * WARP_ROWS + group * (WARP / LANES) + lane / LANES;
        const float* row = own_state + (rank * VALUES + value_rows[group]) * DIM + part * 4;
#pragma unroll
        for (int at = 0; at < PARTS; at++) {
            state[group][at] = start == 0 ? make_float4(0.0f, 0.0f, 0.0f, 0.0f)
                                          : __ldcs((const float4*)(row + at * WARP));
        }
    }
    float* own_ring = ring + (int64_t)slot * TAPS * channels;
    Channel own[OWN];
    int columns[OWN];
#pragma unroll
    for (int at = 0; at < OWN; at++) {
        const int local = thread + at * THREADS;
        if (local >= CHANNELS) continue;
        const int which = local / DIM;
        columns[at] = which == 0   ? key_head * DIM + local
                      : which == 1 ? (key_heads + key_head) * DIM + local - DIM
                                   : (2 * key_heads + head) * DIM + rank * VALUES + local - 2 * DIM;
#pragma unroll
        for (int tap = 0; tap < TAPS; tap++) {
            own[at].taps[tap] = taps[tap * channels + columns[at]];
        }
#pragma unroll
        for (int lag = 1; lag < TAPS; lag++) {
            const int position = start - lag;
            own[at].past[lag - 1] =
                position < 0 ? 0.0f : own_ring[(position % TAPS) * channels + columns[at]];
        }
    }
    const float own_decay = decay[head], own_bias = dt_bias[head];
    const float weight = norm[rank * VALUES + thread % VALUES];
    const int64_t first_row = first_rows[sequence];
    const float* row = projected + first_row * cols;
    auto read_row = [&](Inputs<OWN>& to) {
        const float* gates = row + channels + value_heads * DIM + head;
        to.b = gates[0];
        to.a = gates[value_heads];
        to.z = row[channels + head * DIM + rank * VALUES + thread % VALUES];
#pragma unroll
        for (int at = 0; at < OWN; at++) {
            if (thread + at * THREADS < CHANNELS) to.mixed[at] = row[columns[at]];
        }
    };
    wait_for_predecessors();
    let_successors_start();

    Inputs<OWN> next;
    read_row(next);
    for (int token = 0; token < (ONE ? 1 : rows); token++) {
        const Inputs<OWN> inputs = next;
        if (!ONE && token + 1 < rows) {
            row += cols;
            read_row(next);
        }
        const float beta = sigmoid(inputs.b);
        const float keep = expf(own_decay * softplus(inputs.a + own_bias));
#pragma unroll
        for (int at = 0; at < OWN; at++) {
            const int local = thread + at * THREADS;
            if (local >= CHANNELS) continue;
            Channel& channel = own[at];
            const float input = inputs.mixed[at];
            const float sum =
                (channel.taps[3] * input + channel.taps[0] * channel.past[2]) +
                (channel.taps[1] * channel.past[1] + channel.taps[2] * channel.past[0]);
            mixed[local] = silu(sum);
            channel.past[2] = channel.past[1];
            channel.past[1] = channel.past[0];
            channel.past[0] = input;
            // No block reads this row of the ring now. With more tokens some would, so the inputs
            // are kept by a launch behind this one.
            const bool keeps = local >= 2 * DIM || (rank == 0 && first_of_key_head);
            if ((ONE || rows == 1) && keeps) own_ring[(start % TAPS) * channels + columns[at]] = input;
        }
        __syncthreads();

        // One pass over the old state serves both reads: with S = keep S_old + u kᵀ,
        // S q = keep (S_old q) + u (k·q).
        float kk = 0.0f, qq = 0.0f, kq = 0.0f, from_k[GROUPS] = {}, from_q[GROUPS] = {};
#pragma unroll
        for (int at = 0; at < PARTS; at++) {
            const float4 q = *(const float4*)&mixed[at * WARP + part * 4];
            const float4 k = *(const float4*)&mixed[DIM + at * WARP + part * 4];
            kk += k.x * k.x + k.y * k.y + k.z * k.z + k.w * k.w;
            qq += q.x * q.x + q.y * q.y + q.z * q.z + q.w * q.w;
            kq += k.x * q.x + k.y * q.y + k.z * q.z + k.w * q.w;
#pragma unroll
            for (int group = 0; group < GROUPS; group++) {
                const float4 s = state[group][at];
                from_k[group] += s.x * k.x + s.y * k.y + s.z * k.z + s.w * k.w;
                from_q[group] += s.x * q.x + s.y * q.y + s.z * q.z + s.w * q.w;
            }
        }
        kk = row_sum(kk);
        qq = row_sum(qq);
        kq = row_sum(kq);
        const float k_scale = 1.0f / sqrtf(kk + 1e-6f);
        const float q_scale = 1.0f / sqrtf((qq + 1e-6f) * DIM);
        float write[GROUPS];
#pragma unroll
        for (int group = 0; group < GROUPS; group++) {
            const float v = mixed[2 * DIM + value_rows[group]];
            const float read = keep * k_scale * row_sum(from_k[group]);
            const float u = beta * (v - read);
            const float o =
                keep * q_scale * row_sum(from_q[group]) + u * (kq * k_scale * q_scale);
            write[group] = u * k_scale;
            if (part == 0) read_out[value_rows[group]] = o;
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
            }
        }
        if (ONE || token == rows - 1) {
#pragma unroll
            for (int group = 0; group < GROUPS; group++) {
                float* to = own_state + (rank * VALUES + value_rows[group]) * DIM + part * 4;
#pragma unroll
                for (int at = 0; at < PARTS; at++) {
                    __stcs((float4*)(to + at * WARP), state[group][at]);
                }
            }
        }
        __syncthreads();

        float total = 0.0f;
        if (SPLIT == 1) {
            if (thread < VALUES) {
#pragma unroll
                for (int sum = 0; sum < SUMS; sum++) {
                    const float o = read_out[sum * WARP + lane];
                    total += warp_sum(o * o);
                }
            }
        } else {
            if (thread < VALUES) {
                const float o = read_out[thread];
                const float sum = warp_sum(o * o);
                if (lane < SPLIT) put_in_block(&squares[token % 2][rank * SUMS + warp], lane, sum);
            }
            cluster_barrier();
            if (thread < VALUES) {
#pragma unroll
                for (int sum = 0; sum < DIM / WARP; sum++) total += squares[token % 2][sum];
            }
        }
        if (thread < VALUES) {
            const int value = rank * VALUES + thread;
            const float y = read_out[thread] / sqrtf(total / DIM + eps) * weight;
            out[((first_row + token) * value_heads + head) * DIM + value] = y * silu(inputs.z);
        }
    }
}

}  // namespace

#define RECURRENT(NAME, DIM, SPLIT, GROUPS, ONE, BLOCKS)                                           \
    KERNEL void __launch_bounds__(DIM / SPLIT * LANES / GROUPS, BLOCKS) NAME(                      \
        const float* projected, int64_t cols, const float* taps, const float* decay,               \
        const float* dt_bias, const float* norm, float eps, float* ring, float* memory,            \
        float* out, const int* first_rows, const int* row_counts, const int* starts,               \
        const int* slots, int key_heads, int value_heads, int tiled, int most_rows) {              \
        recurrent<DIM, SPLIT, GROUPS, ONE>(projected, cols, taps, decay, dt_bias, norm, eps, ring, \
                                           memory, out, first_rows, row_counts, starts, slots,     \
                                           key_heads, value_heads, tiled, most_rows);              \
    }

RECURRENT(delta_recurrent_32_by_1, 32, 1, 2, false, 1)
RECURRENT(delta_recurrent_64_by_1, 64, 1, 2, false, 1)
RECURRENT(delta_recurrent_128_by_1, 128, 1, 2, false, 1)
RECURRENT(delta_recurrent_128_by_2, 128, 2, 2, false, 1)
RECURRENT(delta_recurrent_128_by_4, 128, 4, 2, false, 1)
RECURRENT(delta_decode_by_1, 128, 1, 2, true, 2)
RECURRENT(delta_decode_by_2, 128, 2, 2, true, 4)
RECURRENT(delta_decode_by_4, 128, 4, 2, true, 8)
#ifdef VARIANTS
RECURRENT(v_g4b2, 128, 1, 4, true, 2)
RECURRENT(v_g4b3, 128, 1, 4, true, 3)
RECURRENT(v_g2b1, 128, 1, 2, true, 1)
RECURRENT(v_g8b3, 128, 1, 8, true, 3)
RECURRENT(v_s2g4, 128, 2, 4, true, 4)
RECURRENT(v_s4b4, 128, 4, 2, true, 4)
#endif
