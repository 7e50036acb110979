// Puts a matrix of GGUF blocks into the order of `unit.cuh`, bit for bit the same numbers.
//
// A block of 128 threads makes a unit. Each thread makes 16 bytes of its quants and, where the
// format has them, the upper bits that belong to them; the first threads copy the scales.

#include "unit.cuh"

constexpr int THREADS = 128;

__device__ __forceinline__ uint16_t two_bytes(const uint8_t* at) {
    return static_cast<uint16_t>(at[0] | at[1] << 8);
}

// A GGUF matrix, of which rows and columns outside are zeros.
struct Blocks {
    const uint8_t* bytes;
    int64_t row_bytes;
    int rows;
    int cols;

    __device__ __forceinline__ bool has(int row, int col) const { return row < rows && col < cols; }
    __device__ __forceinline__ const uint8_t* row(int row) const { return bytes + row * row_bytes; }
};

// The block of 256 elements with this column.
__device__ __forceinline__ const uint8_t* k_block(int type, const Blocks& from, int row, int col) {
    const int size = type == Q4_K ? 144 : type == Q5_K ? 176 : type == Q6_K ? 210 : 110;
    return from.row(row) + static_cast<int64_t>(col / 256) * size;
}

// An element of a K format without its scale, counted from zero up; of Q3_K as of Q6_K.
__device__ __forceinline__ uint32_t k_quant(int type, const Blocks& from, int row, int col) {
    if (!from.has(row, col)) return 0;
    const uint8_t* block = k_block(type, from, row, col);
    const int group = col % 256 / 32, at = col % 32;
    if (type == Q3_K) {
        const uint32_t third = block[at] >> group & 1;
        return 28 + (two_bits(block + 32, col % 256) | third << 2);
    }
    if (type == Q6_K) {
        const int half = group / 4, run = group % 4;
        const uint32_t nibble = block[64 * half + 32 * (run % 2) + at] >> (4 * (run / 2)) & 15;
        const uint32_t pair = block[128 + 32 * half + at] >> (2 * run) & 3;
        return nibble | pair << 4;
    }
    const uint8_t* nibbles = block + (type == Q5_K ? 48 : 16);
    const uint32_t nibble = nibbles[32 * (group / 2) + at] >> (4 * (group % 2)) & 15;
    const uint32_t fifth = type == Q5_K ? block[16 + at] >> group & 1 : 0;
    return nibble | fifth << 4;
}

// A signed scale of Q6_K, or of Q3_K as if it were one.
__device__ __forceinline__ uint8_t signed_scale(int type, const uint8_t* block, int group) {
    if (type == Q6_K) return block[192 + group];
    const int low = block[96 + group % 8] >> (4 * (group / 8)) & 15;
    const int high = block[104 + group % 4] >> (2 * (group / 4)) & 3;
    return static_cast<uint8_t>((low | high << 4) - 32);
}

// Where the bits of an element stand in a word of nibbles: of rows g (0) or g+8 (1), and of four
// neighbouring columns.
__device__ __forceinline__ int place_of(int upper_row, int col) {
    return 4 * upper_row + 8 * (col / 2) + 16 * (col % 2);
}

template <int FORMAT>
__device__ void repack_k(
    int type, const Blocks& from, int first_row, int first_col, uint8_t* unit) {
    constexpr int bits = FORMAT == Q4_K ? 0 : FORMAT == Q5_K ? 1 : 2;
    const int run = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    uint32_t words[4] = {0, 0, 0, 0}, uppers[2] = {0, 0};
    for (int step = 0; step < 4; step++) {
        const int col = first_col + 64 * run + 16 * step + 4 * t;
        for (int i = 0; i < 8; i++) {
            const int upper_row = i / 4, place = place_of(upper_row, i % 4);
            const uint32_t quant =
                k_quant(type, from, first_row + g + 8 * upper_row, col + i % 4);
            words[step] |= (quant & 15) << place;
            // Above their nibble, and around the end of the word; see `add_upper`.
            const int in_word = bits == 1 ? step : step % 2;
            const int above = (place + 4 + bits * in_word) % 32;
            if (bits > 0) uppers[bits == 1 ? 0 : step / 2] |= (quant >> 4) << above;
        }
    }
    reinterpret_cast<uint4*>(unit)[threadIdx.x] = {words[0], words[1], words[2], words[3]};
    if (FORMAT == Q5_K) {
        *reinterpret_cast<uint32_t*>(unit + Q5_FIFTH + 16 * lane + 4 * run) = uppers[0];
    } else if (FORMAT == Q6_K) {
        const int at = 512 * (run / 2) + 16 * lane + 8 * (run % 2);
        *reinterpret_cast<uint2*>(unit + Q6_UPPER + at) = {uppers[0], uppers[1]};
    }
    const int row = threadIdx.x / 8, group = threadIdx.x % 8;
    const bool has = from.has(first_row + row, first_col);
    const uint8_t* block = has ? k_block(type, from, first_row + row, first_col) : nullptr;
    if (FORMAT == Q6_K) {
        for (int i = 0; i < 2; i++) {
            const int at = 2 * group + i;
            unit[Q6_SCALES + 16 * row + at] = has ? signed_scale(type, block, at) : 0;
        }
        uint16_t* d = reinterpret_cast<uint16_t*>(unit + Q6_D);
        if (group == 0) d[row] = has ? two_bytes(block + (type == Q6_K ? 208 : 108)) : 0;
    } else {
        uint8_t* scales = unit + k_scales(FORMAT);
        int scale = 0, minimum = 0;
        if (has) six_bit_pair(block + 4, group, &scale, &minimum);
        scales[8 * row + group] = scale;
        scales[128 + 8 * row + group] = minimum;
        uint16_t* halves = reinterpret_cast<uint16_t*>(scales + 256) + 2 * row;
        if (group < 2) halves[group] = has ? two_bytes(block + 2 * group) : 0;
    }
}

// An element of a format that Q8_0 can hold, without its scale.
__device__ __forceinline__ int signed_quant(int type, const uint8_t* row, int col) {
    const int64_t block = col / 32;
    const int at = col % 32;
    switch (type) {
        case Q8_0: return static_cast<int8_t>(row[34 * block + 2 + at]);
        case Q4_0: return nibble_of_32(row + 18 * block + 2, at) - 8;
        case Q5_0: {
            const uint8_t* bytes = row + 22 * block;
            return (nibble_of_32(bytes + 6, at) | (bytes[2 + at / 8] >> (at % 8) & 1) << 4) - 16;
        }
        case IQ4_NL: return IQ4_TABLE[nibble_of_32(row + 18 * block + 2, at)];
        default:  // IQ4_XS
            return IQ4_TABLE[nibble_of_32(row + 136 * (block / 8) + 8 + 16 * (block % 8), at)];
    }
}

// Its scale, as a half. That of IQ4_XS is a product, and rounded.
__device__ __forceinline__ uint16_t scale_of_32(int type, const uint8_t* row, int col) {
    const int64_t block = col / 32;
    switch (type) {
        case Q8_0: return two_bytes(row + 34 * block);
        case Q5_0: return two_bytes(row + 22 * block);
        case IQ4_XS: {
            const uint8_t* bytes = row + 136 * (block / 8);
            const int group = block % 8;
            const int low = bytes[4 + group / 2] >> (4 * (group % 2)) & 15;
            const int high = two_bytes(bytes + 2) >> (2 * group) & 3;
            const float scale = half_at(bytes, 0) * ((low | high << 4) - 32);
            return __half_as_ushort(__float2half_rn(scale));
        }
        default: return two_bytes(row + 18 * block);
    }
}

__device__ void repack_q8(
    int type, const Blocks& from, int first_row, int first_col, uint8_t* unit) {
    const int group = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    uint32_t words[4] = {0, 0, 0, 0};
    for (int word = 0; word < 4; word++) {
        const int row = first_row + g + 8 * (word % 2);
        for (int i = 0; i < 4; i++) {
            const int col = first_col + 32 * group + 16 * (word / 2) + 4 * t + i;
            uint32_t quant = 128;
            if (from.has(row, col)) quant += signed_quant(type, from.row(row), col);
            // Neighbours are two bytes apart.
            words[word] |= quant << (8 * (i / 2) + 16 * (i % 2));
        }
    }
    reinterpret_cast<uint4*>(unit)[threadIdx.x] = {words[0], words[1], words[2], words[3]};
    if (threadIdx.x < 64) {
        const int row = first_row + threadIdx.x / 4, col = first_col + 32 * (threadIdx.x % 4);
        uint16_t d = 0;
        if (from.has(row, col)) d = scale_of_32(type, from.row(row), col);
        reinterpret_cast<uint16_t*>(unit + Q8_D)[threadIdx.x] = d;
    }
}

// A float of 16 bits as it is, or made of any format.
__device__ __forceinline__ uint32_t float_bits(
    int format, int type, int elements, int bytes, const uint8_t* row, int col) {
    if (format == type) return two_bytes(row + 2 * static_cast<int64_t>(col));
    const float value = element(type, row, col, elements, bytes);
    return format == BF16 ? __bfloat16_as_ushort(__float2bfloat16_rn(value))
                          : __half_as_ushort(__float2half_rn(value));
}

__device__ void repack_float(
    int format, int type, int elements, int bytes, const Blocks& from, int first_row,
    int first_col, uint8_t* unit) {
    const int step = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    if (step >= unit_cols(format) / 16) return;
    uint32_t words[4] = {0, 0, 0, 0}, rests[4] = {0, 0, 0, 0};
    for (int i = 0; i < 8; i++) {
        const int row = first_row + g + 8 * (i / 4);
        const int col = first_col + 16 * step + 4 * t + i % 4;
        if (!from.has(row, col)) continue;
        const int word = i / 4 + i % 4 / 2 * 2, shift = 16 * (i % 2);
        if (format == F32) {
            const float value = reinterpret_cast<const float*>(from.row(row))[col];
            const __nv_bfloat16 main = __float2bfloat16_rn(value);
            const float rest = value - __bfloat162float(main);
            const uint32_t low = __bfloat16_as_ushort(__float2bfloat16_rn(rest));
            words[word] |= static_cast<uint32_t>(__bfloat16_as_ushort(main)) << shift;
            rests[word] |= low << shift;
        } else {
            words[word] |= float_bits(format, type, elements, bytes, from.row(row), col) << shift;
        }
    }
    reinterpret_cast<uint4*>(unit)[threadIdx.x] = {words[0], words[1], words[2], words[3]};
    if (format == F32) {
        const uint4 packed = {rests[0], rests[1], rests[2], rests[3]};
        reinterpret_cast<uint4*>(unit + F32_REST)[threadIdx.x] = packed;
    }
}

// Takes `rows` rows of blocks of `type`, and is what `units` holds from their first tile on. Grid:
// units of a tile, tiles.
KERNEL __launch_bounds__(THREADS) void linear_repack(
    int format, int type, int block_elements, int block_bytes, const uint8_t* bytes,
    int64_t row_bytes, int rows, int cols, uint8_t* units) {
    const Blocks from = {bytes, row_bytes, rows, cols};
    const int64_t at = static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
    uint8_t* unit = units + at * unit_bytes(format);
    const int row = blockIdx.y * TILE_ROWS, col = blockIdx.x * unit_cols(format);
    switch (format) {
        case Q4_K: return repack_k<Q4_K>(type, from, row, col, unit);
        case Q5_K: return repack_k<Q5_K>(type, from, row, col, unit);
        case Q6_K: return repack_k<Q6_K>(type, from, row, col, unit);
        case Q8_0: return repack_q8(type, from, row, col, unit);
        default:
            return repack_float(format, type, block_elements, block_bytes, from, row, col, unit);
    }
}
