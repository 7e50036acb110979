// out = x * weights^T, or added to it: one to 32 rows at the speed of the memory.
//
// Every multiprocessor has one block of sixteen warps, or every tile, where tiles are fewer. The
// units of all tiles, one after the other, are cut into as many equal runs as there are warps, so
// that few long rows feed all of them as well as many short ones. A warp keeps a ring of units on
// their way into shared memory: while it multiplies one, the others arrive. Part of the ring is
// filled before the kernel waits for its predecessor; all of it would keep the activations waiting
// behind weights.
//
// A tile that lies within a run is written at once. Of a tile that runs share, each warp leaves its
// part in shared memory, and once, at the end, these warps add the parts up in order, each a share
// of the rows. Where a tile is shared between blocks, the later block leaves its part in memory.
//
// A row's arithmetic depends on nothing but its own activations, the weights and the number of
// blocks.

#include "operand.cuh"
#include "ring.cuh"
#include "shares.cuh"
#include "unit.cuh"

constexpr int WARPS = BLOCK / WARP;
constexpr int MOST_PARTS = 4;
constexpr int SHARE = 32 * TILE_ROWS;  // Sums of a tile, of the most rows of x.

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
    int slots;             // Of each warp.
    int early_slots;       // Filled before the activations are read.
};

// The runs of a block's warps.
struct Runs {
    int first;
    int last;

    // Every block has as many units as any other.
    static __device__ __forceinline__ int cut(int units, int block) {
        return static_cast<int>(static_cast<int64_t>(units) * block / gridDim.x);
    }

    static __device__ __forceinline__ Runs of_units(int units) {
        return {cut(units, blockIdx.x), cut(units, blockIdx.x + 1)};
    }

    __device__ __forceinline__ int of(int warp) const {
        return first + (last - first) * warp / WARPS;
    }
};

// The units that a warp asks for, one after the other.
struct Asker {
    const uint8_t* at;
    int unit;
    int end;       // Of the warp's run.
    int part_end;
    int part;
    int size;

    // Goes to `unit`, whose part is this one or a later one.
    __device__ __forceinline__ void find(const Linear& job) {
        while (unit >= job.parts[part].end_unit) part++;
        const Part& from = job.parts[part];
        size = from.unit_bytes;
        part_end = from.end_unit;
        at = from.units + static_cast<int64_t>(unit - from.first_unit) * size;
    }

    // Asks for the next unit, if there is one.
    __device__ __forceinline__ void ask(const Linear& job, const Ring& ring, int slot, int lane) {
        if (unit >= end) return;
        ring.ask(slot, at, size, lane);
        unit++;
        at += size;
        if (unit == part_end && unit < end) find(job);
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
    const Linear& job, const Held<BLOCK>& norm, const OperandRow& shared, int first_row, int rows,
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
    int phase;
};

// Multiplies a warp's units before `end`; columns count from unit `begin`.
template <int FORMAT, int NT>
__device__ __forceinline__ void multiply_units(
    const Linear& job, const Ring& ring, const uint8_t* slots, const Activations<NT>& x, int begin,
    int end, int lane, Reader& reader, Asker& asker, float (&acc)[NT][4]) {
    int col = (reader.unit - begin) * unit_cols(FORMAT);
    for (; reader.unit < end; reader.unit++, col += unit_cols(FORMAT)) {
        ring.wait(reader.slot, reader.phase);
        Multiply<FORMAT, NT>::run(slots + reader.slot * ring.bytes, x, col, lane, acc);
        __syncwarp();
        asker.ask(job, ring, reader.slot, lane);
        if (++reader.slot == ring.count) reader.slot = 0, reader.phase ^= 1;
    }
}

// Where a block's share of a sum lies.
__device__ __forceinline__ float* share_of(const Linear& job, int block, int at) {
    return job.shares + static_cast<int64_t>(block) * SHARE + at;
}

__device__ __forceinline__ void put(
    const Linear& job, const Part& part, int row, int line, float sum) {
    if (row >= part.rows) return;
    float* out = job.out + static_cast<int64_t>(line) * job.stride + part.col + row;
    *out = job.add ? *out + sum : sum;
}

// The parts of tiles that the block's warps leave in shared memory, each `size` floats: of the tile
// in which a warp's run begins, and of that in which it ends.
struct Parts {
    float* values;
    int size;

    __device__ __forceinline__ float* of(int warp, bool ends) const {
        return values + (2 * warp + ends) * size;
    }
};

// The tile of a unit: its part, its own units and its first row.
struct Tile {
    int part;
    int begin;
    int end;
    int row;

    __device__ __forceinline__ void find(const Linear& job, int unit) {
        while (unit >= job.parts[part].end_unit) part++;
        const Part& of = job.parts[part];
        const int number = (unit - of.first_unit) / of.units_of_tile;
        begin = of.first_unit + number * of.units_of_tile;
        end = begin + of.units_of_tile;
        row = number * TILE_ROWS;
    }
};

// The warps of a block that have units of a tile.
struct Sharers {
    int first;
    int end;
    int count;
    int before;  // Those before this warp.

    __device__ __forceinline__ Sharers(const Runs& runs, const Tile& tile, int warp) {
        first = WARPS, end = 0, count = 0, before = 0;
        for (int other = 0; other < WARPS; other++) {
            const int begin = runs.of(other), last = runs.of(other + 1);
            if (begin == last || last <= tile.begin || begin >= tile.end) continue;
            first = min(first, other), end = other + 1;
            before += other < warp, count++;
        }
    }
};

// Adds up a warp's share of the sums of a tile that it does not have alone. What the block has of a
// tile that began in another one is left for that.
__device__ __forceinline__ void add_up(
    const Linear& job, const Parts& parts, const Runs& runs, const Tile& tile, int warp, int lane,
    int first_row) {
    const Sharers sharers(runs, tile, warp);
    const int block = blockIdx.y * gridDim.x;
    int others = blockIdx.x + 1;
    while (others < gridDim.x && Runs::cut(job.units, others) < tile.end) others++;
    for (int at = lane + WARP * sharers.before; at < parts.size; at += WARP * sharers.count) {
        float sum = 0.0f;
        for (int of = sharers.first; of < sharers.end; of++) {
            const int begin = runs.of(of);
            if (begin < runs.of(of + 1)) sum += parts.of(of, tile.begin >= begin)[at];
        }
        if (tile.begin < runs.first) {
            leave_share(share_of(job, block + blockIdx.x, at), sum);
            continue;
        }
        for (int next = blockIdx.x + 1; next < others; next++) {
            sum += take_share(share_of(job, block + next, at));
        }
        put(job, job.parts[tile.part], tile.row + at % TILE_ROWS, first_row + at / TILE_ROWS, sum);
    }
}

// Adds up the tiles in which a warp's run begins and ends, with the other warps that have some.
__device__ __forceinline__ void combine(
    const Linear& job, const Parts& parts, const Runs& runs, int warp, int lane, int first_row) {
    const int begin = runs.of(warp), end = runs.of(warp + 1);
    if (begin == end) return;
    Tile tile = {};
    tile.find(job, begin);
    // First what others wait for.
    if (tile.begin < begin || tile.end > end) {
        add_up(job, parts, runs, tile, warp, lane, first_row);
    }
    if (end <= tile.end) return;
    tile.find(job, end - 1);
    if (tile.end > end) add_up(job, parts, runs, tile, warp, lane, first_row);
}

template <int NT, bool STAGED>
__device__ __forceinline__ void linear(const Linear& job) {
    extern __shared__ __align__(128) uint8_t memory[];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int first_row = blockIdx.y * 8 * NT;
    const int rows = min(job.rows - first_row, 8 * NT);

    const int ring_bytes = job.slots * job.slot_bytes;
    uint8_t* const slots = memory + warp * ring_bytes;
    uint8_t* const staged = memory + WARPS * ring_bytes;
    uint8_t* const barriers = staged + (STAGED ? shared_operand_bytes(job, rows) : 0);
    float* const block_sums = reinterpret_cast<float*>(barriers + WARPS * job.slots * 8);
    const Parts parts = {block_sums + 32, rows * TILE_ROWS};
    const Ring ring = {shared_address(slots), shared_address(barriers) + warp * job.slots * 8,
                       job.slot_bytes, job.slots};
    ring.open(lane);

    const Runs runs = Runs::of_units(job.units);
    const int first = runs.of(warp), last = runs.of(warp + 1);
    Asker asker = {nullptr, first, last, 0, 0, 0};
    if (first < last) asker.find(job);
    // Before the units, lest it wait for all of them.
    Held<BLOCK> norm;
    if (STAGED && job.source == NORMED_ROWS) norm.load(job.norm, 0, job.cols);
    for (int slot = 0; slot < job.early_slots; slot++) asker.ask(job, ring, slot, lane);
    let_successors_start();
    wait_for_predecessors();

    OperandRow operand = job.operand;
    int pitch = job.padded, means = job.padded / 16;
    if (STAGED) {
        operand = shared_operand(job, staged, rows);
        stage(job, norm, operand, first_row, rows, block_sums);
        pitch = shared_pitch(job.padded);
        means = shared_means_pitch(job.padded);
    }
    for (int slot = job.early_slots; slot < ring.count; slot++) asker.ask(job, ring, slot, lane);
    Activations<NT> x;
#pragma unroll
    for (int nt = 0; nt < NT; nt++) {
        // Rows that do not exist are computed from one that does, and not written.
        const int row = min(8 * nt + lane / 4, rows - 1) + (STAGED ? 0 : first_row);
        const OperandRow from = row_of(operand, row, pitch, means);
        x.half[nt] = from.half, x.means[nt] = from.means;
        x.high[nt] = from.high, x.low[nt] = from.low;
    }

    Reader reader = {first, 0, 0};
    Tile tile = {};
    while (reader.unit < last) {
        tile.find(job, reader.unit);
        const Part& of = job.parts[tile.part];
        const int end = min(tile.end, last);
        float acc[NT][4] = {};
#define MULTIPLY(FORMAT)                                                                          \
    case FORMAT:                                                                                  \
        multiply_units<FORMAT, NT>(                                                               \
            job, ring, slots, x, tile.begin, end, lane, reader, asker, acc);                      \
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
        const bool whole = tile.begin >= first && tile.end <= last;
        float* const part = parts.of(warp, tile.begin >= first);
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = 8 * nt + lane % 4 * 2 + i % 2, of_tile = lane / 4 + i / 2 * 8;
                if (row >= rows) continue;
                if (whole) {
                    put(job, of, tile.row + of_tile, first_row + row, acc[nt][i]);
                } else {
                    part[row * TILE_ROWS + of_tile] = acc[nt][i];
                }
            }
        }
    }
    __syncthreads();
    combine(job, parts, runs, warp, lane, first_row);
}

#define LINEAR(NAME, NT, STAGED)                                                                  \
    KERNEL __launch_bounds__(BLOCK, 1) void NAME(const __grid_constant__ Linear job) {       \
        linear<NT, STAGED>(job);                                                                  \
    }

LINEAR(linear_8_staged, 1, true)
LINEAR(linear_8, 1, false)
LINEAR(linear_16, 2, false)
LINEAR(linear_32, 4, false)

// Makes the operand of rows; a block a row, or a slice of one that is not normed.
struct Prepare {
    const float* x;
    const int* rows_of_x;
    const float* norm;
    OperandRow operand;    // Of row 0.
    __half* wide;          // Chunks for `wide.cu`, of `pieces` times eight rows, or null.
    int source;
    int x_stride;
    int cols;
    int padded;
    float eps;
    int pieces;
};

KERNEL __launch_bounds__(BLOCK) void linear_prepare(const __grid_constant__ Prepare job) {
    __shared__ float sums[32];
    Held<BLOCK> norm;
    if (job.source == NORMED_ROWS) norm.load(job.norm, 0, job.cols);
    let_successors_start();
    wait_for_predecessors();
    const int row = blockIdx.x;
    const int64_t x_row = job.rows_of_x == nullptr ? row : job.rows_of_x[row];
    const float* x = job.x + x_row * job.x_stride;
    const OperandRow operand = row_of(job.operand, row, job.padded, job.padded / 16);
    if (job.wide == nullptr) {
        prepare_row(
            job.source, x, job.norm, norm, job.eps, job.cols, job.padded, operand, sums,
            blockIdx.y, gridDim.y);
        return;
    }
    const WideRow wide = {job.wide + row / 8 * 64 + row % 8 * 8, job.pieces};
    const BothRows both = {wide, operand};
    prepare_row(job.source, x, job.norm, norm, job.eps, job.cols, job.padded, both, sums,
                blockIdx.y, gridDim.y);
}
