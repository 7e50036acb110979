// out = x * weights^T, or added to it, for 9 to 64 rows: Hopper's warpgroups.
//
// A block works on 16 tiles at once, one a warp, and on 256 columns of them at a time: a chunk. So
// activations come into shared memory once for 256 rows of weights, and four warps share each piece
// of them that the tensor cores read. All chunks of all groups of tiles, one after the other, are
// cut into as many runs as there are blocks. Each warp has a ring of its own units on their way,
// and the block one of activations.
//
// Of a group that several blocks share, each leaves its sums in memory. Once it has nothing else to
// do, each adds up its share of all these sums, in the order of the blocks: so every block waits
// once, and for all at the same time.

#include "operand.cuh"
#include "ring.cuh"
#include "shares.cuh"
#include "wide.cuh"

constexpr int WARPS = BLOCK / WARP;
constexpr int MOST_PARTS = 4;

struct WidePart {
    const uint8_t* units;
    int first_chunk;    // Of the chunks of all parts, one after the other.
    int end_chunk;
    int tiles;
    int unit_bytes;
    int format;
    int rows;
    int col;            // Where its outputs begin.
    int units_of_chunk;
};

struct WideLinear {
    WidePart parts[MOST_PARTS];
    const uint8_t* x;      // Chunks of activations, as `put_wide` lays them out.
    float* out;
    float* shares;         // [blocks][2][N / 2][512]: sums of the groups in which a run begins and
                           // ends, NOTHING before.
    int chunks;            // Of all parts,
    int chunks_of_group;   // and of one group of tiles: of all columns.
    int stride;            // Of out.
    int rows;
    int add;
    int slot_bytes;
    int slots;             // Of each warp.
    int stages;            // Of activations.
    int of_block;          // Each block has so many chunks,
    int of_first;          // and so many first blocks have one more.
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Where a block is: a chunk, and what it belongs to.
struct Place {
    int chunk;
    int part;
    int group;
    int of_group;

    __device__ __forceinline__ void find(const WideLinear& job, int at) {
        chunk = at;
        while (chunk >= job.parts[part].end_chunk) part++;
        const int in_part = chunk - job.parts[part].first_chunk;
        group = in_part / job.chunks_of_group;
        of_group = in_part - group * job.chunks_of_group;
    }
};

// The tile of this warp in a group; a warp without one takes the last, and does not write.
__device__ __forceinline__ int tile_of(const WidePart& part, int group) {
    return min(group * WARPS + static_cast<int>(threadIdx.x) / WARP, part.tiles - 1);
}

// A warp's units, one after the other.
struct WideAsker {
    Place place;
    const uint8_t* at;
    int left;          // Units of the group that the run has still.
    int end;           // Chunk.

    __device__ __forceinline__ void find(const WideLinear& job, int chunk) {
        place.find(job, chunk);
        const WidePart& part = job.parts[place.part];
        const int of_chunk = part.units_of_chunk, of_tile = job.chunks_of_group * of_chunk;
        const int64_t unit = static_cast<int64_t>(tile_of(part, place.group)) * of_tile +
                             place.of_group * of_chunk;
        at = part.units + unit * part.unit_bytes;
        const int chunks = min(job.chunks_of_group - place.of_group, end - chunk);
        left = chunks * of_chunk;
        place.chunk = chunk + chunks;
    }

    __device__ __forceinline__ void ask(const WideLinear& job, const Ring& ring, int slot) {
        if (left == 0) {
            if (place.chunk >= end) return;
            find(job, place.chunk);
        }
        const int size = job.parts[place.part].unit_bytes;
        ring.ask(slot, at, size, threadIdx.x % WARP);
        at += size;
        left--;
    }
};

// The activations of a block's chunks on their way: stages that warps hand back.
struct Stages {
    Ring ring;          // `bytes` are those of a chunk.
    uint32_t left;      // Barriers: all warps have left the stage.

    // The chunk at this place of a group. Warp 0 calls it.
    __device__ __forceinline__ void ask(const WideLinear& job, int stage, int of_group) const {
        ring.ask<false>(stage, job.x + static_cast<int64_t>(of_group) * ring.bytes, ring.bytes,
                 threadIdx.x % WARP);
    }

    __device__ __forceinline__ void wait_left(int stage, int phase) const {
        while (!is_done(left + 8 * stage, phase)) {
        }
    }

    __device__ __forceinline__ void leave(int stage) const {
        if (threadIdx.x % WARP == 0) {
            asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(left + 8 * stage)
                         : "memory");
        }
    }

    __device__ __forceinline__ void open() const {
        if (threadIdx.x < ring.count) {
            asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(left + 8 * threadIdx.x),
                         "n"(WARPS)
                         : "memory");
        }
        ring.open(threadIdx.x);
    }
};

__device__ __forceinline__ void put_sum(
    const WideLinear& job, const WidePart& part, int group, int at, float sum);

// A warp's sums of 16 rows of weights, and where they go.
template <int NT>
struct WideSums {
    float d[NT][4];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
#pragma unroll
            for (int i = 0; i < 4; i++) d[nt][i] = 0.0f;
        }
    }

    // Leaves the sums of a group that other blocks have sums of.
    __device__ __forceinline__ void share(float* shares) const {
#pragma unroll
        for (int at = 0; at < 4 * NT; at++) {
            leave_share(shares + at * BLOCK + threadIdx.x, d[at / 4][at % 4]);
        }
    }

    __device__ __forceinline__ void put(
        const WideLinear& job, const WidePart& part, int group) const {
#pragma unroll
        for (int at = 0; at < 4 * NT; at++) put_sum(job, part, group, at, d[at / 4][at % 4]);
    }
};

// Writes one of a thread's sums.
__device__ __forceinline__ void put_sum(
    const WideLinear& job, const WidePart& part, int group, int at, float sum) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int row = (group * WARPS + warp) * TILE_ROWS + lane / 4 + at % 4 / 2 * 8;
    const int line = at / 4 * 8 + lane % 4 * 2 + at % 2;
    if (row >= part.rows || line >= job.rows) return;
    float* out = job.out + static_cast<int64_t>(line) * job.stride + part.col + row;
    *out = job.add ? __ldcg(out) + sum : sum;
}

// A warp's way through its units and the block's activations.
struct WideReader {
    int slot = 0;
    int phase = 0;
    int stage = 0;
    int stage_phase = 0;
    int wanted;         // Of the next chunk of activations to be asked for, its place in its group,
    int left_to_ask;    // and how many there are from it on.
};

template <int FORMAT, int NT>
__device__ __forceinline__ void multiply_chunk(
    const WideLinear& job, const Ring& ring, const uint8_t* slots, const Steps<NT>& x,
    WideReader& reader, WideAsker& asker, WideSums<NT>& sums) {
    constexpr int UNITS = CHUNK_COLS / unit_cols(FORMAT), STEPS = unit_cols(FORMAT) / 16;
#pragma unroll 1
    for (int unit = 0; unit < UNITS; unit++) {
        ring.wait(reader.slot, reader.phase);
        const uint8_t* at = slots + reader.slot * ring.bytes;
        Wide<FORMAT>::run(at, x, unit * STEPS, threadIdx.x % WARP, sums.d);
        __syncwarp();
        asker.ask(job, ring, reader.slot);
        if (++reader.slot == ring.count) reader.slot = 0, reader.phase ^= 1;
    }
    // The activations have been read, and the sums are there.
    wait_for_products<0>();
}

// Chunks of one group. `is_first`: those that the run begins with.
template <int FORMAT, int NT>
__device__ __forceinline__ void multiply_group(
    const WideLinear& job, int chunks, bool is_first, const Ring& ring, const uint8_t* slots,
    const Stages& stages, WideReader& reader, WideAsker& asker, WideSums<NT>& sums) {
#pragma unroll 1
    for (int i = 0; i < chunks; i++) {
        stages.ring.wait(reader.stage, reader.stage_phase);
        const Steps<NT> x = Steps<NT>::at(stages.ring.slots + reader.stage * stages.ring.bytes);
        multiply_chunk<FORMAT, NT>(job, ring, slots, x, reader, asker, sums);
        stages.leave(reader.stage);
        // The stage before this one's: by now all warps have left it, or soon will.
        if (threadIdx.x < WARP && reader.left_to_ask > 0 && !(is_first && i == 0)) {
            const int before = reader.stage == 0 ? stages.ring.count - 1 : reader.stage - 1;
            stages.wait_left(before, reader.stage == 0 ? reader.stage_phase ^ 1
                                                       : reader.stage_phase);
            stages.ask(job, before, reader.wanted);
            if (++reader.wanted == job.chunks_of_group) reader.wanted = 0;
            reader.left_to_ask--;
        }
        if (++reader.stage == stages.ring.count) reader.stage = 0, reader.stage_phase ^= 1;
    }
}

__device__ __forceinline__ int cut(const WideLinear& job, int block) {
    return block * job.of_block + min(block, job.of_first);
}

// The block that has a chunk.
__device__ __forceinline__ int block_of(const WideLinear& job, int chunk) {
    const int with_more = job.of_first * (job.of_block + 1);
    if (chunk < with_more) return chunk / (job.of_block + 1);
    return job.of_first + (chunk - with_more) / job.of_block;
}

// Where the sums of a group lie that a block leaves: a run may begin in one and end in another.
template <int NT>
__device__ __forceinline__ float* shares_of(const WideLinear& job, int block, bool begins) {
    return job.shares + static_cast<int64_t>(2 * block + (begins ? 1 : 0)) * 4 * NT * BLOCK;
}

// Adds up this block's share of the sums of a group that it does not have alone.
template <int NT>
__device__ __forceinline__ void add_up(const WideLinear& job, const Place& place) {
    const int begin = place.chunk - place.of_group;
    const int first = block_of(job, begin);
    const int sharers = block_of(job, begin + job.chunks_of_group - 1) - first + 1;
    const bool first_begins = cut(job, first) <= begin;
    constexpr int AT_ONCE = 10;
    int at = blockIdx.x - first, sharer = 0;
    float sum = 0.0f;
    while (at < 4 * NT) {
        // As many as are waited for at once, of one sum after the other.
        float* from[AT_ONCE];
        int of = at, number = sharer;
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const bool begins = number > 0 ? false : first_begins;
            float* shares = shares_of<NT>(job, first + number, begins);
            from[i] = of < 4 * NT ? shares + of * BLOCK + threadIdx.x : nullptr;
            if (++number == sharers) number = 0, of += sharers;
        }
        float shares[AT_ONCE];
        take_shares(from, shares);
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            sum += shares[i];
            if (++sharer < sharers) continue;
            if (at < 4 * NT) put_sum(job, job.parts[place.part], place.group, at, sum);
            sharer = 0, at += sharers, sum = 0.0f;
        }
    }
}

template <int NT>
__device__ __forceinline__ void wide(const WideLinear& job) {
    extern __shared__ __align__(128) uint8_t memory[];
    constexpr int CHUNK_BYTES = CHUNK_STEPS * 2 * NT * 128;
    const int warp = threadIdx.x / WARP, ring_bytes = job.slots * job.slot_bytes;
    uint8_t* const slots = memory + job.stages * CHUNK_BYTES + warp * ring_bytes;
    const uint32_t barriers =
        shared_address(memory) + job.stages * CHUNK_BYTES + WARPS * ring_bytes;
    const uint32_t after = barriers + WARPS * job.slots * 8;
    const Ring ring = {
        shared_address(slots), barriers + warp * job.slots * 8, job.slot_bytes, job.slots};
    const Stages stages = {
        {shared_address(memory), after, CHUNK_BYTES, job.stages}, after + job.stages * 8};
    ring.open(threadIdx.x % WARP);
    if (warp == 0) stages.open();
    __syncthreads();

    const int first = cut(job, blockIdx.x), end = cut(job, blockIdx.x + 1);
    WideAsker asker = {};
    asker.end = end, asker.place.chunk = first;
    asker.ask(job, ring, 0);
    let_successors_start();
    wait_for_predecessors();
    WideReader reader;
    reader.wanted = first % job.chunks_of_group;
    reader.left_to_ask = end - first;
    for (int stage = 0; stage < job.stages && reader.left_to_ask > 0; stage++) {
        if (warp == 0) stages.ask(job, stage, reader.wanted);
        if (++reader.wanted == job.chunks_of_group) reader.wanted = 0;
        reader.left_to_ask--;
    }
    for (int slot = 1; slot < job.slots; slot++) asker.ask(job, ring, slot);

    WideSums<NT> sums;
    Place place = {};
    for (int at = first; at < end;) {
        place.find(job, at);
        sums.clear();
        const int chunks = min(job.chunks_of_group - place.of_group, end - at);
#define MULTIPLY(FORMAT)                                                                          \
    multiply_group<FORMAT, NT>(                                                                   \
        job, chunks, at == first, ring, slots, stages, reader, asker, sums)
        switch (job.parts[place.part].format) {
            case Q4_K: MULTIPLY(Q4_K); break;
            case Q5_K: MULTIPLY(Q5_K); break;
            case Q6_K: MULTIPLY(Q6_K); break;
            case Q8_0: MULTIPLY(Q8_0); break;
            default: MULTIPLY(F16); break;
        }
#undef MULTIPLY
        at += chunks;
        if (chunks == job.chunks_of_group) {
            sums.put(job, job.parts[place.part], place.group);
        } else {
            sums.share(shares_of<NT>(job, blockIdx.x, place.of_group == 0));
        }
    }
    if (first == end) return;
    // The group in which the run begins, if it began before, and that in which it ends.
    Place begins = {}, ends = {};
    begins.find(job, first);
    ends.find(job, end - 1);
    const bool apart = ends.group != begins.group || ends.part != begins.part;
    if (begins.of_group > 0) add_up<NT>(job, begins);
    const bool is_whole = ends.of_group == job.chunks_of_group - 1;
    if (!is_whole && (apart || begins.of_group == 0)) add_up<NT>(job, ends);
}
#endif

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define WIDE(NAME, NT)                                                                            \
    KERNEL __launch_bounds__(BLOCK, 1) void NAME(const __grid_constant__ WideLinear job) {        \
        wide<NT>(job);                                                                            \
    }
#else
#define WIDE(NAME, NT)                                                                            \
    KERNEL void NAME(const __grid_constant__ WideLinear job) {}
#endif

WIDE(linear_wide_16, 2)
WIDE(linear_wide_32, 4)
WIDE(linear_wide_64, 8)
