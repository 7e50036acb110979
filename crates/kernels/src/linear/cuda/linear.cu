// out = x * weights^T, or added to it: one to 32 rows at the speed of the memory.
//
// Every multiprocessor has one block. The units of all tiles, one after the other, are cut into as
// many equal runs as there are blocks; within a run they go to the sixteen warps in turn. Units
// arrive in a ring of slots in shared memory: a warp that has multiplied one asks for the unit
// that comes a whole ring later. So the memory is kept busy by what shared memory holds, and few
// long rows feed all warps as well as many short ones.
//
// The ring is filled before the kernel waits for its predecessor, and a block lets its successor
// start when it has asked for its last unit. The successor fills its own ring while this kernel's
// last units are multiplied, and the memory does not see where one ends and the other begins.
//
// A tile is done when each warp has left its part in shared memory: the last one to do so adds the
// parts up, always in the same order, and nobody waits. Where a run ends within a tile, the next
// block leaves its part of it in memory, which it did first of all.
//
// A row's arithmetic depends on nothing but its own activations, the weights and the number of
// blocks.

#include "operand.cuh"
#include "unit.cuh"

constexpr int WARPS = BLOCK / WARP;
constexpr int MOST_PARTS = 4;
constexpr int SHARE = 32 * TILE_ROWS;  // Sums of a tile, of the most rows of x.

// Tiles whose parts are in shared memory at once.
__host__ __device__ constexpr int sum_sets(int nt) { return nt == 4 ? 2 : 4; }

struct Part {
    const uint8_t* units;
    int first_unit;     // Of the units of all parts, one after the other.
    int end_unit;
    int units_of_tile;
    int unit_bytes;
    int format;
    int rows;
    int col;            // Where its outputs begin.
    int unused;
};

struct Linear {
    Part parts[MOST_PARTS];
    const float* x;        // Rows of f32, unless the operand was prepared.
    const float* norm;
    OperandRow operand;    // Of row 0; of the others `padded` columns on.
    float* out;
    const int* rows_of_x;  // Which row of x each row is, or null: its own.
    float* shares;         // [blocks][32 * 16]: parts of other blocks' tiles, NOTHING before.
    int x_stride;
    int source;
    float eps;
    int cols;
    int padded;
    int halves;            // Whether a part multiplies halves,
    int floats;            // or sums of two bfloat16.
    int stride;            // Of out.
    int rows;
    int add;
    int units;
    int slot_bytes;
    int slots;
    int whole_tiles;       // Whether runs end where tiles do.
};

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Units on their way. Warps may be more than a ring apart, and a barrier tells only two rounds from
// each other, so each slot says which round was asked for.
struct Ring {
    uint8_t* slots;
    uint64_t* arrived;
    int* rounds;
    int bytes;
    int count;

    __device__ __forceinline__ void open() const {
#if __CUDA_ARCH__ >= 900
        constexpr int arrivals = 1;
#else
        constexpr int arrivals = WARP;
#endif
        for (int slot = threadIdx.x; slot < count; slot += BLOCK) {
            asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(arrived + slot)),
                         "n"(arrivals)
                         : "memory");
            rounds[slot] = 0;
        }
#if __CUDA_ARCH__ >= 900
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
        __syncthreads();
    }

    // Asks for a unit. All lanes of a warp call it.
    __device__ __forceinline__ void ask(
        int slot, int round, const uint8_t* unit, int size, int lane) const {
        if (lane == 0) *const_cast<volatile int*>(rounds + slot) = round;
        const uint32_t to = shared_address(slots) + slot * bytes;
        const uint32_t barrier = shared_address(arrived) + slot * 8;
#if __CUDA_ARCH__ >= 900
        if (lane == 0) {
            asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier),
                         "r"(size)
                         : "memory");
            asm volatile(
                "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
                "[%3];" ::"r"(to),
                "l"(unit), "r"(size), "r"(barrier)
                : "memory");
        }
#else
        for (int at = 16 * lane; at < size; at += 16 * WARP) {
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + at), "l"(unit + at)
                         : "memory");
        }
        asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier) : "memory");
#endif
    }

    // Waits until a slot's unit of a round is there.
    __device__ __forceinline__ void wait(int slot, int round) const {
        while (*const_cast<volatile int*>(rounds + slot) != round) {}
        const uint32_t barrier = shared_address(arrived) + slot * 8;
        uint32_t done = 0;
        while (done == 0) {
#if __CUDA_ARCH__ >= 900
            asm volatile(
                "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, "
                "1, 0, p; }"
                : "=r"(done)
                : "r"(barrier), "r"(round & 1)
                : "memory");
#else
            asm volatile(
                "{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, "
                "0, p; }"
                : "=r"(done)
                : "r"(barrier), "r"(round & 1)
                : "memory");
#endif
        }
    }
};

// The units that a warp asks for.
struct Asker {
    int unit;
    int end;
    int part;

    // Asks for the next unit, if there is one, into `slot`.
    __device__ __forceinline__ void ask(
        const Linear& job, const Ring& ring, int slot, int round, int lane) {
        if (unit < end) {
            while (unit >= job.parts[part].end_unit) part++;
            const Part& from = job.parts[part];
            const int64_t at = static_cast<int64_t>(unit - from.first_unit) * from.unit_bytes;
            ring.ask(slot, round, from.units + at, from.unit_bytes, lane);
        }
    }
};

// Elements between two rows of activations in shared memory: banks differ from row to row.
__device__ __forceinline__ int shared_pitch(int padded) { return padded + 32; }
__device__ __forceinline__ int shared_means_pitch(int padded) { return padded / 16 + 16; }

// Where the rows of activations are in shared memory.
__device__ __forceinline__ OperandRow shared_operand(const Linear& job, uint8_t* at, int rows) {
    const int pitch = shared_pitch(job.padded);
    OperandRow first = {nullptr, nullptr, nullptr, nullptr};
    if (job.halves) {
        first.half = reinterpret_cast<__half*>(at);
        first.means = first.half + rows * pitch;
        at = reinterpret_cast<uint8_t*>(first.means + rows * shared_means_pitch(job.padded));
    }
    if (job.floats) {
        first.high = reinterpret_cast<uint16_t*>(at);
        first.low = first.high + rows * pitch;
    }
    return first;
}

__device__ __forceinline__ int shared_operand_bytes(const Linear& job, int rows) {
    const int pitch = shared_pitch(job.padded), means = shared_means_pitch(job.padded);
    return 2 * rows * ((job.halves ? pitch + means : 0) + (job.floats ? 2 * pitch : 0));
}

__device__ __forceinline__ OperandRow row_of(
    const OperandRow& first, int row, int pitch, int means) {
    const int64_t at = static_cast<int64_t>(row) * pitch;
    return {
        first.half == nullptr ? nullptr : first.half + at,
        first.half == nullptr ? nullptr : first.means + static_cast<int64_t>(row) * means,
        first.high == nullptr ? nullptr : first.high + at,
        first.high == nullptr ? nullptr : first.low + at,
    };
}

__device__ __forceinline__ void copy_row(void* to, const void* from, int bytes) {
    for (int at = threadIdx.x; at < bytes / 16; at += BLOCK) {
        static_cast<uint4*>(to)[at] = static_cast<const uint4*>(from)[at];
    }
}

// Puts the activations into shared memory.
__device__ __forceinline__ void stage(
    const Linear& job, const NormColumns& norm, const OperandRow& shared, int first_row, int rows,
    float* sums) {
    const int padded = job.padded;
    for (int row = 0; row < rows; row++) {
        const OperandRow to = row_of(shared, row, shared_pitch(padded), shared_means_pitch(padded));
        const int at = first_row + row;
        if (job.source == OPERAND) {
            const OperandRow from = row_of(job.operand, at, padded, padded / 16);
            if (job.halves) {
                copy_row(to.half, from.half, 2 * padded);
                copy_row(to.means, from.means, padded / 8);
            }
            if (job.floats) {
                copy_row(to.high, from.high, 2 * padded);
                copy_row(to.low, from.low, 2 * padded);
            }
        } else {
            const int64_t x_row = job.rows_of_x == nullptr ? at : job.rows_of_x[at];
            const float* x = job.x + x_row * job.x_stride;
            prepare_row(job.source, x, job.norm, norm, job.eps, job.cols, padded, to, sums);
        }
    }
    __syncthreads();
}

// Where a warp is: its next unit and the slot in which it arrives.
struct Reader {
    int unit;
    int slot;
    int round;

    __device__ __forceinline__ void skip(int slots, int by) {
        slot += by;
        while (slot >= slots) slot -= slots, round++;
    }
};

// Multiplies a warp's units before `end`; columns count from unit `begin`.
template <int FORMAT, int NT>
__device__ __forceinline__ void multiply_units(
    const Linear& job, const Ring& ring, const Activations<NT>& x, int begin, int end, int lane,
    Reader& reader, Asker& asker, float (&acc)[NT][4]) {
    while (reader.unit < end) {
        ring.wait(reader.slot, reader.round);
        const uint8_t* unit = ring.slots + reader.slot * ring.bytes;
        Multiply<FORMAT, NT>::run(unit, x, (reader.unit - begin) * unit_cols(FORMAT), lane, acc);
        __syncwarp();
        asker.ask(job, ring, reader.slot, reader.round + 1, lane);
        asker.unit += WARPS;
        reader.unit += WARPS;
        reader.skip(ring.count, WARPS);
    }
}

// The parts of tiles in shared memory.
template <int SUM_SETS>
struct Sums {
    float* values;  // [set][warp][row of x][row of the tile]
    int* counts;    // Warps that have left their part in a set, ever.
    int* done;      // Tiles of a set that are added up.
    int size;       // Of a warp's part.

    // Leaves a warp's part of this block's tile number `tile`; says whether it is the last.
    template <int NT>
    __device__ __forceinline__ bool leave(
        int tile, int warp, int lane, int rows, const float (&acc)[NT][4]) const {
        const int set = tile % SUM_SETS, round = tile / SUM_SETS;
        while (*const_cast<volatile int*>(done + set) < round) {}
        __syncwarp();
        float* part = values + (set * WARPS + warp) * size;
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = 8 * nt + lane % 4 * 2 + i % 2;
                const int of_tile = lane / 4 + i / 2 * 8;
                if (row < rows) part[row * TILE_ROWS + of_tile] = acc[nt][i];
            }
        }
        __syncwarp();
        int before = 0;
        if (lane == 0) {
            asm volatile("atom.acq_rel.cta.shared.add.s32 %0, [%1], 1;"
                         : "=r"(before)
                         : "r"(shared_address(counts + set))
                         : "memory");
        }
        before = __shfl_sync(0xffffffffu, before, 0);
        return before == (round + 1) * WARPS - 1;
    }

    __device__ __forceinline__ float total(int tile, int at) const {
        const float* part = values + tile % SUM_SETS * WARPS * size + at;
        float first = 0.0f, second = 0.0f;
#pragma unroll
        for (int warp = 0; warp < WARPS / 2; warp++) {
            first += part[warp * size];
            second += part[(warp + WARPS / 2) * size];
        }
        return first + second;
    }

    __device__ __forceinline__ void release(int tile, int lane) const {
        __syncwarp();
        __threadfence_block();
        if (lane == 0) *const_cast<volatile int*>(done + tile % SUM_SETS) = tile / SUM_SETS + 1;
    }
};

// What no sum is: the place of a share that is not there.
constexpr uint32_t NOTHING = 0xffffffffu;

// Leaves this block's part of a tile for the block that has the tile's beginning.
template <int SUM_SETS>
__device__ __forceinline__ void share_tile(
    const Linear& job, const Sums<SUM_SETS>& sums, int tile, int lane, int slot) {
    uint32_t* to = reinterpret_cast<uint32_t*>(job.shares) + static_cast<int64_t>(slot) * SHARE;
    for (int at = lane; at < sums.size; at += WARP) {
        const uint32_t bits = __float_as_uint(sums.total(tile, at));
        asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to + at),
                     "r"(bits == NOTHING ? 0x7fffffffu : bits)
                     : "memory");
    }
}

// Takes what another block has of a sum, when it is there, and leaves nothing in its place.
__device__ __forceinline__ float take_share(const Linear& job, int slot, int at) {
    uint32_t* from =
        reinterpret_cast<uint32_t*>(job.shares) + static_cast<int64_t>(slot) * SHARE + at;
    uint32_t bits = NOTHING;
    while (bits == NOTHING) {
        asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(bits) : "l"(from) : "memory");
    }
    *from = NOTHING;
    return __uint_as_float(bits);
}

// Adds up a tile that this block has the beginning of, with what other blocks have of it, and
// writes it. `row` is the tile's first of the part.
template <int SUM_SETS>
__device__ __forceinline__ void finish_tile(
    const Linear& job, const Part& part, const Sums<SUM_SETS>& sums, int tile, int lane, int row,
    int first_row, int first_slot, int end_slot) {
    for (int at = lane; at < sums.size; at += WARP) {
        float sum = sums.total(tile, at);
        for (int slot = first_slot; slot < end_slot; slot++) sum += take_share(job, slot, at);
        const int of_part = row + at % TILE_ROWS;
        if (of_part < part.rows) {
            const int64_t line = first_row + at / TILE_ROWS;
            float* out = job.out + line * job.stride + part.col + of_part;
            *out = job.add ? *out + sum : sum;
        }
    }
}

// The first unit of a block. Where runs are whole tiles, so are those of all parts.
__device__ __forceinline__ int cut(const Linear& job, int block) {
    const int grain = job.whole_tiles ? job.parts[0].units_of_tile : 1;
    const int64_t grains = job.units / grain;
    return static_cast<int>(grains * block / gridDim.x) * grain;
}

template <int NT, bool STAGED>
__device__ __forceinline__ void linear(const Linear& job) {
    extern __shared__ __align__(128) uint8_t memory[];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int first_row = blockIdx.y * 8 * NT;
    const int rows = min(job.rows - first_row, 8 * NT);

    uint8_t* const staged = memory + job.slots * job.slot_bytes;
    uint8_t* const rest = staged + (STAGED ? shared_operand_bytes(job, rows) : 0);
    uint64_t* const arrived = reinterpret_cast<uint64_t*>(rest);
    int* const rounds = reinterpret_cast<int*>(arrived + job.slots);
    const Ring ring = {memory, arrived, rounds, job.slot_bytes, job.slots};
    constexpr int SUM_SETS = sum_sets(NT);
    Sums<SUM_SETS> sums;
    sums.counts = rounds + job.slots;
    sums.done = sums.counts + SUM_SETS;
    float* const block_sums = reinterpret_cast<float*>(sums.done + SUM_SETS);
    sums.values = block_sums + 32;
    sums.size = rows * TILE_ROWS;
    if (threadIdx.x < 2 * SUM_SETS) sums.counts[threadIdx.x] = 0;
    ring.open();

    const int first = cut(job, blockIdx.x), last = cut(job, blockIdx.x + 1);
    Asker asker = {first + warp, last, 0};
    for (int slot = warp; slot < ring.count; slot += WARPS) {
        asker.ask(job, ring, slot, 0, lane);
        asker.unit += WARPS;
    }
    if (asker.unit >= last) let_successors_start();
    NormColumns norm;
    if (STAGED && job.source == NORMED_ROWS) norm.load(job.norm, job.cols);
    wait_for_predecessors();

    OperandRow operand = job.operand;
    int pitch = job.padded, means = job.padded / 16;
    if (STAGED) {
        operand = shared_operand(job, staged, rows);
        stage(job, norm, operand, first_row, rows, block_sums);
        pitch = shared_pitch(job.padded);
        means = shared_means_pitch(job.padded);
    }
    Activations<NT> x;
#pragma unroll
    for (int nt = 0; nt < NT; nt++) {
        // Rows that do not exist are computed from one that does, and not written.
        const int row = min(8 * nt + lane / 4, rows - 1) + (STAGED ? 0 : first_row);
        const OperandRow from = row_of(operand, row, pitch, means);
        x.half[nt] = from.half, x.means[nt] = from.means;
        x.high[nt] = from.high, x.low[nt] = from.low;
    }

    asker.unit = first + ring.count + warp;
    Reader reader = {first + warp, 0, 0};
    reader.skip(ring.count, warp);
    int part = 0, tile = 0;
    for (int at = first; at < last; tile++) {
        while (at >= job.parts[part].end_unit) part++;
        const Part& of = job.parts[part];
        const int row_of_tiles = (at - of.first_unit) / of.units_of_tile;
        const int begin = of.first_unit + row_of_tiles * of.units_of_tile;
        const int end = begin + of.units_of_tile;
        float acc[NT][4] = {};
#define MULTIPLY(FORMAT)                                                                          \
    case FORMAT:                                                                                  \
        multiply_units<FORMAT, NT>(job, ring, x, begin, min(end, last), lane, reader, asker, acc); \
        break;
        switch (of.format) {
            MULTIPLY(Q4_K)
            MULTIPLY(Q5_K)
            MULTIPLY(Q6_K)
            MULTIPLY(Q8_0)
            MULTIPLY(F16)
            MULTIPLY(BF16)
            MULTIPLY(F32)
        }
#undef MULTIPLY
        if (asker.unit >= last) let_successors_start();
        if (sums.template leave<NT>(tile, warp, lane, rows, acc)) {
            const int slots = blockIdx.y * gridDim.x;
            if (begin < first) {
                share_tile(job, sums, tile, lane, slots + blockIdx.x);
            } else {
                int next = blockIdx.x + 1;
                while (next < gridDim.x && cut(job, next) < end) next++;
                finish_tile(job, of, sums, tile, lane, row_of_tiles * TILE_ROWS, first_row,
                            slots + blockIdx.x + 1, slots + next);
            }
            sums.release(tile, lane);
        }
        at = end;
    }
}

#define LINEAR(NAME, NT, STAGED, BLOCKS)                                                          \
    KERNEL __launch_bounds__(BLOCK, BLOCKS) void NAME(const __grid_constant__ Linear job) {       \
        linear<NT, STAGED>(job);                                                                  \
    }

LINEAR(linear_8_staged, 1, true, 2)
LINEAR(linear_8, 1, false, 2)
LINEAR(linear_16, 2, false, 1)
LINEAR(linear_32, 4, false, 1)

// Makes the operand of `rows` rows; a block a row.
KERNEL __launch_bounds__(BLOCK) void linear_prepare(
    int source, const float* x, const int* rows_of_x, int x_stride, const float* norm, float eps,
    int cols, int padded, __half* half, __half* means, uint16_t* high, uint16_t* low) {
    __shared__ float sums[32];
    NormColumns columns;
    if (source == NORMED_ROWS) columns.load(norm, cols);
    let_successors_start();
    wait_for_predecessors();
    const int row = blockIdx.x;
    const int64_t x_row = rows_of_x == nullptr ? row : rows_of_x[row];
    const OperandRow first = {half, means, high, low};
    const OperandRow to = row_of(first, row, padded, padded / 16);
    prepare_row(source, x + x_row * x_stride, norm, columns, eps, cols, padded, to, sums);
}
