// Blocks that work on windows: the gated MLP of a multi-axis block, and cross gating.
//
// A framework runs them one operation at a time over whole maps, and much of that time goes into moving maps. Here a
// window (the T = side * side tokens that a spatial Dense mixes) is read once, goes through all steps in buffers that
// stay in the caches, and is written once. P::TOKENS of it go through the steps before the mix, and then through
// those after it, while they are in the nearest cache.

#pragma once

#include "products.h"

// Which windows of which maps. Maps are [images, height, width, channels], contiguous: float32, or the type of
// feature maps where it says so.
struct Sweep {
    int64_t images, height, width, channels;  // channels: a multiple of 32
    int64_t side;                             // of a window: a multiple of 8 that divides height and width
    int64_t first, last;                      // windows [first, last) of images*(height/side)*(width/side)
    int32_t axis;                             // 0: block, 1: grid
    int32_t half;                             // feature maps and operands of products are bfloat16, not float32
    int32_t threads;                          // with the caller's
};

// Weights are float32 in torch's layout [outputs, inputs], rows contiguous where no stride is given.
struct MabWeights {
    const float *n0_gamma, *n0_beta, *in_w, *in_b;    // LayerNorm, C -> C
    const float *n1_gamma, *n1_beta, *gin_w, *gin_b;  // LayerNorm, C -> 2C
    const float *n2_gamma, *n2_beta, *mix_w, *mix_b;  // LayerNorm, T -> T
    const float *gout_w, *gout_b, *out_w, *out_b;     // C -> C, C -> C; out_b may be NULL
    int64_t out_stride;                               // between out_w's rows
};

struct GateWeights {
    const float *n0_gamma, *n0_beta, *p_w, *p_b;    // LayerNorm, C -> C
    const float *n1_gamma, *n1_beta, *in_w, *in_b;  // LayerNorm, C -> C
    const float *mix_w, *mix_b, *out_w, *out_b;     // T -> T, C -> C; out_b may be NULL
    int64_t out_stride;                             // between out_w's rows
};

struct CrossWeights {
    GateWeights x, y;                        // of the gates computed from x and from y
    const float *oy_w, *oy_b, *ox_w, *ox_b;  // C -> C: what joins y, what joins x
};

namespace {

bool valid(const Sweep& s) {
    if (s.images < 0 || s.height < 0 || s.width < 0 || s.channels < 32 || s.side < 8) return false;
    if (s.channels % 32 || s.side % 8 || s.height % s.side || s.width % s.side) return false;
    if (s.axis < 0 || s.axis > 1 || s.half < 0 || s.half > 1 || s.threads < 1) return false;
    return 0 <= s.first && s.first <= s.last && s.last <= s.images * (s.height / s.side) * (s.width / s.side);
}

// A thread's buffers for a window, and those for P::TOKENS of it. Each sweep uses some of them.
template <class P>
struct Buffers {
    using Operand = typename P::Operand;
    float *h, *v;
    Operand *a, *b, *packed_a, *packed_b, *operand, *second;

    Buffers(Arena& arena, int64_t T, int64_t C)
        : h(arena.take<float>(T * C)), v(arena.take<float>(P::TOKENS * C)), a(arena.take<Operand>(T * C)),
          b(arena.take<Operand>(T * C)), packed_a(arena.take<Operand>(T * C)), packed_b(arena.take<Operand>(T * C)),
          operand(arena.take<Operand>(P::TOKENS * C)), second(arena.take<Operand>(P::TOKENS * C)) {}
};

class Windows {
   public:
    const int64_t tokens, channels;

    explicit Windows(const Sweep& s)
        : tokens(s.side * s.side), channels(s.channels), s(s), rows(s.height / s.side), columns(s.width / s.side) {
        for (int64_t i = 0; i < s.side; ++i)
            for (int64_t j = 0; j < s.side; ++j)
                offsets.push_back((s.axis ? i * rows * s.width + j * columns : i * s.width + j) * channels);
    }

    // Offset of window w's first token in a map, and of its others from there.
    int64_t origin(int64_t w) const {
        int64_t image = w / (rows * columns), a = w / columns % rows, b = w % columns;
        int64_t step = s.axis ? 1 : s.side;
        return ((image * s.height + a * step) * s.width + b * step) * channels;
    }
    INLINE int64_t operator[](int64_t token) const { return offsets[size_t(token)]; }

    // Bring some tokens near ahead of their use: on the grid no hardware prefetcher does, and whole windows don't
    // fit the few cache sets that maps of a power of two share. (Inlined by force: GCC takes a function of
    // prefetches for one without effects, and drops the call.)
    template <class T>
    INLINE void prefetch(const T* map, int64_t w, int64_t token, int64_t count) const {
        if (w >= s.last || token >= tokens || !map) return;
        map += origin(w);
        for (int64_t t = token; t < token + count; ++t)
            for (int64_t c = 0; c < channels; c += 64 / int64_t(sizeof(T)))
                __builtin_prefetch(map + offsets[size_t(t)] + c, 0, 2);
    }

    // work(buffers, w, origin) for all windows. Neighbours on the grid share pages: a run goes to one thread.
    template <class P, class Work>
    void run(Arena& arena, const Work& work) const {
        std::vector<Buffers<P>> buffers;
        for (int i = 0; i < s.threads; ++i) buffers.emplace_back(arena, tokens, channels);
        int64_t run = std::clamp<int64_t>((s.last - s.first) / (32 * s.threads), 1, 8);
        parallel(s.threads, s.first, s.last, run,
                 [&](int thread, int64_t w) { work(buffers[size_t(thread)], w, origin(w)); });
    }

   private:
    const Sweep& s;
    const int64_t rows, columns;  // windows in an image
    std::vector<int64_t> offsets;
};

// gelu(Dense(LayerNorm(tokens))) of P::TOKENS tokens, which lie at(token).
template <class P, class At, class Finish>
INLINE void project(const Dense<P>& dense, const At& at, typename P::Operand* operand, const Finish& finish) {
    const int64_t C = dense.inputs;
    normalise(P::TOKENS, C, at,
              [&](int64_t t, int64_t c, auto& v) ALWAYS_INLINE { put(operand + t * C + c, C, v); });
    dense.multiply(P::TOKENS, operand, [&](int64_t t, int64_t c, auto& v) ALWAYS_INLINE {
        EACH(v) v[r][i] = P::gelu(v[r][i]);
        finish(t, c, v);
    });
}

template <class P, class Base, class Out>
void mab(const Sweep& s, const MabWeights& weights, const float* x, const void* base_map, void* out_map) {
    const Windows windows(s);
    const int64_t C = s.channels, T = windows.tokens;
    Arena arena;
    const Dense<P> in(arena, C, C, weights.in_w, weights.in_b, C, weights.n0_gamma, weights.n0_beta);
    const Dense<P> gate_in(arena, 2 * C, C, weights.gin_w, weights.gin_b, C, weights.n1_gamma, weights.n1_beta);
    const Dense<P> gate_out(arena, C, C, weights.gout_w, weights.gout_b, C);
    const Dense<P> last(arena, C, C, weights.out_w, weights.out_b, weights.out_stride);
    const Mix<P> mix(arena, T, weights.mix_w, weights.mix_b, 1);  // u is multiplied by mix + 1
    auto* base = static_cast<const Base*>(base_map);
    auto* out = static_cast<Out*>(out_map);

    windows.run<P>(arena, [&](const Buffers<P>& b, int64_t w, int64_t origin) {
        for (int64_t t = 0; t < T; t += P::TOKENS) {
            float* h = b.h + t * C;
            auto* u = b.a + t * C;
            windows.prefetch(x, w, t + P::TOKENS, P::TOKENS);
            project<P>(
                in, [&](int64_t i) ALWAYS_INLINE { return x + origin + windows[t + i]; }, b.operand,
                [&](int64_t i, int64_t c, auto& v) ALWAYS_INLINE { put(h + i * C + c, C, v); });
            project<P>(
                gate_in, [&](int64_t i) ALWAYS_INLINE { return h + i * C; }, b.operand,
                [&](int64_t i, int64_t c, auto& v) ALWAYS_INLINE {
                    if (c < C)
                        put(u + i * C + c, C, v);
                    else
                        put(b.v + i * C + c - C, C, v);
                });
            normalise(
                P::TOKENS, C, [&](int64_t i) ALWAYS_INLINE { return b.v + i * C; },
                [&](int64_t i, int64_t c, auto& v) ALWAYS_INLINE {
                    EACH(v) v[r][i] = v[r][i] * load(weights.n2_gamma + c + i * W) + load(weights.n2_beta + c + i * W);
                    P::put_right(b.packed_a, c, t + i, T, v);
                });
        }
        windows.prefetch(x, w + 1, 0, P::TOKENS);
        for (int64_t t = 0; t < T; t += P::TOKENS) {
            const float* h = b.h + t * C;
            const auto* u = b.a + t * C;
            windows.prefetch(out, w, t, P::TOKENS);
            windows.prefetch(base, w, t, P::TOKENS);
            mix.multiply(t, P::TOKENS, b.packed_a, C, [&](int64_t row, int64_t c, auto& v) ALWAYS_INLINE {
                EACH(v) v[r][i] *= load(u + (row + r) * C + c + i * W);
                put(b.operand + row * C + c, C, v);
            });
            gate_out.multiply(P::TOKENS, b.operand, [&](int64_t row, int64_t c, auto& v) ALWAYS_INLINE {
                EACH(v) v[r][i] += load(h + (row + r) * C + c + i * W);
                put(b.second + row * C + c, C, v);
            });
            last.multiply(P::TOKENS, b.second, [&](int64_t row, int64_t c, auto& v) ALWAYS_INLINE {
                const int64_t at = origin + c;
                // All that is read first: tokens of a grid may lie multiples of 4096 bytes apart, where a read
                // waits for the writes before it.
                if (base) {
                    EACH(v) {
                        const int64_t from = at + windows[t + row + r] + i * W;
                        v[r][i] += load(x + from) + load(base + from);
                    }
                }
                UNROLL for (int r = 0; r < int(sizeof v / sizeof v[0]); ++r)
                    store(out + at + windows[t + row + r], v[r]);
            });
        }
    });
}

// A gate's weights, and its steps up to the last Dense.
template <class P>
struct Gate {
    using Operand = typename P::Operand;
    const int64_t C, T;
    const Dense<P> first, in, out;
    const Mix<P> mix;

    Gate(Arena& arena, const GateWeights& w, int64_t C, int64_t T)
        : C(C), T(T), first(arena, C, C, w.p_w, w.p_b, C, w.n0_gamma, w.n0_beta),
          in(arena, C, C, w.in_w, w.in_b, C, w.n1_gamma, w.n1_beta),
          out(arena, C, C, w.out_w, w.out_b, w.out_stride), mix(arena, T, w.mix_w, w.mix_b, 0) {}

    // Some tokens' features [P::TOKENS, C], and what is to be mixed.
    template <class At>
    INLINE void features(int64_t t, const At& at, Operand* operand, Operand* features, Operand* packed) const {
        project<P>(first, at, operand,
                   [&](int64_t i, int64_t c, auto& v) ALWAYS_INLINE { put(features + i * C + c, C, v); });
        project<P>(
            in, [&](int64_t i) ALWAYS_INLINE { return features + i * C; }, operand,
            [&](int64_t i, int64_t c, auto& v) ALWAYS_INLINE { P::put_right(packed, c, t + i, T, v); });
    }

    // Dense(mix) of P::TOKENS tokens.
    template <class Finish>
    INLINE void weights(int64_t t, const Operand* packed, Operand* operand, const Finish& finish) const {
        mix.multiply(t, P::TOKENS, packed, C,
                     [&](int64_t row, int64_t c, auto& v) ALWAYS_INLINE { put(operand + row * C + c, C, v); });
        out.multiply(P::TOKENS, operand, finish);
    }
};

template <class P, class Map>
void gate(const Sweep& s, const GateWeights& weights, const void* x_map, void* out_map) {
    const Windows windows(s);
    const int64_t C = s.channels, T = windows.tokens;
    Arena arena;
    const Gate<P> gate(arena, weights, C, T);
    auto* x = static_cast<const Map*>(x_map);
    auto* out = static_cast<Map*>(out_map);

    windows.run<P>(arena, [&](const Buffers<P>& b, int64_t w, int64_t origin) {
        for (int64_t t = 0; t < T; t += P::TOKENS) {
            windows.prefetch(x, w, t + P::TOKENS, P::TOKENS);
            gate.features(
                t, [&](int64_t i) ALWAYS_INLINE { return x + origin + windows[t + i]; }, b.operand, b.second,
                b.packed_a);
        }
        windows.prefetch(x, w + 1, 0, P::TOKENS);
        for (int64_t t = 0; t < T; t += P::TOKENS) {
            windows.prefetch(out, w, t, P::TOKENS);
            gate.weights(t, b.packed_a, b.operand, [&](int64_t row, int64_t c, auto& v) ALWAYS_INLINE {
                UNROLL for (int r = 0; r < int(sizeof v / sizeof v[0]); ++r)
                    store(out + origin + windows[t + row + r] + c, v[r]);
            });
        }
    });
}

template <class P, class Map>
void cross_gate(const Sweep& s, const CrossWeights& weights, void* x_map, void* y_map, const void* gx_map,
                const void* gy_map) {
    const Windows windows(s);
    const int64_t C = s.channels, T = windows.tokens;
    Arena arena;
    const Gate<P> gate_x(arena, weights.x, C, T), gate_y(arena, weights.y, C, T);
    const Dense<P> out_x(arena, C, C, weights.ox_w, weights.ox_b, C);
    const Dense<P> out_y(arena, C, C, weights.oy_w, weights.oy_b, C);
    auto *x = static_cast<Map*>(x_map), *y = static_cast<Map*>(y_map);
    auto *gx = static_cast<const Map*>(gx_map), *gy = static_cast<const Map*>(gy_map);

    windows.run<P>(arena, [&](const Buffers<P>& b, int64_t w, int64_t origin) {
        for (int64_t t = 0; t < T; t += P::TOKENS) {
            windows.prefetch(x, w, t + P::TOKENS, P::TOKENS);
            windows.prefetch(y, w, t + P::TOKENS, P::TOKENS);
            auto in = [&](const Map* map) {
                return [&, map](int64_t i) ALWAYS_INLINE { return map + origin + windows[t + i]; };
            };
            gate_x.features(t, in(x), b.operand, b.a + t * C, b.packed_a);
            gate_y.features(t, in(y), b.operand, b.b + t * C, b.packed_b);
        }
        windows.prefetch(x, w + 1, 0, P::TOKENS);
        windows.prefetch(y, w + 1, 0, P::TOKENS);
        for (int64_t t = 0; t < T; t += P::TOKENS) {
            auto at = [&](auto* map, int64_t token, int64_t c)
                          ALWAYS_INLINE { return map + origin + windows[t + token] + c; };
            // second = features * (map + Dense(mix)): one branch's features, weighted by the other's gate.
            auto weigh = [&](const auto* features, const Gate<P>& gate, const auto* packed, const Map* map) {
                gate.weights(t, packed, b.operand, [&](int64_t row, int64_t c, auto& v) ALWAYS_INLINE {
                    EACH(v) v[r][i] = (v[r][i] + load(at(map, row + r, c + i * W))) *
                                      load(features + (t + row + r) * C + c + i * W);
                    put(b.second + row * C + c, C, v);
                });
            };
            windows.prefetch(gx, w, t, P::TOKENS);
            windows.prefetch(gy, w, t, P::TOKENS);
            windows.prefetch(x, w, t, P::TOKENS);
            windows.prefetch(y, w, t, P::TOKENS);
            weigh(b.b, gate_x, b.packed_a, gx);
            out_y.multiply(P::TOKENS, b.second, [&](int64_t row, int64_t c, auto& v) ALWAYS_INLINE {
                EACH(v) v[r][i] += load(at(y, row + r, c + i * W));
                UNROLL for (int r = 0; r < int(sizeof v / sizeof v[0]); ++r) store(at(y, row + r, c), v[r]);
            });
            weigh(b.a, gate_y, b.packed_b, gy);
            out_x.multiply(P::TOKENS, b.second, [&](int64_t row, int64_t c, auto& v) ALWAYS_INLINE {
                EACH(v) v[r][i] += load(at(x, row + r, c + i * W)) + load(at(y, row + r, c + i * W));
                UNROLL for (int r = 0; r < int(sizeof v / sizeof v[0]); ++r) store(at(x, row + r, c), v[r]);
            });
        }
    });
}

}  // namespace
