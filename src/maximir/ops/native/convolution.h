// 3 x 3 convolutions of rows of maps, and the residual channel attention block that they make.

#pragma once

#include <array>

#include "products.h"

// A convolution of rows: `in` is [images, rows, width, inputs], `out` [images, rows + top + bottom - 2, width,
// outputs], both float32 and contiguous; the weights are torch's [outputs, inputs, 3, 3].
struct Convolution {
    int64_t images, rows, width, inputs, outputs;  // width: even; inputs: a multiple of 16 or few; outputs: of 32
    int32_t top, bottom;                           // whether a row of padding comes before, and behind
    int32_t replicate;                             // what pads: the outermost pixels; otherwise zeros
    int32_t threads;                               // with the caller's
    float negative_slope;                          // of a leaky ReLU that follows; 1: none
};

// Rows of maps [images, height, width, channels], for the kernels below. Maps are feature maps where nothing else is
// said.
struct MapRows {
    int64_t images, height, width, channels;  // width: a multiple of 16; channels: of 32
    int64_t first, last;                      // rows of the result, of each image
    int32_t half;                             // feature maps and operands of products are bfloat16, not float32
    int32_t replicate;                        // convolutions are padded by the outermost pixels; otherwise by zeros
    int32_t threads;                          // with the caller's
};

struct RcabWeights {
    const float *gamma, *beta, *w1, *b1, *w2, *b2;
};

struct SamWeights {
    const float *features_w, *features_b, *attention_w, *attention_b;
    int64_t picture_channels;  // few: 3, or 12 of squares of pixels
};

struct PictureWeights {
    const float *w, *b;
    int64_t picture_channels;
};

namespace {

bool by_winograd(const Convolution& s) { return s.inputs % 16 == 0; }

bool valid(const Convolution& s) {
    return s.images > 0 && s.width > 0 && s.width % (by_winograd(s) ? 2 : MR) == 0 && s.inputs > 0 &&
           s.outputs > 0 && s.outputs % 32 == 0 && s.threads > 0 && s.rows + s.top + s.bottom > 2;
}

bool valid(const MapRows& s) {
    return s.images > 0 && s.width > 0 && s.width % 16 == 0 && s.channels > 0 && s.channels % 32 == 0 &&
           0 <= s.first && s.first <= s.last && s.last <= s.height && s.threads > 0;
}

// Some output rows of a convolution from the rows around them. make(width, at, buffer, finish): at(row, column) is an
// input pixel, row 0 above the outputs and column -1 to the left; finish(row, column, channel, rows) gets some outputs
// that follow each other. A filter has
//   ROWS           that it makes at a time
//   buffer(width)  floats that a thread lends it
template <class P>
class Filter;

// Float32 and few channels, as of images, by the plain formula.
class ImageFilter {
   public:
    static constexpr int ROWS = 1;
    int64_t buffer(int64_t width) const { return 3 * (width + 2) * C; }

    ImageFilter(Arena& arena, const float* weights, const float* bias, int64_t inputs, int64_t outputs)
        : C(inputs), O(outputs), bias(bias), right(arena.take<float>(9 * inputs * outputs)) {
        for (int64_t o = 0; o < O; ++o)
            for (int64_t c = 0; c < C; ++c)
                for (int tap = 0; tap < 9; ++tap)
                    right[right_index<Full>(o, tap * C + c, 9 * C)] = weights[(o * C + c) * 9 + tap];
    }

    template <class At, class Finish>
    INLINE void make(int64_t width, const At& at, float* padded, const Finish& finish) const {
        Left<Full> rows[3];
        for (int row = 0; row < 3; ++row) {
            float* to = padded + row * (width + 2) * C;
            rows[row] = {to, C, 3 * C};
            for (int64_t column = -1; column <= width; ++column, to += C) {
                const float* from = at(row, column);
                for (int64_t c = 0; c < C; ++c) to[c] = from[c];
            }
        }
        multiply_vectors<Full, MR>(width, {rows, 3}, right, bias, O, [&](int64_t column, int64_t o, auto& v)
                                       ALWAYS_INLINE { finish(0, column, o, v); });
    }

   private:
    const int64_t C, O;
    const float* const bias;
    float* const right;
};

// Float32, by Winograd, F(2 x 2, 3 x 3): a tile of 2 x 2 outputs is A' [(G g G') . (B' d B)] A of its 4 x 4 inputs d, so
// 16 products stand for 36. Each of the 16 is a matrix product over channels, [tiles, inputs] x [inputs, outputs].
// (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016.)
template <>
class Filter<Full> {
   public:
    static constexpr int ROWS = 2;
    int64_t buffer(int64_t) const { return PRODUCTS * some * (C + O); }

    Filter(Arena& arena, const float* weights, const float* bias, int64_t inputs, int64_t outputs)
        : C(inputs), O(outputs), some(C + O > 128 ? 12 : 24), bias(bias),
          packed(arena.take<float>(PRODUCTS * inputs * outputs)) {
        auto rows = [](Vec a, Vec b, Vec c, Vec(&out)[4]) ALWAYS_INLINE {
            out[0] = a, out[1] = (a + b + c) * 0.5f, out[2] = (a - b + c) * 0.5f, out[3] = c;
        };
        for (int64_t o = 0; o < O; o += W)
            for (int64_t c = 0; c < C; ++c) {
                Vec g[3][3], half[3][4], u[4];
                for (int tap = 0; tap < 9; ++tap)
                    for (int lane = 0; lane < W; ++lane)
                        g[tap / 3][tap % 3][lane] = weights[((o + lane) * C + c) * 9 + tap];
                UNROLL for (int r = 0; r < 3; ++r) rows(g[r][0], g[r][1], g[r][2], half[r]);
                UNROLL for (int x = 0; x < 4; ++x) {
                    rows(half[0][x], half[1][x], half[2][x], u);
                    UNROLL for (int y = 0; y < 4; ++y)
                        store(packed + (4 * y + x) * C * O + (o / NR * C + c) * NR + o % NR, u[y]);
                }
            }
    }

    template <class At, class Finish>
    INLINE void make(int64_t width, const At& at, float* d, const Finish& finish) const {
        float* m = d + PRODUCTS * some * C;
        for (int64_t first = 0; first < width / 2; first += some) {
            const int64_t tiles = std::min(some, width / 2 - first), whole = tiles / TILES * TILES;
            for (int64_t tile = 0; tile < tiles; ++tile) {
                const float* from[4][4];
                for (int i = 0; i < 16; ++i) from[i / 4][i % 4] = at(i / 4, 2 * (first + tile) + i % 4 - 1);
                for (int64_t c = 0; c < C; c += W) {
                    Vec v[4][4];
                    UNROLL for (int x = 0; x < 4; ++x) {
                        Vec p[4];
                        UNROLL for (int r = 0; r < 4; ++r) p[r] = load(from[r][x] + c);
                        v[0][x] = p[0] - p[2], v[1][x] = p[1] + p[2];
                        v[2][x] = p[2] - p[1], v[3][x] = p[1] - p[3];
                    }
                    UNROLL for (int r = 0; r < 4; ++r) {
                        float* to = d + (4 * r * some + tile) * C + c;
                        const int64_t next = some * C;
                        store(to, v[r][0] - v[r][2]), store(to + next, v[r][1] + v[r][2]);
                        store(to + 2 * next, v[r][2] - v[r][1]), store(to + 3 * next, v[r][1] - v[r][3]);
                    }
                }
            }
            for (int product = 0; product < PRODUCTS; ++product) {
                const float *a = d + product * some * C, *w = packed + product * C * O;
                float* to = m + product * some * O;
                auto keep = [&](int64_t tile, int64_t o, auto& v) ALWAYS_INLINE { put(to + tile * O + o, O, v); };
                multiply_vectors<Full, TILES>(whole, Left<Full>{a, C, C}, w, nullptr, O, keep);
                to += whole * O;
                multiply_vectors<Full, 1>(tiles - whole, Left<Full>{a + whole * C, C, C}, w, nullptr, O, keep);
            }
            for (int64_t tile = 0; tile < tiles; ++tile)
                for (int64_t o = 0; o < O; o += NR) {
                    Rows<2> result[2];
                    UNROLL for (int i = 0; i < NV; ++i) {
                        Vec z[2][4], b = load(bias + o + i * W);
                        UNROLL for (int x = 0; x < 4; ++x) {
                            Vec p[4];
                            UNROLL for (int r = 0; r < 4; ++r)
                                p[r] = load(m + ((4 * r + x) * some + tile) * O + o + i * W);
                            z[0][x] = p[0] + p[1] + p[2], z[1][x] = p[1] - p[2] - p[3];
                        }
                        UNROLL for (int r = 0; r < 2; ++r) {
                            result[r][0][i] = z[r][0] + z[r][1] + z[r][2] + b;
                            result[r][1][i] = z[r][1] - z[r][2] - z[r][3] + b;
                        }
                    }
                    UNROLL for (int r = 0; r < 2; ++r) finish(r, 2 * (first + tile), o, result[r]);
                }
        }
    }

   private:
    static constexpr int PRODUCTS = 16;
#ifdef __AVX512F__
    static constexpr int TILES = 12;  // rows of a sum
#else
    static constexpr int TILES = 6;
#endif
    const int64_t C, O, some;  // some: tiles at a time, so that they and their products stay in the caches
    const float* const bias;
    float* const packed;  // G g G', for each product a right operand
};

#if defined(HAVE_TILES) || defined(__AVX512BF16__)
// Bfloat16, by the plain formula: pixels of a row follow each other, and with them three taps.
template <>
class Filter<Half> {
   public:
    static constexpr int ROWS = 1;
    int64_t buffer(int64_t) const { return 1; }

    Filter(Arena& arena, const float* weights, const float* bias, int64_t inputs, int64_t outputs)
        : C(inputs), O(outputs), bias(bias), right(arena.take<Bf16>(9 * inputs * outputs)) {
        for (int64_t o = 0; o < O; ++o)
            for (int64_t c = 0; c < C; ++c)
                for (int tap = 0; tap < 9; ++tap)
                    right[right_index<Half>(o, tap * C + c, 9 * C)] = Half::operand(weights[(o * C + c) * 9 + tap]);
    }

    template <class At, class Finish>
    INLINE void make(int64_t width, const At& at, float*, const Finish& finish) const {
        const Left<Half> rows[3] = {{at(0, -1), C, 3 * C}, {at(1, -1), C, 3 * C}, {at(2, -1), C, 3 * C}};
        multiply<Half>(width, {rows, 3}, right, bias, O,
                       [&](int64_t column, int64_t o, auto& v) ALWAYS_INLINE { finish(0, column, o, v); });
    }

   private:
    const int64_t C, O;
    const float* const bias;
    Bf16* const right;
};
#endif

template <class Filter>
void convolve(const Convolution& s, const float* in, const float* weights, const float* bias, float* out) {
    const int64_t C = s.inputs, O = s.outputs, height = s.rows + s.top + s.bottom - 2;
    const int64_t jobs = (height + Filter::ROWS - 1) / Filter::ROWS;
    Arena arena;
    const Filter filter(arena, weights, bias, C, O);
    float* buffers = arena.take<float>(s.threads * filter.buffer(s.width));
    float* zeros = arena.take<float>(C);
    std::fill(zeros, zeros + C, 0.0f);

    parallel(s.threads, 0, s.images * jobs, 2, [&](int thread, int64_t job) {
        const int64_t image = job / jobs, y = job % jobs * Filter::ROWS;
        const float* map = in + image * s.rows * s.width * C;
        float* result = out + (image * height + y) * s.width * O;
        auto pixel = [&](int64_t i, int64_t column) {
            int64_t row = y + i - s.top;
            bool outside = row < 0 || row >= s.rows || column < 0 || column >= s.width;
            if (outside && !s.replicate) return static_cast<const float*>(zeros);
            row = std::clamp<int64_t>(row, 0, s.rows - 1);
            return map + (row * s.width + std::clamp<int64_t>(column, 0, s.width - 1)) * C;
        };
        filter.make(s.width, pixel, buffers + thread * filter.buffer(s.width),
                    [&](int64_t row, int64_t column, int64_t o, auto& v) ALWAYS_INLINE {
                        if (y + row >= height) return;
                        EACH(v) v[r][i] = leaky(v[r][i], s.negative_slope);
                        put(result + (row * s.width + column) * O + o, O, v);
                    });
    });
}

// Some rows of a map that is made from above to below, with a pixel of padding at both ends.
template <class T>
class Ring {
   public:
    Ring(Arena& arena, const MapRows& s, int64_t channels)
        : height(s.height), width(s.width), C(channels), stride(((s.width + 31) / 32 * 32 + 2) * channels),
          replicate(s.replicate), rows(arena.take<T>((COUNT + 1) * stride)) {
        std::fill(rows, rows + (COUNT + 1) * stride, T{});
    }

    bool outside(int64_t row) const { return row < 0 || row >= height; }
    INLINE T* operator[](int64_t row) const { return rows + row % COUNT * stride + C; }

    // To be called when a row is made.
    void pad(int64_t row) const {
        if (!replicate) return;
        T *first = (*this)[row], *last = first + (width - 1) * C;
        std::copy(first, first + C, first - C);
        std::copy(last, last + C, last + C);
    }

    // The rows from the one above `row` on, as a filter reads them; those of padding too.
    auto around(int64_t row) const {
        std::array<const T*, COUNT> at;
        for (int i = 0; i < COUNT; ++i)
            at[size_t(i)] = outside(row - 1 + i) && !replicate
                                ? rows + COUNT * stride + C
                                : (*this)[std::clamp<int64_t>(row - 1 + i, 0, height - 1)];
        return [at, C = C](int64_t i, int64_t column) ALWAYS_INLINE { return at[size_t(i)] + column * C; };
    }

   private:
    static constexpr int COUNT = 4;  // as many as Winograd reads
    const int64_t height, width, C, stride;
    const bool replicate;
    T* const rows;  // the last one is zeros
};

// The rows that a thread takes at a time: a few more around them are made, or read, twice.
int64_t band_of(const MapRows& s) {
    return std::clamp<int64_t>((s.last - s.first + 2 * s.threads - 1) / (2 * s.threads), 16, 64);
}

constexpr float SLOPE = 0.2f;  // of the leaky ReLU between the convolutions

// y = conv2(leaky(conv1(LayerNorm(x)))) of a residual channel attention block; x is float32.
// Nothing but x and y touches memory: the rows between wait in rings. Each thread makes bands of rows, and the few
// rows between that two bands need are made twice. totals [images, height, channels]: sums of y over each row, for the
// mean; so it does not depend on bands and threads.
template <class P, class Map>
void rcab(const MapRows& s, const RcabWeights& weights, const float* x, void* y_map, float* totals) {
    using Operand = typename P::Operand;
    const int64_t C = s.channels, band = band_of(s), bands = (s.last - s.first + band - 1) / band;
    Arena arena;
    const Filter<P> conv1(arena, weights.w1, weights.b1, C, C), conv2(arena, weights.w2, weights.b2, C, C);
    struct Buffers {
        Ring<Operand> normed, middle;
        float* filter;
    };
    std::vector<Buffers> buffers;
    for (int i = 0; i < s.threads; ++i)
        buffers.push_back({{arena, s, C}, {arena, s, C}, arena.take<float>(conv1.buffer(s.width))});
    auto* y = static_cast<Map*>(y_map);

    parallel(s.threads, 0, s.images * bands, 1, [&](int thread, int64_t job) {
        const Buffers& b = buffers[size_t(thread)];
        const int64_t image = job / bands, begin = s.first + job % bands * band, end = std::min(begin + band, s.last);
        auto normalise_row = [&](int64_t row) {
            if (b.normed.outside(row)) return;
            const float* in = x + (image * s.height + row) * s.width * C;
            Operand* to = b.normed[row];
            normalise(
                s.width, C, [&](int64_t t) ALWAYS_INLINE { return in + t * C; },
                [&](int64_t t, int64_t c, auto& v) ALWAYS_INLINE {
                    // Padding comes behind beta, so neither can be in the weights.
                    EACH(v) v[r][i] = v[r][i] * load(weights.gamma + c + i * W) + load(weights.beta + c + i * W);
                    put(to + t * C + c, C, v);
                });
            b.normed.pad(row);
        };
        int64_t normed = begin - 2, middle = begin - 1;  // the next rows to make
        for (int64_t row = begin; row < end; row += Filter<P>::ROWS) {
            for (; middle < row + Filter<P>::ROWS + 1; middle += Filter<P>::ROWS) {
                for (; normed < middle + Filter<P>::ROWS + 1; ++normed) normalise_row(normed);
                conv1.make(s.width, b.normed.around(middle), b.filter,
                           [&](int64_t j, int64_t column, int64_t c, auto& v) ALWAYS_INLINE {
                               if (b.middle.outside(middle + j)) return;
                               EACH(v) v[r][i] = leaky(v[r][i], SLOPE);
                               put(b.middle[middle + j] + column * C + c, C, v);
                           });
                for (int i = 0; i < Filter<P>::ROWS; ++i)
                    if (!b.middle.outside(middle + i)) b.middle.pad(middle + i);
            }
            const int64_t made = std::min<int64_t>(Filter<P>::ROWS, end - row);
            float* sums = totals + (image * s.height + row) * C;
            std::fill(sums, sums + made * C, 0.0f);
            conv2.make(s.width, b.middle.around(row), b.filter,
                       [&](int64_t j, int64_t column, int64_t c, auto& v) ALWAYS_INLINE {
                           if (j >= made) return;
                           put(y + ((image * s.height + row + j) * s.width + column) * C + c, C, v);
                           float* total = sums + j * C + c;
                           Vec sum[NV] = {load(total), load(total + W)};
                           EACH(v) sum[i] += v[r][i];
                           store(total, sum);
                       });
        }
    });
}

// Supervised attention: out = x + convolution(x) * sigmoid(convolution(picture)); the picture is float32.
template <class P, class Map>
void supervise(const MapRows& s, const SamWeights& weights, const void* x_map, const float* pictures, void* out_map) {
    using Operand = typename P::Operand;
    const int64_t C = s.channels, band = band_of(s), bands = (s.last - s.first + band - 1) / band;
    const int64_t O = weights.picture_channels;
    constexpr int ROWS = Filter<P>::ROWS;
    Arena arena;
    const Filter<P> features(arena, weights.features_w, weights.features_b, C, C);
    const ImageFilter attention(arena, weights.attention_w, weights.attention_b, O, C);
    struct Buffers {
        Ring<Operand> near;
        float *filter, *image, *weight;
    };
    std::vector<Buffers> buffers;
    for (int i = 0; i < s.threads; ++i)
        buffers.push_back({{arena, s, C},
                           arena.take<float>(features.buffer(s.width)),
                           arena.take<float>(attention.buffer(s.width)),
                           arena.take<float>(ROWS * s.width * C)});
    auto* x = static_cast<const Map*>(x_map);
    auto* out = static_cast<Map*>(out_map);
    const std::vector<float> zeros(static_cast<size_t>(O));

    parallel(s.threads, 0, s.images * bands, 1, [&](int thread, int64_t job) {
        const Buffers& b = buffers[size_t(thread)];
        const int64_t image = job / bands, begin = s.first + job % bands * band, end = std::min(begin + band, s.last);
        const float* picture = pictures + image * s.height * s.width * O;
        int64_t read = begin - 1;
        for (int64_t row = begin; row < end; row += ROWS) {
            for (; read < row + ROWS + 1; ++read) {
                if (b.near.outside(read)) continue;
                const Map* from = x + (image * s.height + read) * s.width * C;
                for (int64_t i = 0; i < s.width * C; i += NR) {
                    const Vec v[NV] = {load(from + i), load(from + i + W)};
                    store(b.near[read] + i, v);
                }
                b.near.pad(read);
            }
            for (int64_t j = 0; j < std::min<int64_t>(ROWS, end - row); ++j)
                attention.make(
                    s.width,
                    [&](int64_t i, int64_t column) {
                        int64_t y = row + j + i - 1;
                        bool outside = y < 0 || y >= s.height || column < 0 || column >= s.width;
                        if (outside && !s.replicate) return zeros.data();
                        y = std::clamp<int64_t>(y, 0, s.height - 1);
                        return picture + (y * s.width + std::clamp<int64_t>(column, 0, s.width - 1)) * O;
                    },
                    b.image, [&](int64_t, int64_t column, int64_t c, auto& v) ALWAYS_INLINE {
                        EACH(v) v[r][i] = sigmoid(v[r][i]);
                        put(b.weight + (j * s.width + column) * C + c, C, v);
                    });
            features.make(s.width, b.near.around(row), b.filter,
                          [&](int64_t j, int64_t column, int64_t c, auto& v) ALWAYS_INLINE {
                              if (row + j >= end) return;
                              const int64_t at = ((image * s.height + row + j) * s.width + column) * C + c;
                              const float* weight = b.weight + (j * s.width + column) * C + c;
                              EACH(v) v[r][i] = v[r][i] * load(weight + r * C + i * W) + load(x + at + r * C + i * W);
                              put(out + at, C, v);
                          });
        }
    });
}

// A convolution to a picture, float32. Every pixel is multiplied once, for all its places under the taps; a pixel of the
// picture is the sum of 9 such products around it.
template <class Map>
void picture(const MapRows& s, const PictureWeights& weights, const void* x_map, float* out) {
    constexpr int64_t TAPS = 9;
    typedef float Four __attribute__((vector_size(16)));
    const int64_t C = s.channels, band = band_of(s), bands = (s.last - s.first + band - 1) / band;
    const int64_t O = weights.picture_channels, places = (TAPS * O + 31) / 32 * 32;
    Arena arena;
    float* const right = arena.take<float>(C * places);
    std::fill(right, right + C * places, 0.0f);
    for (int64_t o = 0; o < O; ++o)
        for (int64_t c = 0; c < C; ++c)
            for (int64_t tap = 0; tap < TAPS; ++tap)
                right[right_index<Full>(tap * O + o, c, C)] = weights.w[(o * C + c) * TAPS + tap];
    struct Buffers {
        Ring<float> products;
        float* row;
    };
    std::vector<Buffers> buffers;
    for (int i = 0; i < s.threads; ++i) buffers.push_back({{arena, s, places}, arena.take<float>(s.width * C)});
    auto* x = static_cast<const Map*>(x_map);

    parallel(s.threads, 0, s.images * bands, 1, [&](int thread, int64_t job) {
        const Buffers& b = buffers[size_t(thread)];
        const int64_t image = job / bands, begin = s.first + job % bands * band, end = std::min(begin + band, s.last);
        int64_t made = begin - 1;
        for (int64_t row = begin; row < end; ++row) {
            for (; made < row + 2; ++made) {
                if (b.products.outside(made)) continue;
                const Map* from = x + (image * s.height + made) * s.width * C;
                for (int64_t i = 0; i < s.width * C; i += W) store(b.row + i, load(from + i));
                float* to = b.products[made];
                multiply_vectors<Full, MR>(
                    s.width, Left<Full>{b.row, C, C}, right, nullptr, places,
                    [&](int64_t t, int64_t c, auto& v) ALWAYS_INLINE { put(to + t * places + c, places, v); });
                b.products.pad(made);
            }
            const auto at = b.products.around(row);
            float* to = out + (image * s.height + row) * s.width * O;
            for (int64_t column = 0; column < s.width; ++column, to += O)
                for (int64_t o = 0; o < O; o += 4) {
                    Four sum = {};
                    UNROLL for (int tap = 0; tap < TAPS; ++tap) sum +=
                        read<Four>(at(tap / 3, column + tap % 3 - 1) + tap * O + o);
                    for (int64_t c = 0; c < std::min<int64_t>(4, O - o); ++c) to[o + c] = sum[c] + weights.b[o + c];
                }
        }
    });
}

// out = (shortcut +) x + y * weight, a weight for each image and channel. x is float32; out is a feature map if there
// is a shortcut, else float32.
template <class Map, class Out>
void attend(const MapRows& s, const float* x, const void* y_map, const float* weight, const void* shortcut_map,
            void* out_map) {
    const int64_t C = s.channels, rows = s.last - s.first;
    auto* y = static_cast<const Map*>(y_map);
    auto* shortcut = static_cast<const Map*>(shortcut_map);
    auto* out = static_cast<Out*>(out_map);
    parallel(s.threads, 0, s.images * rows, 1, [&](int, int64_t job) {
        const int64_t image = job / rows, row = image * s.height + s.first + job % rows;
        for (int64_t at = row * s.width * C; at < (row + 1) * s.width * C; at += C)
            for (int64_t c = 0; c < C; c += NR) {
                Vec v[NV];
                UNROLL for (int i = 0; i < NV; ++i) {
                    const int64_t from = at + c + i * W;
                    v[i] = load(x + from) + load(y + from) * load(weight + image * C + c + i * W);
                    if (shortcut) v[i] += load(shortcut + from);
                }
                store(out + at + c, v);
            }
    });
}

}  // namespace
