#include "common.cuh"

// Chooses tokens from logits, as `choose` does on the CPU. All rows at once; each row's ids are cut
// into SPLITS runs, so that one row keeps many multiprocessors busy.
//
//   sample_adjust   bias, penalties, bans and the mask, in place
//   sample_scan     the largest logit of each run, and whether all are sound
//   sample_measure  how many ids, and how much weight, lie above each of some levels
//   sample_gather   the ids above the lowest level that must be looked at
//   sample_pick     sorts those and draws
//
// What depends on an order is computed in a fixed one: the same logits give the same token.

constexpr int SPLITS = 32;
constexpr int LEVELS = 9;
constexpr int MOST = 8192;
constexpr int THREADS = 256;

// Distances below the largest logit, in units of the temperature; the last one takes in all.
static __device__ const float DISTANCES[LEVELS] = {2, 4, 6, 8, 12, 16, 24, 40, INFINITY};

// How one row's token is chosen; the host writes the same words.
struct Row {
    double draw;
    float temperature, top_p, min_p;
    uint32_t top_k;
    // Entries of `lists`, two words each: bias, seen, generated, banned, one after the other.
    uint32_t first, bias_end, seen_end, generated_end, banned_end;
    // Words of the mask, if there is one.
    uint32_t mask, mask_words;
    float repetition;
};

// What the host reads: a token, or one of these.
constexpr int NOTHING = -1;
constexpr int UNDECIDED = -2;

struct Scan {
    float highest;
    int id;
    int broken;
};

struct Measure {
    double mass[LEVELS];
    uint32_t count[LEVELS];
};

__device__ __forceinline__ bool is_greedy(const Row& row) { return row.temperature <= 0.0f; }

__device__ __forceinline__ bool cuts_nothing(const Row& row) {
    return row.top_k == 0 && row.top_p >= 1.0f && row.min_p <= 0.0f;
}

__device__ __forceinline__ float weight_of(float logit, float highest, float temperature) {
    return expf((logit - highest) / temperature);
}

// One block a row. Ids occur once in each list.
KERNEL void sample_adjust(const Row* __restrict__ rows, const uint32_t* __restrict__ lists,
                          float* __restrict__ logits, int cols, int vocab) {
    wait_for_predecessors();
    const Row row = rows[blockIdx.x];
    logits += (int64_t)blockIdx.x * cols;
    const uint32_t ends[4] = {row.bias_end, row.seen_end, row.generated_end, row.banned_end};
    uint32_t begin = row.first;
    for (int list = 0; list < 4; list++) {
        for (uint32_t at = begin + threadIdx.x; at < ends[list]; at += blockDim.x) {
            const uint32_t id = lists[2 * at];
            const float value = __uint_as_float(lists[2 * at + 1]);
            if (id >= vocab) continue;
            float logit = logits[id];
            if (list == 0) logit += value;
            if (list == 1) {
                logit = logit > 0.0f ? __fdiv_rn(logit, row.repetition) : logit * row.repetition;
            }
            if (list == 2) logit -= value;
            if (list == 3) logit = -INFINITY;
            logits[id] = logit;
        }
        begin = ends[list];
        __syncthreads();
    }
    if (row.mask_words == 0) return;
    const uint32_t* mask = lists + row.mask;
    for (int id = threadIdx.x; id < vocab; id += blockDim.x) {
        const uint32_t word = id / 32 < row.mask_words ? mask[id / 32] : 0;
        if (!(word >> (id % 32) & 1)) logits[id] = -INFINITY;
    }
}

// The ids of this block's run.
__device__ __forceinline__ void run_of(int vocab, int split, int* begin, int* end) {
    const int size = (vocab + SPLITS - 1) / SPLITS;
    *begin = min(split * size, vocab);
    *end = min(*begin + size, vocab);
}

// Grid [SPLITS, rows]. With `again`, what was broken before stays so.
KERNEL void sample_scan(const float* __restrict__ logits, int cols, int vocab, int again,
                        Scan* __restrict__ scans, uint32_t* __restrict__ found) {
    __shared__ Scan shared[THREADS / WARP];
    wait_for_predecessors();
    logits += (int64_t)blockIdx.y * cols;
    Scan* out = scans + blockIdx.y * SPLITS + blockIdx.x;
    int begin, end;
    run_of(vocab, blockIdx.x, &begin, &end);
    Scan best = {-INFINITY, 0x7fffffff, 0};
    constexpr int TOGETHER = 8;
    for (int first = begin + threadIdx.x; first < end; first += TOGETHER * THREADS) {
        // All are asked for before any is looked at.
        float logit[TOGETHER];
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            const int id = first + i * THREADS;
            logit[i] = id < end ? logits[id] : -INFINITY;
        }
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            if (isnan(logit[i]) || logit[i] == INFINITY) best.broken = 1;
            if (logit[i] > best.highest) best.highest = logit[i], best.id = first + i * THREADS;
        }
    }
    auto merge = [](Scan a, Scan b) {
        const bool other = b.highest > a.highest || (b.highest == a.highest && b.id < a.id);
        Scan both = other ? b : a;
        both.broken = a.broken | b.broken;
        return both;
    };
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        const Scan other = {__shfl_xor_sync(0xffffffffu, best.highest, offset),
                            __shfl_xor_sync(0xffffffffu, best.id, offset),
                            __shfl_xor_sync(0xffffffffu, best.broken, offset)};
        best = merge(best, other);
    }
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = best;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int warp = 1; warp < THREADS / WARP; warp++) best = merge(best, shared[warp]);
    if (again) best.broken |= out->broken;
    *out = best;
    if (blockIdx.x == 0) found[blockIdx.y] = 0;
}

__device__ __forceinline__ Scan whole_scan(const Scan* scans, int row) {
    Scan best = scans[row * SPLITS];
    for (int split = 1; split < SPLITS; split++) {
        const Scan other = scans[row * SPLITS + split];
        // Runs are in the order of ids, so the first of equals is the lowest.
        const int broken = best.broken | other.broken;
        if (other.highest > best.highest) best = other;
        best.broken = broken;
    }
    return best;
}

// Grid [SPLITS, rows].
KERNEL void sample_measure(const Row* __restrict__ rows, const float* __restrict__ logits, int cols,
                           int vocab, const Scan* __restrict__ scans,
                           Measure* __restrict__ measures) {
    __shared__ Measure shared[THREADS / WARP];
    wait_for_predecessors();
    const Row row = rows[blockIdx.y];
    const Scan best = whole_scan(scans, blockIdx.y);
    if (is_greedy(row) || best.broken || best.highest == -INFINITY) return;
    logits += (int64_t)blockIdx.y * cols;
    int begin, end;
    run_of(vocab, blockIdx.x, &begin, &end);
    double mass[LEVELS] = {};
    uint32_t count[LEVELS] = {};
    for (int id = begin + threadIdx.x; id < end; id += blockDim.x) {
        const float distance = (best.highest - logits[id]) / row.temperature;
        const float weight = weight_of(logits[id], best.highest, row.temperature);
        if (!(weight > 0.0f)) continue;
#pragma unroll
        for (int level = 0; level < LEVELS; level++) {
            const bool above = distance <= DISTANCES[level];
            mass[level] += above ? (double)weight : 0.0;
            count[level] += above;
        }
    }
#pragma unroll
    for (int level = 0; level < LEVELS; level++) {
        for (int offset = WARP / 2; offset > 0; offset /= 2) {
            mass[level] += __shfl_xor_sync(0xffffffffu, mass[level], offset);
            count[level] += __shfl_xor_sync(0xffffffffu, count[level], offset);
        }
        if (threadIdx.x % WARP == 0) {
            shared[threadIdx.x / WARP].mass[level] = mass[level];
            shared[threadIdx.x / WARP].count[level] = count[level];
        }
    }
    __syncthreads();
    if (threadIdx.x >= LEVELS) return;
    Measure* out = measures + blockIdx.y * SPLITS + blockIdx.x;
    double total = 0.0;
    uint32_t ids = 0;
    for (int warp = 0; warp < THREADS / WARP; warp++) {
        total += shared[warp].mass[threadIdx.x];
        ids += shared[warp].count[threadIdx.x];
    }
    out->mass[threadIdx.x] = total;
    out->count[threadIdx.x] = ids;
}

// What is known of a whole row.
struct Level {
    // The lowest level that must be looked at; LEVELS if too many ids are above it.
    int level;
    double total;
};

// Every thread of a warp calls it and gets the same.
__device__ Level level_of(const Row& row, const Measure* measures) {
    const int lane = threadIdx.x % WARP;
    double mass = 0.0;
    uint32_t count = 0;
    if (lane < LEVELS) {
        for (int split = 0; split < SPLITS; split++) {
            mass += measures[split].mass[lane];
            count += measures[split].count[lane];
        }
    }
    const double total = __shfl_sync(0xffffffffu, mass, LEVELS - 1);
    const uint32_t all = __shfl_sync(0xffffffffu, count, LEVELS - 1);
    const bool by_count = row.top_k > 0 && count >= row.top_k;
    const bool by_mass = row.top_k == 0 && row.top_p < 1.0f && mass >= row.top_p * total;
    // The weight of an id at a distance is its exponential, give or take rounding.
    const bool by_share = row.min_p > 0.0f && (row.top_k == 0 || row.top_p >= 1.0f) &&
                          expf(-DISTANCES[lane % LEVELS]) < 0.99f * row.min_p;
    const bool enough = lane < LEVELS && (by_count || by_mass || by_share || count == all);
    const uint32_t levels = __ballot_sync(0xffffffffu, enough && count <= MOST);
    return {levels ? __ffs(levels) - 1 : LEVELS, total};
}

// Grid [SPLITS, rows]. A key orders by weight, then by the lower id.
KERNEL void sample_gather(const Row* __restrict__ rows, const float* __restrict__ logits, int cols,
                          int vocab, const Scan* __restrict__ scans,
                          const Measure* __restrict__ measures, uint32_t* __restrict__ found,
                          unsigned long long* __restrict__ keys) {
    wait_for_predecessors();
    const Row row = rows[blockIdx.y];
    const Scan best = whole_scan(scans, blockIdx.y);
    if (is_greedy(row) || cuts_nothing(row) || best.broken || best.highest == -INFINITY) return;
    const Level level = level_of(row, measures + blockIdx.y * SPLITS);
    if (level.level == LEVELS) return;
    const float reach = DISTANCES[level.level];
    logits += (int64_t)blockIdx.y * cols;
    keys += (int64_t)blockIdx.y * MOST;
    int begin, end;
    run_of(vocab, blockIdx.x, &begin, &end);
    for (int id = begin + threadIdx.x; id < end; id += blockDim.x) {
        const float distance = (best.highest - logits[id]) / row.temperature;
        const float weight = weight_of(logits[id], best.highest, row.temperature);
        if (!(weight > 0.0f) || !(distance <= reach)) continue;
        // Places differ from run to run; sorting makes up for it.
        const uint32_t at = atomicAdd(found + blockIdx.y, 1u);
        if (at < MOST) {
            keys[at] = (unsigned long long)__float_as_uint(weight) << 32 | ~(uint32_t)id;
        }
    }
}

constexpr int PICKERS = 1024;

__device__ __forceinline__ double shared_scan(double value, double* shared) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll
    for (int offset = 1; offset < WARP; offset *= 2) {
        const double before = __shfl_up_sync(0xffffffffu, value, offset);
        if (lane >= offset) value += before;
    }
    if (lane == WARP - 1) shared[warp] = value;
    __syncthreads();
    for (int other = 0; other < warp; other++) value += shared[other];
    __syncthreads();
    return value;
}

// The sum of the weights up to and with each of this thread's EACH neighbours, over the block.
template <int EACH>
__device__ __forceinline__ void sums_of(const float* weights, double* sums, double* shared) {
    double own = 0.0;
#pragma unroll
    for (int i = 0; i < EACH; i++) own += weights[i];
    double sum = shared_scan(own, shared) - own;
#pragma unroll
    for (int i = 0; i < EACH; i++) sums[i] = sum += weights[i];
}

__device__ __forceinline__ float weight_of_key(unsigned long long key) {
    return __uint_as_float((uint32_t)(key >> 32));
}

// Largest first; `size` is a power of two.
__device__ void sort(unsigned long long* keys, int size) {
    for (int run = 2; run <= size; run *= 2) {
        for (int gap = run / 2; gap > 0; gap /= 2) {
            __syncthreads();
            for (int pair = threadIdx.x; pair < size / 2; pair += PICKERS) {
                const int low = 2 * pair - (pair & (gap - 1)), high = low + gap;
                const bool falls = (low & run) == 0;
                const unsigned long long a = keys[low], b = keys[high];
                if ((a < b) == falls) keys[low] = b, keys[high] = a;
            }
        }
    }
    __syncthreads();
}

// The first index of the block for which `is` holds, or `none`.
__device__ int first_index(bool is, int index, int none, int* shared) {
    if (threadIdx.x == 0) *shared = none;
    __syncthreads();
    if (is) atomicMin(shared, index);
    __syncthreads();
    const int first = *shared;
    __syncthreads();
    return first;
}

constexpr int EACH = MOST / PICKERS;

// The token under the share `draw` of the sorted candidates that the cuts leave.
__device__ int pick_sorted(const Row& row, unsigned long long* keys, int count, double total,
                           double* sums_shared, int* index_shared) {
    int size = 2;
    while (size < count) size *= 2;
    for (int at = count + threadIdx.x; at < size; at += PICKERS) keys[at] = 0;
    sort(keys, size);
    int kept = row.top_k > 0 ? min((uint32_t)count, row.top_k) : count;
    const int first = threadIdx.x * EACH;
    float weights[EACH];
    double sums[EACH];
    __shared__ double of_kept;
    auto weigh = [&]() {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            weights[i] = first + i < kept ? weight_of_key(keys[first + i]) : 0.0f;
        }
        sums_of<EACH>(weights, sums, sums_shared);
        if (threadIdx.x == PICKERS - 1) of_kept = sums[EACH - 1];
        __syncthreads();
    };
    // The first of this thread's candidates whose sum reaches, or passes, what is wanted.
    auto first_with = [&](double wanted, bool passes) {
        int index = kept;
        for (int i = EACH - 1; i >= 0; i--) {
            const bool is = passes ? sums[i] > wanted : sums[i] >= wanted;
            if (is && first + i < kept) index = first + i;
        }
        return first_index(index < kept, index, kept, index_shared);
    };
    weigh();
    if (row.top_p < 1.0f) {
        const double whole = row.top_k > 0 ? of_kept : total;
        kept = min(kept, first_with((double)row.top_p * whole, false) + 1);
    }
    int least = kept;
    for (int i = EACH - 1; i >= 0; i--) {
        if (first + i < kept && !(weights[i] >= row.min_p)) least = first + i;
    }
    kept = max(first_index(least < kept, least, kept, index_shared), 1);
    weigh();
    const int at = min(first_with(row.draw * of_kept, true), kept - 1);
    return (int)~(uint32_t)keys[at];
}

// The token under the share `draw` of all weights, by ascending ids.
__device__ int pick_by_id(const Row& row, const float* logits, int vocab, const Scan& best,
                          const Measure* measures, double* sums_shared, int* index_shared) {
    double total = 0.0;
    for (int split = 0; split < SPLITS; split++) total += measures[split].mass[LEVELS - 1];
    double wanted = row.draw * total;
    int split = 0, last = 0;
    for (; split < SPLITS; split++) {
        const double mass = measures[split].mass[LEVELS - 1];
        if (mass > 0.0) last = split;
        if (mass > wanted) break;
        wanted -= mass;
    }
    // Rounding can leave a crumb behind the last one.
    if (split == SPLITS) split = last;
    int begin, end;
    run_of(vocab, split, &begin, &end);
    int chosen = -1, highest = -1;
    for (; begin < end && chosen < 0; begin += PICKERS) {
        const int id = begin + threadIdx.x;
        const float weight =
            id < end ? weight_of(logits[id], best.highest, row.temperature) : 0.0f;
        const double sum = shared_scan((double)weight, sums_shared);
        const int found = first_index(sum > wanted && weight > 0.0f, id, vocab, index_shared);
        if (found < vocab) chosen = found;
        const int sound = -first_index(weight > 0.0f, -id, 1, index_shared);
        if (sound >= 0) highest = sound;
        __shared__ double block;
        if (threadIdx.x == PICKERS - 1) block = sum;
        __syncthreads();
        wanted -= block;
        __syncthreads();
    }
    return chosen >= 0 ? chosen : highest;
}

// One block a row.
KERNEL void __launch_bounds__(PICKERS)
    sample_pick(const Row* __restrict__ rows, const float* __restrict__ logits, int cols, int vocab,
                const Scan* __restrict__ scans, const Measure* __restrict__ measures,
                const uint32_t* __restrict__ found, const unsigned long long* __restrict__ keys,
                int* __restrict__ tokens, int* __restrict__ answer) {
    extern __shared__ unsigned long long candidates[];
    __shared__ double sums_shared[PICKERS / WARP];
    __shared__ int index_shared;
    wait_for_predecessors();
    const Row row = rows[blockIdx.x];
    const Scan best = whole_scan(scans, blockIdx.x);
    measures += blockIdx.x * SPLITS;
    int token;
    if (best.broken || best.highest == -INFINITY) {
        token = NOTHING;
    } else if (is_greedy(row)) {
        token = best.id;
    } else if (cuts_nothing(row)) {
        token = pick_by_id(row, logits + (int64_t)blockIdx.x * cols, vocab, best, measures,
                           sums_shared, &index_shared);
    } else {
        const Level level = level_of(row, measures);
        if (level.level == LEVELS) {
            token = UNDECIDED;
        } else {
            const int count = found[blockIdx.x];
            for (int at = threadIdx.x; at < count; at += PICKERS) {
                candidates[at] = keys[(int64_t)blockIdx.x * MOST + at];
            }
            token = pick_sorted(row, candidates, count, level.total, sums_shared, &index_shared);
        }
    }
    if (threadIdx.x > 0) return;
    tokens[blockIdx.x] = token;
    // The host's own memory.
    answer[blockIdx.x] = token;
}
