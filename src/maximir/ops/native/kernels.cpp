// MAXIM on the CPU: the functions that Python calls. Maps are [images, height, width, channels].

#include "convolution.h"
#include "pointwise.h"
#include "projection.h"
#include "windows.h"

#ifdef __AVX__
#include <cpuid.h>
#endif

#ifdef _WIN32
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

enum Status { OK = 0, BAD_ARGUMENT = 1, NO_MEMORY = 2 };

namespace {

// No exception leaves the library.
template <class Call>
int guarded(bool arguments, const Call& call) {
    if (!arguments) return BAD_ARGUMENT;
    try {
        call();
        return OK;
    } catch (...) {
        return NO_MEMORY;
    }
}

}  // namespace

// Which source this was compiled from.
#ifndef SOURCE_DIGEST
#define SOURCE_DIGEST "unknown"
#endif
EXPORT const char* source_digest(void) { return SOURCE_DIGEST; }

// Where the threads come from; to be called before any kernel that gets more than one.
EXPORT void use_openmp(const OpenMP* entry_points) { openmp = *entry_points; }

// Whether this processor has the instructions that this build is made of.
// By CPUID itself: some of clang's libraries for Windows answer __builtin_cpu_supports with zeros, or not at all.
EXPORT int supported(void) {
#ifdef __AVX2__
    constexpr unsigned FMA_XSAVE = 1u << 12 | 1u << 27;                                      // leaf 1, ECX
    constexpr unsigned AVX2 = 1u << 5, AVX512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // leaf 7, EBX
    [[maybe_unused]] constexpr unsigned YMM = 0x6, ZMM = 0xe6;  // registers that the system saves: XCR0
    unsigned eax, ebx, ecx, edx, saved, unused;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & FMA_XSAVE) != FMA_XSAVE) return 0;
    __asm__("xgetbv" : "=a"(saved), "=d"(unused) : "c"(0));
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return 0;
    auto has = [&](unsigned features, unsigned registers) {
        return (ebx & features) == features && (saved & registers) == registers;
    };
#if defined(__AMX_BF16__) && !defined(PORTABLE_TILES)
    constexpr unsigned AMX = 1u << 22 | 1u << 24, TILES = 3u << 17;  // EDX; XCR0
    if ((edx & AMX) != AMX || (saved & TILES) != TILES || !Tiles::available()) return 0;
#endif
#if defined(__AVX512BF16__)
    unsigned bf16 = 0, others[3];
    return has(AVX2 | AVX512, ZMM) && eax >= 1 && __get_cpuid_count(7, 1, &bf16, others, others + 1, others + 2) &&
           bf16 >> 5 & 1;
#elif defined(__AVX512F__)
    return has(AVX2 | AVX512, ZMM);
#else
    return has(AVX2, YMM);
#endif
#else
    return 1;
#endif
}

// F: the gated MLP of one axis, from its half of the projection in to its half of the projection out. Two calls
// make the block: first out = F(x), `out` a feature map and `base` NULL; then, on the other axis,
// out = x + base + F(x), `base` that feature map and `out` float32: x, base if that is float32, or another.
EXPORT int mab_sweep(const Sweep* s, const MabWeights* weights, const float* x, const void* base, void* out) {
    return guarded(valid(*s), [&] {
        auto* call = !s->half ? mab<Full, float, float> : base ? mab<Half, Bf16, float> : mab<Half, Bf16, Bf16>;
        call(*s, *weights, x, base, out);
    });
}

// out = G(x): one axis of a gate, without the other's share. Both are feature maps.
EXPORT int gate_sweep(const Sweep* s, const GateWeights* weights, const void* x, void* out) {
    return guarded(valid(*s), [&] { (s->half ? gate<Half, Bf16> : gate<Full, float>)(*s, *weights, x, out); });
}

// In place: y += Dense(b * (gx + G_x(x))), then x += y + Dense(a * (gy + G_y(y of before))); a and b are the
// features of x and y that their gates begin with. All are feature maps.
EXPORT int cross_gate_sweep(const Sweep* s, const CrossWeights* weights, void* x, void* y, const void* gx,
                            const void* gy) {
    return guarded(valid(*s), [&] {
        (s->half ? cross_gate<Half, Bf16> : cross_gate<Full, float>)(*s, *weights, x, y, gx, gy);
    });
}

#ifdef HAVE_TILES
// sum [16, 16] += left [16, 32] right [16 pairs, 16, 2], for tests.
EXPORT int tile_product(const Bf16* left, const Bf16* right, float* sum) {
    [[maybe_unused]] Tiles::Session session;
    Tiles::load<4>(left, TILE_BYTES), Tiles::load<6>(right, TILE_BYTES), Tiles::load<0>(sum, TILE_BYTES);
    Tiles::dot<0, 4, 6>();
    Tiles::store<0>(sum, TILE_BYTES);
    return OK;
}
#endif

EXPORT int convolution(const Convolution* s, const float* in, const float* weights, const float* bias, float* out) {
    return guarded(valid(*s), [&] {
        (by_winograd(*s) ? convolve<Filter<Full>> : convolve<ImageFilter>)(*s, in, weights, bias, out);
    });
}

EXPORT int rcab_sweep(const MapRows* s, const RcabWeights* weights, const float* x, void* y, float* totals) {
    return guarded(valid(*s),
                   [&] { (s->half ? rcab<Half, Bf16> : rcab<Full, float>)(*s, *weights, x, y, totals); });
}

// The picture's channels: 9 products of each, read four at a time, must fit their places.
static bool valid_picture(int64_t channels) { return channels == 3 || (channels > 0 && channels % 4 == 0); }

EXPORT int sam_sweep(const MapRows* s, const SamWeights* weights, const void* x, const float* picture, void* out) {
    return guarded(valid(*s) && weights->picture_channels > 0, [&] {
        (s->half ? supervise<Half, Bf16> : supervise<Full, float>)(*s, *weights, x, picture, out);
    });
}

EXPORT int picture_sweep(const MapRows* s, const PictureWeights* weights, const void* x, float* out) {
    return guarded(valid(*s) && valid_picture(weights->picture_channels),
                   [&] { (s->half ? picture<Bf16> : picture<float>)(*s, *weights, x, out); });
}

EXPORT int attend_sweep(const MapRows* s, const float* x, const void* y, const float* weight, const void* shortcut,
                        void* out) {
    return guarded(valid(*s), [&] {
        auto* call = !s->half ? attend<float, float> : shortcut ? attend<Bf16, Bf16> : attend<Bf16, float>;
        call(*s, x, y, weight, shortcut, out);
    });
}

// out = bias + the sum of all terms, and the same in `copy`, unless that is NULL.
EXPORT int project_rows(const Projection* s, const Term* terms, const float* bias, void* out, Bf16* copy) {
    return guarded(valid(*s, terms), [&] {
        auto* call = project_all<Full, float>;
        if (s->half) call = s->out_half ? project_all<Half, Bf16> : project_all<Half, float>;
        call(*s, terms, bias, out, copy);
    });
}

EXPORT int shrink_rows(const Shrink* s, const void* in, void* out) {
    return guarded(valid(*s), [&] { (s->half ? shrink<Bf16> : shrink<float>)(*s, in, out); });
}

EXPORT int layer_norm(const float* x, const float* gamma, const float* beta, float* out, int64_t count,
                      int64_t channels, int32_t threads) {
    return guarded(count > 0 && channels > 0 && channels % W == 0 && threads > 0, [&] {
        normalise_tokens(threads, count, channels, x, gamma, beta, out);
    });
}

EXPORT int gelu_forward(const float* x, float* y, int64_t count, int32_t threads) {
    return guarded(count > 0 && threads > 0, [&] {
        each_element(threads, count, x, x, y, [](Vec v, Vec) ALWAYS_INLINE { return gelu(v); });
    });
}

// The gradient to x from that to gelu(x).
EXPORT int gelu_backward(const float* x, const float* gradient, float* out, int64_t count, int32_t threads) {
    return guarded(count > 0 && threads > 0, [&] {
        each_element(threads, count, x, gradient, out,
                     [](Vec v, Vec g) ALWAYS_INLINE { return g * gelu_derivative(v); });
    });
}
