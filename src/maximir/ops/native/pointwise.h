// Maps, value by value or token by token.

#pragma once

#include "products.h"

namespace {

// out[i] = f(x[i], y[i])
template <class F>
void each_element(int threads, int64_t count, const float* x, const float* y, float* out, const F& f) {
    constexpr int64_t SOME = 1 << 14;
    parallel(threads, 0, (count + SOME - 1) / SOME, 1, [&](int, int64_t part) {
        int64_t i = part * SOME, end = std::min(i + SOME, count);
        for (; i + W <= end; i += W) store(out + i, f(load(x + i), load(y + i)));
        if (i < end) {
            float last[3][W] = {};
            std::copy(x + i, x + end, last[0]);
            std::copy(y + i, y + end, last[1]);
            store(last[2], f(load(last[0]), load(last[1])));
            std::copy(last[2], last[2] + (end - i), out + i);
        }
    });
}

// The sum of a vector, in all its lanes.
template <int distance = W / 2, int... I>
INLINE Vec total(Vec v, std::integer_sequence<int, I...> lanes) {
    v += __builtin_shufflevector(v, v, (I ^ distance)...);
    if constexpr (distance > 1) return total<distance / 2>(v, lanes);
    return v;
}

// LayerNorm of tokens [count, channels] that lie one after the other.
void normalise_tokens(int threads, int64_t count, int64_t channels, const float* x, const float* gamma,
                      const float* beta, float* out) {
    constexpr int64_t SOME = 256;
    const float inverse = 1 / float(channels);
    auto mean = [&](Vec v) ALWAYS_INLINE { return total(v, std::make_integer_sequence<int, W>()) * inverse; };
    parallel(threads, 0, (count + SOME - 1) / SOME, 1, [&](int, int64_t part) {
        for (int64_t t = part * SOME; t < std::min((part + 1) * SOME, count); ++t) {
            const float* from = x + t * channels;
            float* to = out + t * channels;
            Vec sum = {}, square = {};
            for (int64_t c = 0; c < channels; c += W) sum += load(from + c);
            const Vec middle = mean(sum);
            for (int64_t c = 0; c < channels; c += W) {
                Vec d = load(from + c) - middle;
                square += d * d;
            }
            const float scale = 1 / std::sqrt(mean(square)[0] + 1e-6f);
            for (int64_t c = 0; c < channels; c += W)
                store(to + c, (load(from + c) - middle) * scale * load(gamma + c) + load(beta + c));
        }
    });
}

}  // namespace
