// Projections of concatenated, resized and convolved maps as one sum, without these maps, and the resize to smaller
// maps before a projection.

#pragma once

#include "products.h"

// A summand of a projection, of rows [images, rows, width, channels] with contiguous rows.
struct Term {
    const void* at;
    const float* weight;   // of a PRODUCT [outputs, channels], of TRANSPOSED [2, 2, outputs, channels]; or NULL
    int64_t image;         // values between images
    int64_t channels;      // a multiple of 32
    int64_t rows, above;   // rows that it has, and how many come before those of the result (ENLARGED)
    int32_t kind, factor;  // factor: of ENLARGED
    int32_t half;          // values are bfloat16
};

enum Kind {
    PRODUCT,     // Dense of rows as wide as the result's
    TRANSPOSED,  // transposed convolution, 2 x 2 with stride 2, of rows half as wide
    ENLARGED,    // bilinearly, with half-pixel centres, by `factor`; channels are outputs
};

struct Projection {
    int64_t images, rows, width, outputs;  // of the result; width: a multiple of 16, outputs: of 32
    int64_t image;                         // values between its images
    int32_t half, out_half;                // operands, and the result, are bfloat16
    int32_t terms, threads;
};

// Bilinear with antialiasing, as jax.image.resize: a triangle as wide as two larger pixels. The result's first row is
// made from the rows around `above`; rows outside are left out.
struct Shrink {
    int64_t images, rows, width, channels;  // of the result; channels: a multiple of 32
    int64_t in_rows, in_image, above;       // rows of `in`, and values between its images
    int32_t factor, half, threads;          // factor: 2 or 4; half: both maps are bfloat16
};

namespace {

constexpr int MOST_TERMS = 8;

bool valid(const Projection& s, const Term* terms) {
    bool all = s.terms <= MOST_TERMS && s.images > 0 && s.rows > 0 && s.width > 0 && s.width % 16 == 0 && s.outputs > 0 &&
               s.outputs % 32 == 0 && s.threads > 0;
    for (const Term* t = terms; t < terms + s.terms; ++t) {
        all = all && t->channels > 0 && t->channels % 32 == 0;
        if (t->kind == PRODUCT || t->kind == TRANSPOSED)
            all = all && t->weight && (t->kind == PRODUCT || s.width % 32 == 0);
        else
            all = all && t->channels == s.outputs && s.width % t->factor == 0;
    }
    return all;
}

bool valid(const Shrink& s) {
    return s.images > 0 && s.rows > 0 && s.width > 0 && s.channels > 0 && s.channels % 32 == 0 && s.threads > 0 &&
           (s.factor == 2 || s.factor == 4);
}

// Both neighbours of a value that lies between two of `count`, and the weight of the second.
struct Between {
    int64_t first, second;
    float weight;

    Between(int64_t index, int64_t factor, int64_t before, int64_t count) {
        const float at = (float(index) + 0.5f) / float(factor) - 0.5f + float(before);
        first = at < 0 ? 0 : int64_t(at);
        weight = at < 0 ? 0 : at - float(first);
        second = std::min(first + 1, count - 1);
    }
};

// sum [pixels, outputs] += those of a row from `x` on.
template <class T>
void add_enlarged(const Projection& s, const Term& term, int64_t image, int64_t row, int64_t x, int64_t pixels,
                  float* between, float* sum) {
    const int64_t O = s.outputs, width = s.width / term.factor;
    const T* map = static_cast<const T*>(term.at) + image * term.image;
    const Between y(row, term.factor, term.above, term.rows);
    const T *a = map + y.first * width * O, *b = map + y.second * width * O;
    const int64_t first = Between(x, term.factor, 0, width).first;
    const int64_t last = Between(x + pixels - 1, term.factor, 0, width).second;
    for (int64_t i = first * O; i < (last + 1) * O; i += W)
        store(between + i - first * O, load(a + i) + (load(b + i) - load(a + i)) * y.weight);
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
        const Between at(x + pixel, term.factor, 0, width);
        const float *from = between + (at.first - first) * O, *to = between + (at.second - first) * O;
        for (int64_t c = 0; c < O; c += W)
            store(sum + pixel * O + c,
                  load(sum + pixel * O + c) + load(from + c) + (load(to + c) - load(from + c)) * at.weight);
    }
}

template <class P, class Out>
void project_all(const Projection& s, const Term* terms, const float* bias, void* out_map, Bf16* copy) {
    using Operand = typename P::Operand;
    constexpr int64_t SOME = 128;  // pixels at a time
    const int64_t O = s.outputs;
    Arena arena;
    int64_t depth = 0, widest = 0;
    bool sums = false;
    for (const Term* t = terms; t < terms + s.terms; ++t) {
        depth += t->kind == PRODUCT ? t->channels : 0;
        widest += t->channels;
        sums = sums || t->kind != PRODUCT;
    }
    Operand* const right = arena.take<Operand>(std::max(depth, int64_t(1)) * O);
    std::vector<Dense<P>> transposed;
    transposed.reserve(size_t(2 * s.terms));
    for (int64_t t = 0, before = 0; t < s.terms; ++t) {
        const int64_t C = terms[t].channels;
        if (terms[t].kind == TRANSPOSED)  // for both rows below a row: both columns are outputs
            for (int64_t y = 0; y < 2; ++y)
                transposed.emplace_back(arena, 2 * O, C, terms[t].weight + y * 2 * O * C, nullptr, C);
        if (terms[t].kind != PRODUCT) continue;
        for (int64_t o = 0; o < O; ++o)
            for (int64_t k = 0; k < C; ++k)
                right[right_index<P>(o, before + k, depth)] = P::operand(terms[t].weight[o * C + k]);
        before += C;
    }
    struct Buffers {
        float *sum, *between;
        Operand* padded;
    };
    std::vector<Buffers> buffers;
    for (int i = 0; i < s.threads; ++i)
        buffers.push_back({arena.take<float>(SOME * O), arena.take<float>((SOME + 2) * O),
                           arena.take<Operand>(SOME * widest)});
    auto* out = static_cast<Out*>(out_map);

    parallel(s.threads, 0, s.images * s.rows, 2, [&](int thread, int64_t job) {
        const Buffers& b = buffers[size_t(thread)];
        const int64_t image = job / s.rows, row = job % s.rows;
        for (int64_t x = 0; x < s.width; x += SOME) {
            const int64_t pixels = std::min(SOME, s.width - x);
            float* sum = b.sum;
            if (sums)
                for (int64_t i = 0; i < pixels * O; i += W) store(sum + i, load(bias + i % O));
            Left<P> left[MOST_TERMS];
            int parts = 0;
            Operand* padded = b.padded;
            // Copied if it has the other format; and for tiles, which read whole blocks of rows, where a map may end.
            auto operand = [&](const Term& term, int64_t offset, int64_t count) -> const Operand* {
                const int64_t first = image * term.image + offset * term.channels;
                auto copied = [&](const auto* from) {
                    for (int64_t i = 0; i < count * term.channels; i += NR) {
                        const Vec v[NV] = {load(from + i), load(from + i + W)};
                        store(padded + i, v);
                    }
                    const Operand* at = padded;
                    padded += (count + NR - 1) / NR * NR * term.channels;
                    return at;
                };
                if (term.half != (sizeof(Operand) == sizeof(Bf16)))
                    return term.half ? copied(static_cast<const Bf16*>(term.at) + first)
                                     : copied(static_cast<const float*>(term.at) + first);
                const Operand* at = static_cast<const Operand*>(term.at) + first;
                return P::TILED && count % NR ? copied(at) : at;
            };
            const Dense<P>* up = transposed.data();
            for (const Term* t = terms; t < terms + s.terms; ++t) {
                if (t->kind == PRODUCT) {
                    left[parts++] = {operand(*t, row * s.width + x, pixels), t->channels, t->channels};
                } else if (t->kind == TRANSPOSED) {
                    const Operand* at = operand(*t, row / 2 * (s.width / 2) + x / 2, pixels / 2);
                    up[row % 2].multiply(pixels / 2, at, [&](int64_t pixel, int64_t c, auto& v) ALWAYS_INLINE {
                        EACH(v) v[r][i] += load(sum + (pixel + r) * 2 * O + c + i * W);
                        put(sum + pixel * 2 * O + c, 2 * O, v);
                    });
                    up += 2;
                } else {
                    (t->half ? add_enlarged<Bf16> : add_enlarged<float>)(s, *t, image, row, x, pixels, b.between, sum);
                }
            }
            const int64_t to = image * s.image + (row * s.width + x) * O;
            if (parts)
                multiply<P>(pixels, {left, parts}, right, sums ? nullptr : bias, O,
                            [&](int64_t pixel, int64_t c, auto& v) ALWAYS_INLINE {
                                if (sums) {
                                    EACH(v) v[r][i] += load(sum + (pixel + r) * O + c + i * W);
                                }
                                put(out + to + pixel * O + c, O, v);
                                if (copy) put(copy + to + pixel * O + c, O, v);
                            });
            else
                for (int64_t i = 0; i < pixels * O; i += NR) {
                    const Vec v[NV] = {load(sum + i), load(sum + i + W)};
                    store(out + to + i, v);
                    if (copy) store(copy + to + i, v);
                }
        }
    });
}

template <class T>
void shrink(const Shrink& s, const void* in_map, void* out_map) {
    const int64_t C = s.channels, f = s.factor, width = s.width * f;
    auto* in = static_cast<const T*>(in_map);
    auto* out = static_cast<T*>(out_map);
    float taps[8];
    for (int64_t i = 0; i < 2 * f; ++i)
        taps[i] = (1 - std::fabs(float(i) + 0.5f - float(f)) / float(f)) / float(f);
    auto whole = [&](int64_t start, int64_t count) {  // what lies outside is 1/8
        return start < 0 || start + 2 * f > count ? 8.0f / 7 : 1.0f;
    };
    parallel(s.threads, 0, s.images * s.rows, 2, [&](int, int64_t job) {
        const int64_t image = job / s.rows, row = job % s.rows, top = row * f + s.above - f / 2;
        const T* map = in + image * s.in_image;
        for (int64_t x = 0; x < s.width; ++x) {
            const int64_t start = x * f - f / 2;
            const float scale = whole(top, s.in_rows) * whole(start, width);
            for (int64_t c = 0; c < C; c += NR) {
                Vec sum[NV] = {};
                for (int64_t i = 0; i < 2 * f; ++i) {
                    if (top + i < 0 || top + i >= s.in_rows) continue;
                    const T* from = map + ((top + i) * width + start) * C + c;
                    Vec along[NV] = {};
                    for (int64_t j = std::max<int64_t>(0, -start); j < std::min(2 * f, width - start); ++j)
                        UNROLL for (int n = 0; n < NV; ++n) along[n] += load(from + j * C + n * W) * taps[j];
                    UNROLL for (int n = 0; n < NV; ++n) sum[n] += along[n] * taps[i];
                }
                UNROLL for (int n = 0; n < NV; ++n) sum[n] *= scale;
                store(out + (job * s.width + x) * C + c, sum);
            }
        }
    });
}

}  // namespace
