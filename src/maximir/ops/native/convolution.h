// 3 x 3 convolutions.

#pragma once

#include "products.h"

// A 3 x 3 convolution of rows of maps. `in` is [images, rows, width, inputs], `out` [images, rows + top + bottom
// - 2, width, outputs], both float32 and contiguous; the weights are torch's [outputs, inputs, 3, 3].
struct Convolution {
    int64_t images, rows, width, inputs, outputs;  // width: even; inputs: a multiple of 16; outputs: see fits()
    int32_t top, bottom;                           // whether a row of padding comes before, and behind
    int32_t replicate;                             // what pads: the outermost pixels; otherwise zeros
    int32_t threads;                               // with the caller's
    float negative_slope;                          // of a leaky ReLU that follows; 1: none
};

namespace {

// By Winograd, F(2 x 2, 3 x 3): a tile of 2 x 2 outputs is A' [(G g G') . (B' d B)] A of its 4 x 4 inputs d, so 16
// products stand for 36. Each of the 16 is a matrix product over channels, [tiles, inputs] x [inputs, outputs].
// (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016.)
constexpr int PRODUCTS = 16;
#ifdef __AVX512F__
constexpr int TILES = 12;  // rows of a tile of accumulators, NV vectors wide
#else
constexpr int TILES = 6;
#endif

bool fits(const Convolution& s) {
    return s.images > 0 && s.width > 0 && s.width % 2 == 0 && s.inputs > 0 && s.inputs % W == 0 &&
           s.outputs > 0 && s.outputs % NR == 0 && s.threads > 0 && s.rows + s.top + s.bottom > 2;
}

// G g G', as [outputs / NR][PRODUCTS][inputs][NR].
void transform_weights(const float* weights, int64_t inputs, int64_t outputs, float* packed) {
    auto rows = [](Vec a, Vec b, Vec c, Vec(&out)[4]) ALWAYS_INLINE {
        out[0] = a, out[1] = (a + b + c) * 0.5f, out[2] = (a - b + c) * 0.5f, out[3] = c;
    };
    for (int64_t o = 0; o < outputs; o += W)
        for (int64_t c = 0; c < inputs; ++c) {
            Vec g[3][3], half[3][4], u[4];
            for (int tap = 0; tap < 9; ++tap)
                for (int lane = 0; lane < W; ++lane)
                    g[tap / 3][tap % 3][lane] = weights[((o + lane) * inputs + c) * 9 + tap];
            UNROLL for (int r = 0; r < 3; ++r) rows(g[r][0], g[r][1], g[r][2], half[r]);
            UNROLL for (int x = 0; x < 4; ++x) {
                rows(half[0][x], half[1][x], half[2][x], u);
                UNROLL for (int y = 0; y < 4; ++y)
                    store(packed + ((o / NR * PRODUCTS + 4 * y + x) * inputs + c) * NR + o % NR, u[y]);
            }
        }
}

// M rows of a [tiles, inputs] matrix times NR columns of weights.
template <int M>
INLINE void multiply_rows(const float* a, int64_t inputs, const float* weights, float* out, int64_t outputs) {
    Rows<M> sum = {};
    for (int64_t k = 0; k < inputs; ++k, weights += NR) {
        Vec row[NV];
        UNROLL for (int i = 0; i < NV; ++i) row[i] = load(weights + i * W);
        EACH(sum) sum[r][i] += a[r * inputs + k] * row[i];
    }
    put(out, outputs, sum);
}

void convolve(const Convolution& s, const float* in, const float* weights, const float* bias, float* out) {
    const int64_t C = s.inputs, O = s.outputs, height = s.rows + s.top + s.bottom - 2, pairs = (height + 1) / 2;
    const int64_t some = C + O > 128 ? 12 : 24;  // tiles at a time: they and their products stay in the caches
    Arena arena;
    float* packed = arena.take<float>(PRODUCTS * C * O);
    transform_weights(weights, C, O, packed);
    const int64_t d_size = PRODUCTS * some * C, size = d_size + PRODUCTS * some * O;
    float* buffers = arena.take<float>(s.threads * size);
    float* zeros = arena.take<float>(C);
    std::fill(zeros, zeros + C, 0.0f);

    parallel(s.threads, 0, s.images * pairs, 2, [&](int thread, int64_t job) {
        float *d = buffers + thread * size, *m = d + d_size;
        const int64_t image = job / pairs, y = job % pairs * 2;
        const float* map = in + image * s.rows * s.width * C;
        float* result = out + (image * height + y) * s.width * O;
        auto pixel = [&](int64_t row, int64_t column) {
            bool outside = row < 0 || row >= s.rows || column < 0 || column >= s.width;
            if (outside && !s.replicate) return static_cast<const float*>(zeros);
            row = std::clamp<int64_t>(row, 0, s.rows - 1);
            return map + (row * s.width + std::clamp<int64_t>(column, 0, s.width - 1)) * C;
        };
        for (int64_t first = 0; first < s.width / 2; first += some) {
            const int64_t tiles = std::min(some, s.width / 2 - first);
            for (int64_t tile = 0; tile < tiles; ++tile) {
                const float* at[4][4];
                for (int i = 0; i < 16; ++i)
                    at[i / 4][i % 4] = pixel(y + i / 4 - s.top, 2 * (first + tile) + i % 4 - 1);
                for (int64_t c = 0; c < C; c += W) {
                    Vec v[4][4];
                    UNROLL for (int x = 0; x < 4; ++x) {
                        Vec p[4];
                        UNROLL for (int r = 0; r < 4; ++r) p[r] = load(at[r][x] + c);
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
            for (int product = 0; product < PRODUCTS; ++product)
                for (int64_t o = 0; o < O; o += NR) {
                    const float* w = packed + (o / NR * PRODUCTS + product) * C * NR;
                    const float* a = d + product * some * C;
                    float* to = m + product * some * O + o;
                    int64_t tile = 0;
                    for (; tile + TILES <= tiles; tile += TILES) multiply_rows<TILES>(a + tile * C, C, w, to + tile * O, O);
                    for (; tile < tiles; ++tile) multiply_rows<1>(a + tile * C, C, w, to + tile * O, O);
                }
            for (int64_t tile = 0; tile < tiles; ++tile)
                for (int64_t o = 0; o < O; o += W) {
                    Vec z[2][4], b = load(bias + o);
                    UNROLL for (int x = 0; x < 4; ++x) {
                        Vec p[4];
                        UNROLL for (int r = 0; r < 4; ++r) p[r] = load(m + ((4 * r + x) * some + tile) * O + o);
                        z[0][x] = p[0] + p[1] + p[2], z[1][x] = p[1] - p[2] - p[3];
                    }
                    for (int r = 0; r < std::min<int64_t>(2, height - y); ++r) {
                        float* to = result + (r * s.width + 2 * (first + tile)) * O + o;
                        store(to, leaky(z[r][0] + z[r][1] + z[r][2] + b, s.negative_slope));
                        store(to + O, leaky(z[r][1] - z[r][2] - z[r][3] + b, s.negative_slope));
                    }
                }
        }
    });
}

}  // namespace
