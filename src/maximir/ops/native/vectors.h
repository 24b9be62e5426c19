// Vectors of floats: GCC's and clang's vector extensions; the instruction set follows from the compiler's flags.
// For full speed: -O3 -ffp-contract=fast -fno-math-errno.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#ifdef __AVX__
#include <immintrin.h>
#endif

#define ALWAYS_INLINE __attribute__((always_inline))  // also of lambdas: a sum must stay in registers
#define INLINE inline ALWAYS_INLINE
#define UNROLL _Pragma("GCC unroll 16")

namespace {

// W floats in a vector. A sum of products has MR rows and NR = 2 W columns in registers. (Tiles have rows of 16; plain
// C++ for them works on processors of narrower vectors too.)
#if defined(__AVX512F__) || defined(PORTABLE_TILES)
constexpr int W = 16, MR = 8;
#elif defined(__AVX__)
constexpr int W = 8, MR = 4;
#elif defined(__aarch64__)
constexpr int W = 4, MR = 8;
#else
constexpr int W = 4, MR = 4;
#endif
constexpr int NV = 2, NR = NV * W;

typedef float Vec __attribute__((vector_size(4 * W)));
typedef int32_t Int __attribute__((vector_size(4 * W)));
typedef uint32_t Uint __attribute__((vector_size(4 * W)));
typedef uint16_t Short __attribute__((vector_size(2 * W)));
typedef uint16_t Pair __attribute__((vector_size(4 * W)));  // NR bfloat16
using Bf16 = uint16_t;

template <int M>
using Rows = Vec[M][NV];  // of NR columns

// f(r, i) for each vector of some rows.
template <int M, class F>
INLINE void each(const Rows<M>&, const F& f) {
    UNROLL for (int r = 0; r < M; ++r) UNROLL for (int i = 0; i < NV; ++i) f(r, i);
}

template <class V, class T>
INLINE V read(const T* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
template <class V, class T>
INLINE void write(T* p, V v) {
    std::memcpy(p, &v, sizeof v);
}
INLINE Vec broadcast(float x) { return x - Vec{}; }

// Values of a map: float32, or bfloat16 as bits (rounded to nearest even, NaN kept).
INLINE Vec load(const float* p) { return read<Vec>(p); }
INLINE Vec load(const Bf16* p) { return (Vec)(__builtin_convertvector(read<Short>(p), Uint) << 16); }

INLINE Short rounded(Vec v) {
    Uint bits = (Uint)v, nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return __builtin_convertvector(v == v ? nearest : Uint{} + 0x7fc0, Short);
}
INLINE Pair rounded(const Vec (&v)[NV]) {  // AVX-512's instruction takes subnormals for zeros
#ifdef __AVX512BF16__
    return (Pair)_mm512_cvtne2ps_pbh((__m512)v[1], (__m512)v[0]);
#else
    const Short both[NV] = {rounded(v[0]), rounded(v[1])};
    return read<Pair>(both);
#endif
}
INLINE void store(float* p, Vec v) { write(p, v); }
INLINE void store(Bf16* p, Vec v) { write(p, rounded(v)); }
INLINE void store(float* p, const Vec (&v)[NV]) { write(p, v[0]), write(p + W, v[1]); }
INLINE void store(Bf16* p, const Vec (&v)[NV]) { write(p, rounded(v)); }

// a[0], b[0], a[1], b[1], ... of the first (part 0) or second half of two vectors.
template <int part, class V, int... I>
INLINE V interleave(V a, V b, std::integer_sequence<int, I...>) {
    constexpr int count = sizeof...(I);
    return __builtin_shufflevector(a, b, (part * count / 2 + I / 2 + I % 2 * count)...);
}
template <int part, class V>
INLINE V interleave(V a, V b) {
    return interleave<part>(a, b, std::make_integer_sequence<int, sizeof(V) / sizeof(a[0])>());
}

// ---- Sums within vectors ----------------------------------------------------------------------------------

template <int distance, int... I>
INLINE Vec fold(Vec a, Vec b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, (I & distance ? I - distance + W : I)...) +
           __builtin_shufflevector(a, b, (I & distance ? I + W : I + distance)...);
}

// Lane i of the result: the sum of v[i]. W - 1 additions for W sums.
template <int distance = W / 2>
INLINE Vec sums(Vec (&v)[W]) {
    UNROLL for (int i = 0; i < distance; ++i) v[i] =
        fold<distance>(v[i], v[i + distance], std::make_integer_sequence<int, W>());
    if constexpr (distance > 1) return sums<distance / 2>(v);
    return v[0];
}

INLINE Vec inverse_sqrt(Vec v) {
#ifdef __AVX512F__
    Vec r = (Vec)_mm512_maskz_rsqrt14_ps(0xffff, (__m512)v);
    return r * (1.5f - 0.5f * v * r * r);  // a step of Newton: 14 bits become 27
#else
    float f[W];
    write(f, v);
    for (int i = 0; i < W; ++i) f[i] = 1 / std::sqrt(f[i]);
    return read<Vec>(f);
#endif
}

INLINE Vec leaky(Vec v, float slope) {  // slope <= 1
#ifdef __AVX512F__
    return (Vec)_mm512_maskz_max_ps(0xffff, (__m512)v, (__m512)(v * slope));
#else
    return v < 0 ? v * slope : v;
#endif
}

// ---- GELU -------------------------------------------------------------------------------------------------

// The steps of power_of_two() for which AVX-512 has instructions: `times` multiplies by 2 to the power that `nearest` found.
// ("maskz": GCC 12 warns about the plain ones.)
#ifdef __AVX512F__
INLINE Vec clamp(Vec v, float low, float high) {
    __m512 above = _mm512_maskz_max_ps(0xffff, (__m512)v, (__m512)broadcast(low));
    return (Vec)_mm512_maskz_min_ps(0xffff, above, (__m512)broadcast(high));
}
INLINE Vec nearest(Vec v, Vec& power) { return power = (Vec)_mm512_maskz_roundscale_ps(0xffff, (__m512)v, 0); }
INLINE Vec times(Vec v, Vec power) { return (Vec)_mm512_maskz_scalef_ps(0xffff, (__m512)v, (__m512)power); }
INLINE Vec quotient(Vec x, Vec d) {
    Vec r = (Vec)_mm512_maskz_rcp14_ps(0xffff, (__m512)d);
    return x * (r + r * (1 - d * r));  // a step of Newton: 14 bits become 28
}
#else
INLINE Vec clamp(Vec v, float low, float high) {
#if defined(__AVX__) && !defined(PORTABLE_TILES)
    return (Vec)_mm256_min_ps(_mm256_max_ps((__m256)v, (__m256)broadcast(low)), (__m256)broadcast(high));
#else
    v = v > low ? v : broadcast(low);
    return v < high ? v : broadcast(high);
#endif
}
constexpr float LAST_BIT_IS_ONE = 12582912.0f;  // 1.5 * 2^23; nothing else of it is left in its lowest 9 bits
INLINE Vec nearest(Vec v, Vec& power) { return (power = v + LAST_BIT_IS_ONE) - LAST_BIT_IS_ONE; }
INLINE Vec times(Vec v, Vec power) { return (Vec)((Int)v + ((Int)power << 23)); }
INLINE Vec quotient(Vec x, Vec d) { return x / d; }
#endif

// GELU in its tanh form: x sigmoid(s) with s = 2 sqrt(2/pi) (x + 0.044715 x^3).
constexpr float GELU_SLOPE = 2 * 0.7978845608f, GELU_CUBIC = 0.044715f, LOG2_E = 1.44269504089f;

// 2^t, finite and normal.
INLINE Vec power_of_two(Vec t) {
    t = clamp(t, -126, 126);
    Vec power, f = t - nearest(t, power);
    Vec p = 0.0001534581216f * f + 0.001339993118f;  // 2^f, minimax on [-1/2, 1/2]: relative error 2e-9
    p = p * f + 0.009618488956f;
    p = p * f + 0.05550328777f;
    p = p * f + 0.2402264689f;
    p = p * f + 0.6931472057f;
    p = p * f + 1.000000001f;
    return times(p, power);
}

INLINE Vec sigmoid(Vec x) { return quotient(broadcast(1), 1 + power_of_two(x * -LOG2_E)); }

// exp(-s)
INLINE Vec gelu_exponential(Vec x) {
    constexpr float c = -GELU_SLOPE * LOG2_E;
    return power_of_two(x * (c + GELU_CUBIC * c * (x * x)));
}

INLINE Vec gelu(Vec x) { return quotient(x, 1 + gelu_exponential(x)); }

INLINE Vec gelu_derivative(Vec x) {
    Vec e = gelu_exponential(x), sigmoid = quotient(broadcast(1), 1 + e);
    Vec inside = clamp(x, -16, 16);  // where sigmoid is not 0 or 1; the square stays finite
    Vec slope = GELU_SLOPE + 3 * GELU_CUBIC * GELU_SLOPE * (inside * inside);
    return sigmoid + x * (e * sigmoid * sigmoid * slope);  // e sigmoid = 1 - sigmoid, to the last bit
}

// For results in bfloat16 (relative error 2^-9): 2^f by a cubic on [0, 1), relative error 8e-5, and where there is
// one the processor's reciprocal of 14 bits.
INLINE Vec gelu_of_half(Vec x) {
#ifdef __AVX512F__
    constexpr float c = -GELU_SLOPE * LOG2_E;
    Vec t = x * (c + GELU_CUBIC * c * (x * x));
    Vec below = (Vec)_mm512_maskz_roundscale_ps(0xffff, (__m512)t, _MM_FROUND_TO_NEG_INF), f = t - below;
    Vec p = 0.07802452269f * f + 0.2260671554f;
    p = p * f + 0.6958335405f;
    p = p * f + 0.9999252186f;
    return x * (Vec)_mm512_maskz_rcp14_ps(0xffff, (__m512)(1 + times(p, below)));  // p 2^below: 0 and infinity too
#else
    return gelu(x);
#endif
}

}  // namespace
