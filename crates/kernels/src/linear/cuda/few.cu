// out = x * weights^T, or added to it, for one or two rows: a user's decode.
//
// Blocks of eight warps, two to a multiprocessor. From Hopper on, a launch has one block for each
// multiprocessor, and the other place is the next launch's: while a launch ends and the next one
// reads its activations, the memory fills the rings of the one after that.
//
// Blocks take whole tiles, and their warps equal runs of the block's units. A warp keeps a ring of
// units on their way into shared memory: while it multiplies one, the others arrive. Until the
// predecessors have ended it asks for one unit at a time: more would keep their activations waiting
// behind weights. A tile that lies within a run is written at once. Of a tile that runs share, each
// warp leaves its part in shared memory, and once, at the end, the warp that has the tile's
// beginning adds the parts up in order.
//
// A gate and what it gates are tiles that follow each other, in one block, which multiplies them.
//
// A row's arithmetic depends on nothing but its own activations, the weights and the number of
// blocks.

#include "few.cuh"
#include "operand.cuh"
#include "ring.cuh"

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / WARP;
constexpr int MOST_PARTS = 4;
constexpr int MOST_ROWS = 2;
constexpr int SUMS = MOST_ROWS * TILE_ROWS;  // Of a tile.

struct Part {
    const uint8_t* units;
    const uint8_t* gated;  // Of what the units are gates of, or null.
    int first_unit;        // Of the units of all parts, one after the other.
    int end_unit;
    int units_of_tile;
    int unit_bytes;
    int format;
    int rows;
    int col;               // Where its outputs begin.
    int unused;

    // Units that stay within a block.
    __device__ __forceinline__ int grain() const {
        return gated == nullptr ? units_of_tile : 2 * units_of_tile;
    }
};

struct Few {
    Part parts[MOST_PARTS];
    const float* x;
    const float* norm;
    float* out;
    const int* rows_of_x;  // Which row of x each row is, or null: its own.
    int x_stride;
    int source;
    float eps;
    int cols;
    int padded;
    int halves;            // Whether a part multiplies halves,
    int floats;            // or sums of two bfloat16.
    int stride;            // Of out.
    int add;
    int units;
    int slot_bytes;
    int slots;             // Of each warp.
    int early_slots;       // Filled before the activations are read.
};

// A tile: its part, its units and its first row.
struct Tile {
    int part;
    int begin;
    int end;
    int row;
    bool gated;  // Whether it is what the tile before it gates.

    // The tile of a unit.
    static __device__ __forceinline__ Tile of(const Few& job, int unit) {
        Tile tile = {};
        while (unit >= job.parts[tile.part].end_unit) tile.part++;
        const Part& of = job.parts[tile.part];
        const unsigned number = static_cast<unsigned>(unit - of.first_unit) / of.units_of_tile;
        tile.begin = of.first_unit + number * of.units_of_tile;
        tile.end = tile.begin + of.units_of_tile;
        tile.gated = of.gated != nullptr && number % 2 == 1;
        tile.row = (of.gated == nullptr ? number : number / 2) * TILE_ROWS;
        return tile;
    }

    // Goes to the next tile.
    __device__ __forceinline__ void advance(const Few& job) {
        begin = end;
        if (begin == job.parts[part].end_unit) {
            part++;
            row = 0;
        } else if (job.parts[part].gated == nullptr) {
            row += TILE_ROWS;
        } else {
            row += gated ? TILE_ROWS : 0;
            gated = !gated;
        }
        end = begin + job.parts[part].units_of_tile;
    }
};

// The runs of a block's warps.
struct Runs {
    int first;
    int last;

    // The first unit of a block: the one whose share comes next, or the next that begins a tile.
    static __device__ __forceinline__ int cut(const Few& job, unsigned block) {
        const int unit = static_cast<int>(static_cast<unsigned>(job.units) * block / gridDim.x);
        if (unit == job.units) return unit;
        int part = 0;
        while (unit >= job.parts[part].end_unit) part++;
        const Part& of = job.parts[part];
        const unsigned grain = of.grain();
        return of.first_unit + (unit - of.first_unit + grain - 1) / grain * grain;
    }

    static __device__ __forceinline__ Runs of(const Few& job) {
        return {cut(job, blockIdx.x), cut(job, blockIdx.x + 1)};
    }

    __device__ __forceinline__ int of_warp(int warp) const {
        return first + static_cast<unsigned>((last - first) * warp) / WARPS;
    }
};

// The units that a warp asks for, one after the other.
struct Asker {
    const uint8_t* at;
    const uint8_t* other;  // Of a gate, where what it gates is, and the other way round.
    int left;              // Units from here on that lie together, and in the run.
    int unit;
    int last;
    int part;
    int size;

    __device__ __forceinline__ Asker(const Few& job, const Tile& tile, int first, int last)
        : unit(first), last(last), part(tile.part) {
        const Part& of = job.parts[part];
        size = of.unit_bytes;
        const int64_t tile_bytes = static_cast<int64_t>(of.units_of_tile) * size;
        const int64_t before = tile.row / TILE_ROWS * tile_bytes;
        const int within = (first - tile.begin) * size;
        at = (tile.gated ? of.gated : of.units) + before + within;
        // Gates' tiles are ahead by one while what they gate is asked for.
        other = tile.gated ? of.units + before + tile_bytes : of.gated + before;
        left = (of.gated == nullptr ? of.end_unit : tile.end) - first;
    }

    // Asks for the next unit, if there is one.
    __device__ __forceinline__ void ask(const Few& job, const Ring& ring, int slot, int lane) {
        if (unit == last) return;
        ring.ask(slot, at, size, lane);
        unit++;
        at += size;
        if (--left == 0 && unit < last) turn(job);
    }

    __device__ __forceinline__ void turn(const Few& job) {
        if (unit == job.parts[part].end_unit) {
            part++;
            at = job.parts[part].units;
            other = job.parts[part].gated;
            size = job.parts[part].unit_bytes;
        } else {
            const uint8_t* next = other;
            other = at;
            at = next;
        }
        const Part& of = job.parts[part];
        left = of.gated == nullptr ? of.end_unit - unit : of.units_of_tile;
    }
};

// A block's shared memory behind its rings.
struct Shared {
    OperandRow operand;
    int pitch;       // Columns between two rows: their banks differ.
    float* sums;     // 32 floats.
    float* parts;    // [warp][tile in which its run begins, tile in which it ends][SUMS]
    float* pairs;    // [pair][gate, gated][SUMS]

    __device__ __forceinline__ Shared(const Few& job, int rows, uint8_t* at) {
        pitch = job.padded + 32;
        operand = {nullptr, nullptr, nullptr, nullptr};
        if (job.halves) {
            operand.half = reinterpret_cast<__half*>(at);
            at += 2 * rows * pitch;
        }
        if (job.floats) {
            operand.high = reinterpret_cast<uint16_t*>(at);
            operand.low = operand.high + rows * pitch;
            at += 4 * rows * pitch;
        }
        sums = reinterpret_cast<float*>(at);
        parts = sums + 32;
        pairs = parts + 2 * WARPS * SUMS;
    }

    __device__ __forceinline__ OperandRow row(int row) const {
        const int at = row * pitch;
        return {operand.half == nullptr ? nullptr : operand.half + at, nullptr,
                operand.high == nullptr ? nullptr : operand.high + at,
                operand.high == nullptr ? nullptr : operand.low + at};
    }

    __device__ __forceinline__ float* part(int warp, bool ends) const {
        return parts + (2 * warp + ends) * SUMS;
    }
};

// Where the sums of a block's tiles go.
struct Outputs {
    const Few& job;
    const Shared& shared;
    int first_unit;  // Of the block.

    __device__ __forceinline__ float* at(const Part& of, int row, int line) const {
        return job.out + static_cast<int64_t>(line) * job.stride + of.col + row;
    }

    // What is there before, of a tile's sum.
    __device__ __forceinline__ float before(const Tile& tile, int sum) const {
        const Part& of = job.parts[tile.part];
        const int row = tile.row + sum % TILE_ROWS;
        return job.add && row < of.rows ? *at(of, row, sum / TILE_ROWS) : 0.0f;
    }

    __device__ __forceinline__ void put(
        const Tile& tile, int sum, float value, float before) const {
        const Part& of = job.parts[tile.part];
        const int row = tile.row + sum % TILE_ROWS;
        if (of.gated != nullptr) {
            shared.pairs[(tile.begin - first_unit) / of.units_of_tile * SUMS + sum] = value;
        } else if (row < of.rows) {
            *at(of, row, sum / TILE_ROWS) = value + before;
        }
    }

    // Multiplies gates by what they gate, of which a launch has no other parts than one.
    template <int ROWS>
    __device__ __forceinline__ void put_pairs(int last_unit) const {
        const Part& of = job.parts[0];
        if (of.gated == nullptr) return;
        __syncthreads();
        const int first_row = first_unit / of.grain() * TILE_ROWS;
        const int items = (last_unit - first_unit) / of.grain() * ROWS * TILE_ROWS;
        for (int item = threadIdx.x; item < items; item += THREADS) {
            const int pair = item / (ROWS * TILE_ROWS), sum = item % (ROWS * TILE_ROWS);
            const int row = first_row + pair * TILE_ROWS + sum % TILE_ROWS;
            const float* values = shared.pairs + 2 * pair * SUMS + sum;
            if (row < of.rows) *at(of, row, sum / TILE_ROWS) = silu(values[0]) * values[SUMS];
        }
    }
};

// Where a warp is: its next unit and the slot in which it arrives.
struct Reader {
    int unit;
    int slot;
    int phase;

    // The sums of a warp's units before `end`, with `multiply(unit, column)`.
    template <class F>
    __device__ __forceinline__ void units(
        const Few& job, const Ring& ring, const uint8_t* slots, int begin, int end, int cols,
        int lane, Asker& asker, const F& multiply) {
        int col = (unit - begin) * cols;
#pragma unroll 1
        for (; unit < end; unit++, col += cols) {
            ring.wait(slot, phase);
            multiply(slots + slot * ring.bytes, col);
            __syncwarp();
            asker.ask(job, ring, slot, lane);
            if (++slot == ring.count) slot = 0, phase ^= 1;
        }
    }
};

// The sums of four lanes, each with some groups' products.
__device__ __forceinline__ void add_lanes(float (&acc)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        acc[i] += __shfl_xor_sync(0xffffffffu, acc[i], 1);
        acc[i] += __shfl_xor_sync(0xffffffffu, acc[i], 2);
    }
}

// Puts the rows into shared memory, normed if that is what is multiplied; then they fit a Held.
template <int ROWS>
__device__ __forceinline__ void stage(
    const Few& job, const Held<THREADS>& norm, const Shared& shared) {
#pragma unroll 1
    for (int row = 0; row < ROWS; row++) {
        const int64_t x_row = job.rows_of_x == nullptr ? row : job.rows_of_x[row];
        const float* x = job.x + x_row * job.x_stride;
        const OperandRow to = shared.row(row);
#pragma unroll 1
        for (int first = 0; first < job.padded; first += HELD_COLS) {
            Held<THREADS> held;
            held.load_eights(x, first, job.cols);
            if (job.source == NORMED_ROWS) {
                const float squares = block_sum(held.squares(), shared.sums);
                held.scale(rsqrtf(squares / job.cols + job.eps), norm);
            }
            held.store(to, first, job.padded);
        }
    }
    __syncthreads();
}

// Adds up the tile in which a warp's run ends, if it began there.
__device__ __forceinline__ void combine(
    const Outputs& outputs, const Runs& runs, const Tile& tile, int warp, int sum, float before) {
    float value = outputs.shared.part(warp, true)[sum];
    for (int next = warp + 1; next < WARPS && runs.of_warp(next) < tile.end; next++) {
        if (runs.of_warp(next) < runs.of_warp(next + 1)) {
            value += outputs.shared.part(next, false)[sum];
        }
    }
    outputs.put(tile, sum, value, before);
}

template <int ROWS>
__device__ __forceinline__ void few(const Few& job) {
    extern __shared__ __align__(128) uint8_t memory[];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    let_successors_start();
    const int ring_bytes = job.slots * job.slot_bytes;
    uint8_t* const slots = memory + warp * ring_bytes;
    uint8_t* const barriers = memory + WARPS * ring_bytes;
    const Ring ring = {shared_address(slots), shared_address(barriers) + warp * job.slots * 8,
                       job.slot_bytes, job.slots};
    const Shared shared(job, ROWS, barriers + WARPS * job.slots * 8);
    ring.open(lane);

    const Runs runs = Runs::of(job);
    const int first = runs.of_warp(warp), last = runs.of_warp(warp + 1);
    Tile tile = Tile::of(job, min(first, job.units - 1));
    Asker asker(job, tile, first, last);
    Held<THREADS> norm;
    if (job.source == NORMED_ROWS) norm.load_eights(job.norm, 0, job.cols);
    for (int slot = 0; slot < job.early_slots; slot++) {
        if (slot > 0 && first + slot <= last) ring.wait(slot - 1, 0);
        asker.ask(job, ring, slot, lane);
    }
    // The tile that this warp will add up.
    const Tile last_tile = Tile::of(job, min(max(first, last - 1), job.units - 1));
    const bool adds_up = first < last && last_tile.begin >= first && last_tile.end > last &&
                         lane < ROWS * TILE_ROWS;
    wait_for_predecessors();

    const Outputs outputs = {job, shared, runs.first};
    const float before = adds_up ? outputs.before(last_tile, lane) : 0.0f;
    stage<ROWS>(job, norm, shared);
    for (int slot = job.early_slots; slot < ring.count; slot++) asker.ask(job, ring, slot, lane);
    const FewActivations<ROWS> x(shared.operand.half, shared.pitch, Lane::of(lane));
    const OperandRow own = shared.row(min(lane / 4, ROWS - 1));
    const Activations<1> plain = {{own.half}, {nullptr}, {own.high}, {own.low}};

    Reader reader = {first, 0, 0};
#pragma unroll 1
    for (; reader.unit < last; tile.advance(job)) {
        const Part& of = job.parts[tile.part];
        const int end = min(tile.end, last);
        float acc[1][4] = {};
#define UNITS(FORMAT, ...)                                                                        \
    case FORMAT:                                                                                  \
        reader.units(job, ring, slots, tile.begin, end, unit_cols(FORMAT), lane, asker,           \
                     [&](const uint8_t* unit, int col) { __VA_ARGS__; });                         \
        break;
#define FEW(FORMAT) UNITS(FORMAT, MultiplyFew<FORMAT, ROWS>::run(unit, x, col, lane, acc[0]))
#define PLAIN(FORMAT) UNITS(FORMAT, Multiply<FORMAT, 1>::run(unit, plain, col, lane, acc))
        switch (of.format) {
            FEW(Q4_K)
            FEW(Q5_K)
            FEW(Q6_K)
            FEW(Q8_0)
            PLAIN(F16)
            PLAIN(BF16)
            PLAIN(F32)
        }
#undef PLAIN
#undef FEW
#undef UNITS
        if (of.format != F16 && of.format != BF16 && of.format != F32) add_lanes(acc[0]);
        const bool whole = tile.begin >= first && tile.end <= last;
        float* const part = shared.part(warp, tile.begin >= first);
        if (lane % 4 == 0) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if (i % 2 >= ROWS) continue;
                const int sum = i % 2 * TILE_ROWS + lane / 4 + i / 2 * 8;
                if (whole) {
                    outputs.put(tile, sum, acc[0][i], outputs.before(tile, sum));
                } else {
                    part[sum] = acc[0][i];
                }
            }
        }
    }
    __syncthreads();
    if (adds_up) combine(outputs, runs, last_tile, warp, lane, before);
    outputs.put_pairs<ROWS>(runs.last);
}

KERNEL __launch_bounds__(THREADS, 2) void linear_one(const __grid_constant__ Few job) {
    few<1>(job);
}

KERNEL __launch_bounds__(THREADS, 2) void linear_two(const __grid_constant__ Few job) {
    few<2>(job);
}
