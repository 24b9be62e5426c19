// Products of matrices, for all kernels: bias + left [rows, depth] x right [depth, columns].
//
//                 rows (left operand)                   columns (right operand)    depth
//   Dense         tokens, where they lie                outputs (packed weights)   inputs
//   convolution   pixels of a row, where they lie       outputs (packed weights)   9 taps x inputs
//   mix           tokens (the matrix as it is)          channels (packed tokens)   tokens
//
// A left operand is rows of a map or a buffer, a right one [columns / NR][depth / PACK][NR][PACK]. Sums stay in
// registers until `finish(row, column, rows)` gets some of their rows, NR columns wide: activation, residual, rounding
// and storing are its work. Formats of operands:
//   Full  float32 in vectors
//   Half  bfloat16: in tiles (tiles.h), in AVX-512's vectors, or where there is neither as Full

#pragma once

#include "memory.h"

#define EACH(v) UNROLL for (int r = 0; r < int(sizeof v / sizeof v[0]); ++r) UNROLL for (int i = 0; i < NV; ++i)

namespace {

struct Full {
    using Operand = float;
    static constexpr int PACK = 1;      // values along k that a lane multiplies at once
    static constexpr int TOKENS = 32;  // that a window's steps take at a time
    static constexpr bool TILED = false;
    static INLINE Vec multiply_add(Vec sum, const Operand* a, Vec b) { return sum + *a * b; }
    static Operand operand(float x) { return x; }
    static INLINE Vec gelu(Vec v) { return ::gelu(v); }

    // Some rows along k and NR columns into a right operand.
    template <int M>
    static INLINE void put_right(Operand* right, int64_t column, int64_t k, int64_t depth, const Rows<M>& v) {
        UNROLL for (int r = 0; r < M; ++r) store(right + column * depth + (k + r) * NR, v[r]);
    }
};

#if defined(HAVE_TILES) || defined(__AVX512BF16__)
struct Half {
    using Operand = Bf16;
    static constexpr int PACK = 2;
#ifdef HAVE_TILES
    static constexpr int TOKENS = 64;
    static constexpr bool TILED = true;
#else
    static constexpr int TOKENS = 32;
    static constexpr bool TILED = false;
    static INLINE Vec multiply_add(Vec sum, const Operand* a, Vec b) {
        return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(read<int>(a)), (__m512bh)b);
    }
#endif
    static Operand operand(float x) {  // as rounded()
        uint32_t bits;
        std::memcpy(&bits, &x, sizeof bits);
        return Operand(x == x ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fc0);
    }
    static INLINE Vec gelu(Vec v) { return gelu_of_half(v); }

    template <int M>
    static INLINE void put_right(Operand* right, int64_t column, int64_t k, int64_t depth, const Rows<M>& v) {
        UNROLL for (int r = 0; r < M; r += 2) {
            const Pair a = rounded(v[r]), b = rounded(v[r + 1]);
            Operand* to = right + column * depth + (k + r) * NR;
            write(to, interleave<0>(a, b)), write(to + NR, interleave<1>(a, b));
        }
    }
};
#else
using Half = Full;
#endif

// Where a right operand has the weight from k to a column.
template <class P>
INLINE int64_t right_index(int64_t column, int64_t k, int64_t depth) {
    return column / NR * NR * depth + k / P::PACK * NR * P::PACK + column % NR * P::PACK + k % P::PACK;
}

// Some rows into a buffer or a map.
template <int M, class T>
INLINE void put(T* to, int64_t stride, const Rows<M>& v) {
    UNROLL for (int r = 0; r < M; ++r) store(to + r * stride, v[r]);
}

// A left operand, or a part of its depth: rows of `depth` values, `stride` apart.
template <class P>
struct Left {
    const typename P::Operand* at;
    int64_t stride, depth;
};

// All of a left operand's depth.
template <class P>
struct Parts {
    const Left<P>* first;
    int count;

    Parts(const Left<P>* first, int count) : first(first), count(count) {}
    Parts(const Left<P>& one) : first(&one), count(1) {}
    const Left<P>* begin() const { return first; }
    const Left<P>* end() const { return first + count; }
};

// In vectors, M rows at a time; rows: a multiple of M.
template <class P, int M, class Finish>
INLINE void multiply_vectors(int64_t rows, Parts<P> left, const typename P::Operand* right, const float* bias,
                             int64_t columns, const Finish& finish) {
    for (int64_t c = 0; c < columns; c += NR) {
        const auto* block = right;
        for (int64_t row = 0; row < rows; row += M) {
            Rows<M> sum;
            EACH(sum) sum[r][i] = bias ? load(bias + c + i * W) : Vec{};
            right = block;
            for (const Left<P>& part : left) {
                const auto* a = part.at + row * part.stride;
#pragma GCC unroll 4
                for (int64_t k = 0; k < part.depth; k += P::PACK, right += NR * P::PACK) {
                    Vec b[NV];
                    UNROLL for (int i = 0; i < NV; ++i) b[i] = read<Vec>(right + i * W * P::PACK);
                    EACH(sum) sum[r][i] = P::multiply_add(sum[r][i], a + r * part.stride + k, b[i]);
                }
            }
            finish(row, c, sum);
        }
    }
}

#ifdef HAVE_TILES
// In tiles; rows: a multiple of 2. The left operand is read up to a multiple of SIDE rows.
//
// A sum of SIDE x SIDE is four tiles, made from two left and two right ones a step (four loads for four products). It
// goes through a buffer to the vectors that finish it. There are two, because rows of the sum before are finished
// *between* the products: a processor overlaps one product (16 cycles) with the vectors that follow it, but products
// that stand together fill its queue, and the vectors behind them wait.
template <class P, class Finish>
INLINE void multiply_tiles(int64_t rows, Parts<P> left, const Bf16* right, const float* bias, int64_t columns,
                           const Finish& finish) {
    constexpr int SIDE = 2 * TILE_ROWS, AT_ONCE = 2;
    constexpr int64_t FEW_STEPS = 2;  // up to so many, rows are better finished after the products
    static_assert(SIDE == NR && TILE_COLUMNS == W);
    alignas(64) float buffers[2][SIDE * SIDE];
    int64_t last_row = 0, last_column = 0, next = SIDE, steps = 0;
    int which = 0;
    for (const Left<P>& part : left) steps += part.depth / TILE_K;
    auto finish_some = [&](int64_t count) ALWAYS_INLINE {
        for (; count > 0 && next < SIDE; count -= AT_ONCE, next += AT_ONCE) {
            if (last_row + next >= rows) continue;
            Rows<AT_ONCE> v;
            EACH(v) v[r][i] = load(buffers[which] + (next + r) * SIDE + i * W);
            finish(last_row + next, last_column, v);
        }
    };
    const int64_t between = steps <= FEW_STEPS ? 0 : (SIDE + 4 * steps - 1) / (4 * steps);
    for (int64_t c = 0; c < columns; c += SIDE) {
        const Bf16* block = right;
        for (int64_t row = 0; row < rows; row += SIDE) {
            if (bias) {  // repeated for all rows
                Tiles::load<0>(bias + c, 0), Tiles::load<1>(bias + c + W, 0);
                Tiles::load<2>(bias + c, 0), Tiles::load<3>(bias + c + W, 0);
            } else {
                Tiles::zero<0>(), Tiles::zero<1>(), Tiles::zero<2>(), Tiles::zero<3>();
            }
            right = block;
            for (const Left<P>& part : left) {
                const Bf16* a = part.at + row * part.stride;
                for (int64_t k = 0; k < part.depth; k += TILE_K, a += TILE_K, right += TILE_K * NR) {
                    Tiles::load<4>(a, 2 * part.stride), Tiles::load<6>(right, 2 * TILE_BYTES);
                    Tiles::dot<0, 4, 6>();
                    finish_some(between);
                    Tiles::load<7>(right + TILE_BYTES / 2, 2 * TILE_BYTES);
                    Tiles::dot<1, 4, 7>();
                    finish_some(between);
                    Tiles::load<5>(a + TILE_ROWS * part.stride, 2 * part.stride);
                    Tiles::dot<2, 5, 6>();
                    finish_some(between);
                    Tiles::dot<3, 5, 7>();
                    finish_some(between);
                }
            }
            finish_some(SIDE);
            which ^= 1;
            float* sum = buffers[which];
            Tiles::store<0>(sum, 4 * SIDE), Tiles::store<1>(sum + W, 4 * SIDE);
            Tiles::store<2>(sum + TILE_ROWS * SIDE, 4 * SIDE), Tiles::store<3>(sum + TILE_ROWS * SIDE + W, 4 * SIDE);
            last_row = row, last_column = c, next = 0;
        }
    }
    finish_some(SIDE);
}
#endif

template <class P, class Finish>
INLINE void multiply(int64_t rows, Parts<P> left, const typename P::Operand* right, const float* bias, int64_t columns,
                     const Finish& finish) {
#ifdef HAVE_TILES
    if constexpr (P::TILED) return multiply_tiles(rows, left, right, bias, columns, finish);
#endif
    if constexpr (!P::TILED) multiply_vectors<P, MR>(rows, left, right, bias, columns, finish);
}

// ---- Weights ----------------------------------------------------------------------------------------------

// A Dense: [outputs, inputs], rows `stride` apart. The LayerNorm before it only normalises: its gamma and beta (or
// NULL) are in these weights and biases.
template <class P>
struct Dense {
    const int64_t inputs, outputs;
    typename P::Operand* const right;
    float* const bias;

    Dense(Arena& arena, int64_t outputs, int64_t inputs, const float* w, const float* b, int64_t stride,
          const float* gamma = nullptr, const float* beta = nullptr)
        : inputs(inputs), outputs(outputs), right(arena.take<typename P::Operand>(outputs * inputs)),
          bias(arena.take<float>(outputs)) {
        for (int64_t o = 0; o < outputs; ++o) {
            double sum = b ? b[o] : 0;
            for (int64_t k = 0; k < inputs; ++k) {
                const float weight = w[o * stride + k];
                right[right_index<P>(o, k, inputs)] = P::operand(gamma ? weight * gamma[k] : weight);
                sum += beta ? double(weight) * beta[k] : 0;
            }
            bias[o] = float(sum);
        }
    }

    // Of tokens [rows, inputs].
    template <class Finish>
    INLINE void multiply(int64_t rows, const typename P::Operand* tokens, const Finish& finish) const {
        ::multiply<P>(rows, Left<P>{tokens, inputs, inputs}, right, bias, outputs, finish);
    }
};

// A mix of tokens: output t is the sum of matrix[t, k] token[k], and bias[t] + more.
template <class P>
struct Mix {
    const int64_t tokens;
    typename P::Operand* const matrix;
    float* const bias;

    Mix(Arena& arena, int64_t tokens, const float* w, const float* b, float more)
        : tokens(tokens), matrix(arena.take<typename P::Operand>(tokens * tokens)), bias(arena.take<float>(tokens)) {
        for (int64_t i = 0; i < tokens * tokens; i += NR) {
            const Vec v[NV] = {load(w + i), load(w + i + W)};
            store(matrix + i, v);
        }
        for (int64_t t = 0; t < tokens; ++t) bias[t] = b[t] + more;
    }

    // Outputs [first, first + rows), from tokens that put_right() has packed.
    template <class Finish>
    INLINE void multiply(int64_t first, int64_t rows, const typename P::Operand* packed, int64_t channels,
                         const Finish& finish) const {
        ::multiply<P>(rows, Left<P>{matrix + first * tokens, tokens, tokens}, packed, nullptr, channels,
                      [&](int64_t t, int64_t c, auto& v) ALWAYS_INLINE {
                          EACH(v) v[r][i] += bias[first + t + r];
                          finish(t, c, v);
                      });
    }
};

// ---- LayerNorm --------------------------------------------------------------------------------------------

// LayerNorm without gamma and beta of `count` tokens (a multiple of W) that lie at(token): put(token, channel, rows)
// for two tokens and NR channels.
template <class At, class Put>
INLINE void normalise(int64_t count, int64_t channels, const At& at, const Put& put) {
    const float inverse = 1 / float(channels);
    for (int64_t t = 0; t < count; t += W) {
        Vec sum[W], square[W];
        float mean[W], scale[W];
        for (int j = 0; j < W; ++j) {
            const auto* x = at(t + j);
            Vec v = load(x);
            for (int64_t c = W; c < channels; c += W) v += load(x + c);
            sum[j] = v;
        }
        write(mean, sums(sum) * inverse);
        for (int j = 0; j < W; ++j) {
            const auto* x = at(t + j);
            Vec v = {};
            for (int64_t c = 0; c < channels; c += W) {
                const Vec d = load(x + c) - mean[j];
                v += d * d;
            }
            square[j] = v;
        }
        write(scale, inverse_sqrt(sums(square) * inverse + 1e-6f));
        for (int j = 0; j < W; j += 2) {
            const decltype(at(0)) x[2] = {at(t + j), at(t + j + 1)};
            for (int64_t c = 0; c < channels; c += NR) {
                Rows<2> v;
                EACH(v) v[r][i] = (load(x[r] + c + i * W) - mean[j + r]) * scale[j + r];
                put(t + j, c, v);
            }
        }
    }
}

}  // namespace
