// MAXIM on the CPU: the gated MLP of a multi-axis block and cross gating, which work on windows, and its 3 x 3
// convolutions.
//
// A framework runs them one operation at a time over whole maps, and much of that time goes into moving maps.
// Here a window (the P = side*side tokens that a spatial Dense mixes) is gathered once, goes through all
// steps in buffers that stay in the caches, and is scattered once.
//
// Inside, tokens lie across the vector lanes: a *panel* is `[channels][NR]` floats, NR tokens of a window. So
// LayerNorm needs no sums within a vector, and one tile of MR x NR accumulators serves all products:
//
//                          rows of the tile   broadcast              vectors                k
//   Dense, panel to panel  outputs            packed weights         panel                  inputs
//   mix of tokens          channels           channels (by token)    packed mix weights     tokens
//   Dense, panel to map    tokens             panel                  packed weights         inputs
//
// The last one also turns the layout back: only the gather transposes.
//
// GCC's and clang's vector extensions; the instruction set follows from the compiler's flags. For full speed:
// -O3 -ffp-contract=fast -fno-math-errno.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#ifdef __AVX__
#include <cpuid.h>
#include <immintrin.h>
#endif

#ifdef _WIN32
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif
#define ALWAYS_INLINE __attribute__((always_inline))  // also of lambdas: a tile must stay in registers
#define INLINE inline ALWAYS_INLINE
#define UNROLL _Pragma("GCC unroll 16")
#define EACH(rows) UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int i = 0; i < NV; ++i)

// ---- Interface --------------------------------------------------------------------------------------------

// Which windows of which maps. Maps are [images, height, width, channels], contiguous: float32, or the type of
// feature maps where it says so.
struct Sweep {
    int64_t images, height, width, channels;  // channels: a multiple of 16
    int64_t side;                             // of a window: divides height and width; side*side % 32 == 0
    int64_t first, last;                      // windows [first, last) of images*(height/side)*(width/side)
    int32_t axis;                             // 0: block, 1: grid
    int32_t precision;                        // of the products' operands; 0: float32, 1: bfloat16
    int32_t threads;                          // with the caller's
    int32_t features_bf16;                    // feature maps are bfloat16
};

// Weights are float32 in torch's layout [outputs, inputs], rows contiguous where no stride is given.
struct MabWeights {
    const float *n0_gamma, *n0_beta, *in_w, *in_b;    // LayerNorm, C -> C
    const float *n1_gamma, *n1_beta, *gin_w, *gin_b;  // LayerNorm, C -> 2C
    const float *n2_gamma, *n2_beta, *mix_w, *mix_b;  // LayerNorm, P -> P
    const float *gout_w, *gout_b, *out_w, *out_b;     // C -> C, C -> C; out_b may be NULL
    int64_t out_stride;                               // between out_w's rows
};

struct GateWeights {
    const float *n0_gamma, *n0_beta, *p_w, *p_b;    // LayerNorm, C -> C
    const float *n1_gamma, *n1_beta, *in_w, *in_b;  // LayerNorm, C -> C
    const float *mix_w, *mix_b, *out_w, *out_b;     // P -> P, C -> C; out_b may be NULL
    int64_t out_stride;                             // between out_w's rows
};

struct CrossWeights {
    GateWeights x, y;                        // of the gates computed from x and from y
    const float *oy_w, *oy_b, *ox_w, *ox_b;  // C -> C: what joins y, what joins x
};

// A 3 x 3 convolution of rows of maps. `in` is [images, rows, width, inputs], `out` [images, rows + top + bottom
// - 2, width, outputs], both float32 and contiguous; the weights are torch's [outputs, inputs, 3, 3].
struct Convolution {
    int64_t images, rows, width, inputs, outputs;  // width: even; inputs: a multiple of 16; outputs: see fits()
    int32_t top, bottom;                           // whether a row of padding comes before, and behind
    int32_t replicate;                             // what pads: the outermost pixels; otherwise zeros
    int32_t threads;                               // with the caller's
    float negative_slope;                          // of a leaky ReLU that follows; 1: none
};

// Entry points of the OpenMP runtime that torch has loaded.
struct OpenMP {
#ifdef _WIN32  // Intel's, and LLVM's
    int32_t (*global_thread_num)(const void* location);
    void (*push_num_threads)(const void* location, int32_t thread, int32_t threads);
    void (*fork_call)(const void* location, int32_t arguments,
                      void (*member)(int32_t*, int32_t*, void (*)(void*), void*), ...);
#else  // GCC's; LLVM's and Intel's have it too
    void (*parallel)(void (*body)(void*), void* data, unsigned threads, unsigned flags);
#endif
};

enum Status { OK = 0, BAD_ARGUMENT = 1, NO_MEMORY = 2 };

namespace {

// ---- Vectors ----------------------------------------------------------------------------------------------

// W floats in a vector; MR rows and NV vectors in a tile; NR tokens in a panel. (AVX-512: a tile of 4 x 4
// multiplies 5 % faster than one of 8 x 2 by itself, but its larger panels cost more than that.)
#if defined(__AVX512F__)
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
typedef Vec Rows[2][NV];  // of a panel
typedef Vec Tile[MR][NV];

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

// Elements of a map: float32, or bfloat16 as bits (rounded to nearest even, NaN kept).
INLINE Vec load(const float* p) { return read<Vec>(p); }
INLINE Vec load(const uint16_t* p) { return (Vec)(__builtin_convertvector(read<Short>(p), Uint) << 16); }
INLINE void store(float* p, Vec v) { write(p, v); }
INLINE void store(uint16_t* p, Vec v) {
    Uint bits = (Uint)v, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    write(p, __builtin_convertvector(v == v ? rounded : Uint{} + 0x7fc0, Short));
}

template <size_t... I>
INLINE void interleave(Vec a, Vec b, Vec& low, Vec& high, std::index_sequence<I...>) {
    low = __builtin_shufflevector(a, b, (I / 2 + I % 2 * W)...);
    high = __builtin_shufflevector(a, b, (W / 2 + I / 2 + I % 2 * W)...);
}

// The transpose of W vectors: log2(W) perfect shuffles of all their elements.
INLINE void transpose(Vec (&v)[W]) {
    UNROLL for (int round = 1; round < W; round *= 2) {
        Vec t[W];
        UNROLL for (int i = 0; i < W / 2; ++i)
            interleave(v[i], v[i + W / 2], t[2 * i], t[2 * i + 1], std::make_index_sequence<W>());
        UNROLL for (int i = 0; i < W; ++i) v[i] = t[i];
    }
}

INLINE Vec inverse_sqrt(Vec v) {
    float f[W];
    write(f, v);
    for (int i = 0; i < W; ++i) f[i] = 1 / std::sqrt(f[i]);
    return read<Vec>(f);
}

// The steps of gelu() for which AVX-512 has instructions: `times` multiplies by 2 to the power that `nearest` found.
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
#ifdef __AVX__
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
constexpr float GELU_SLOPE = 2 * 0.7978845608f, GELU_CUBIC = 0.044715f;

// exp(-s)
INLINE Vec gelu_exponential(Vec x) {
    constexpr float c = -GELU_SLOPE * 1.44269504089f;
    Vec t = clamp(x * (c + GELU_CUBIC * c * (x * x)), -126, 126);  // 2^t stays finite and normal
    Vec power, f = t - nearest(t, power);
    Vec p = 0.0001534581216f * f + 0.001339993118f;  // 2^f, minimax on [-1/2, 1/2]: relative error 2e-9
    p = p * f + 0.009618488956f;
    p = p * f + 0.05550328777f;
    p = p * f + 0.2402264689f;
    p = p * f + 0.6931472057f;
    p = p * f + 1.000000001f;
    return times(p, power);
}

INLINE Vec gelu(Vec x) { return quotient(x, 1 + gelu_exponential(x)); }

INLINE Vec gelu_derivative(Vec x) {
    Vec e = gelu_exponential(x), sigmoid = quotient(broadcast(1), 1 + e);
    Vec inside = clamp(x, -16, 16);  // where sigmoid is not 0 or 1; the square stays finite
    Vec slope = GELU_SLOPE + 3 * GELU_CUBIC * GELU_SLOPE * (inside * inside);
    return sigmoid + x * (e * sigmoid * sigmoid * slope);  // e sigmoid = 1 - sigmoid, to the last bit
}

// ---- Operands of products ---------------------------------------------------------------------------------

// Their number format. A unit is what a lane multiplies at once: a float, or two bfloat16 that follow each
// other along k. Producers write what the consumer reads, two rows of a panel at a time:
//   put_channels  k: channels  [channels / PACK][NR] units
//   put_tokens    k: tokens    [channels][NR / PACK] units
struct Full {
    using Unit = float;
    static constexpr int PACK = 1;
    static INLINE Vec multiply_add(Vec sum, Unit a, Vec b) { return sum + a * b; }
    static Unit pack(const float* w) { return *w; }
    static INLINE void put_channels(Unit* panel, int64_t row, const Rows& v) {
        EACH(2) store(panel + (row + r) * NR + i * W, v[r][i]);
    }
    static INLINE void put_tokens(Unit* panel, int64_t row, const Rows& v) { put_channels(panel, row, v); }
};

#ifdef __AVX512BF16__
struct Half {
    using Unit = uint32_t;
    static constexpr int PACK = 2;
    static INLINE Vec multiply_add(Vec sum, Unit a, Vec b) {
        return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(int(a)), (__m512bh)b);
    }
    static INLINE __m512i rounded(Vec low, Vec high) {
        return (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
    }
    static Unit pack(const float* w) {
        return Unit(_mm512_cvtsi512_si32(rounded(Vec{w[0], w[1]}, Vec{})));
    }
    static INLINE void put_channels(Unit* panel, int64_t row, const Rows& v) {
        typedef uint16_t Shorts __attribute__((vector_size(64)));
        constexpr Shorts pairs = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                  8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
        UNROLL for (int i = 0; i < NV; ++i)
            write(panel + row / 2 * NR + i * W,
                  _mm512_permutexvar_epi16((__m512i)pairs, rounded(v[0][i], v[1][i])));
    }
    static INLINE void put_tokens(Unit* panel, int64_t row, const Rows& v) {
        UNROLL for (int r = 0; r < 2; ++r) write(panel + (row + r) * W, rounded(v[r][0], v[r][1]));
    }
};
#else
using Half = Full;
#endif

// ---- Memory and threads -----------------------------------------------------------------------------------

// Buffers on cache lines, freed together. Throws std::bad_alloc.
class Arena {
   public:
    template <class T>
    T* take(int64_t count) {
        blocks.reserve(blocks.size() + 1);
        blocks.push_back(::operator new(size_t(count) * sizeof(T), LINE));
        return static_cast<T*>(blocks.back());
    }
    ~Arena() {
        for (void* block : blocks) ::operator delete(block, LINE);
    }

   private:
    static constexpr std::align_val_t LINE{64};
    std::vector<void*> blocks;
};

// Torch's threads wait for more work in a busy loop, and threads of our own or of another OpenMP runtime would
// have to fight them for the processors. So none is linked: kernels.py passes the entry points of torch's.
OpenMP openmp;

// body(data) on every thread of a team.
void run_team(int threads, void (*body)(void*), void* data) {
#ifdef _WIN32
    static const struct {
        int32_t reserved, flags, reserved2, reserved3;
        const char* source;
    } location{0, 2, 0, 0, ";unknown;unknown;0;0;;"};  // LLVM's ident_t
    openmp.push_num_threads(&location, openmp.global_thread_num(&location), threads);
    auto member = [](int32_t*, int32_t*, void (*body)(void*), void* data) { body(data); };
    openmp.fork_call(&location, 2, member, body, data);
#else
    openmp.parallel(body, data, unsigned(threads), 0);
#endif
}

// work(thread, i) for every i in [first, last), in runs of `run` that threads take as they get free.
template <class Work>
void parallel(int threads, int64_t first, int64_t last, int64_t run, const Work& work) {
    std::atomic<int64_t> next{first};
    std::atomic<int> members{0};
    auto member = [&] {
        const int thread = members++;
        for (int64_t start; (start = next.fetch_add(run)) < last;)
            for (int64_t i = start; i < std::min(start + run, last); ++i) work(thread, i);
    };
    int useful = int(std::min<int64_t>(threads, (last - first + run - 1) / run));
    if (useful > 1)
        run_team(useful, [](void* data) { (*static_cast<decltype(member)*>(data))(); }, &member);
    else
        member();
}

// ---- Products ---------------------------------------------------------------------------------------------

// Weights as [outputs / width][inputs / PACK][width] units and a bias (0 if NULL), padded to full panels.
// width: MR where outputs are rows of the tile, NR where they are columns.
template <class P>
struct Packed {
    const typename P::Unit* w;
    const float* b;
    int64_t inputs, outputs, steps;  // steps: of k

    Packed(Arena& arena, const float* weights, const float* bias, int64_t outputs, int64_t inputs,
           int64_t stride, int width)
        : inputs(inputs), outputs(outputs), steps(inputs / P::PACK) {
        int64_t padded = (outputs + width - 1) / width * width;
        auto* packed = arena.take<typename P::Unit>(padded * steps);
        auto* biases = arena.take<float>(padded);
        for (int64_t o = 0; o < padded; ++o) {
            auto* column = packed + o / width * steps * width + o % width;
            for (int64_t k = 0; k < steps; ++k)
                column[k * width] = o < outputs ? P::pack(weights + o * stride + k * P::PACK) : 0;
            biases[o] = bias && o < outputs ? bias[o] : 0;
        }
        w = packed;
        b = biases;
    }
};

// tile += A B over `steps` of k. A's element (r, k) is a[r * RS + k * KS]; a row of B is NR units.
template <class P, int RS, int KS, class Unit>
INLINE void accumulate(Tile& tile, const Unit* a, const Unit* b, int64_t steps) {
#pragma GCC unroll 4
    for (int64_t k = 0; k < steps; ++k, a += KS, b += NR) {
        Vec row[NV];
        UNROLL for (int i = 0; i < NV; ++i) row[i] = read<Vec>(b + i * W);
        EACH(MR) tile[r][i] = P::multiply_add(tile[r][i], a[r * RS], row[i]);
    }
}

// each(row, rows) for every two rows of a tile that begins at `row`.
template <class Each>
INLINE void two_by_two(const Tile& tile, int64_t row, const Each& each) {
    UNROLL for (int first = 0; first < MR; first += 2) {
        Rows v;
        EACH(2) v[r][i] = tile[first + r][i];
        each(row + first, v);
    }
}

// Dense, panel to panel: each(output, rows).
template <class P, class Each>
INLINE void dense_panel(const Packed<P>& d, const typename P::Unit* panel, const Each& each) {
    for (int64_t m = 0; m < d.outputs; m += MR) {
        Tile tile;
        EACH(MR) tile[r][i] = broadcast(d.b[m + r]);
        accumulate<P, 1, MR>(tile, d.w + m * d.steps, panel, d.steps);
        two_by_two(tile, m, each);
    }
}

// The mix, for the NR tokens from `token`: each(channel, rows).
template <class P, class Each>
INLINE void mix_panel(const Packed<P>& mix, const typename P::Unit* v, int64_t channels, int64_t token,
                      const Each& each) {
    constexpr int STEPS = NR / P::PACK;  // of k in one panel of v
    for (int64_t m = 0; m < channels; m += MR) {
        Tile tile;
        EACH(MR) tile[r][i] = load(mix.b + token + i * W);
        const auto* a = v + m * STEPS;
        const auto* b = mix.w + token * mix.steps;
        for (int64_t k = 0; k < mix.steps; k += STEPS, a += channels * STEPS, b += STEPS * NR)
            accumulate<P, STEPS, 1>(tile, a, b, STEPS);
        two_by_two(tile, m, each);
    }
}

// Dense, panel to map: put(token, output, add(token, output) + results), W outputs of a token of the panel.
template <class P, class Add, class Put>
INLINE void dense_map(const Packed<P>& d, const typename P::Unit* panel, const Add& add, const Put& put) {
    for (int64_t n = 0; n < d.outputs; n += NR)
        for (int m = 0; m < NR; m += MR) {
            Tile tile;
            EACH(MR) tile[r][i] = load(d.b + n + i * W);
            accumulate<P, 1, NR>(tile, panel + m, d.w + n * d.steps, d.steps);
            UNROLL for (int i = 0; i < NV; ++i) {
                if (n + i * W >= d.outputs) break;
                // All that is read first: tokens of a grid may lie multiples of 4096 bytes apart, where a
                // read waits for the writes before it.
                UNROLL for (int r = 0; r < MR; ++r) tile[r][i] += add(m + r, n + i * W);
                UNROLL for (int r = 0; r < MR; ++r) put(m + r, n + i * W, tile[r][i]);
            }
        }
}

// ---- Steps on a panel -------------------------------------------------------------------------------------

// NR tokens, at map + offsets[i], into a panel.
template <class T>
void gather(const T* map, const int64_t* offsets, int64_t channels, float* panel) {
    for (int part = 0; part < NR; part += W)
        for (int64_t c = 0; c < channels; c += W) {
            Vec v[W];
            UNROLL for (int i = 0; i < W; ++i) v[i] = load(map + offsets[part + i] + c);
            transpose(v);
            UNROLL for (int i = 0; i < W; ++i) store(panel + (c + i) * NR + part, v[i]);
        }
}

// LayerNorm: each(channel, rows).
template <class Each>
INLINE void normalise(const float* panel, int64_t channels, const float* gamma, const float* beta,
                      const Each& each) {
    const float inverse = 1 / float(channels);
    Vec scale[NV], shift[NV];
    for (int i = 0; i < NV; ++i) {
        Vec sum[4] = {}, square[4] = {};  // four at a time, not to wait for the last addition
        for (int64_t c = 0; c < channels; c += 4)
            UNROLL for (int j = 0; j < 4; ++j) sum[j] += load(panel + (c + j) * NR + i * W);
        Vec mean = (sum[0] + sum[1] + (sum[2] + sum[3])) * inverse;
        for (int64_t c = 0; c < channels; c += 4)
            UNROLL for (int j = 0; j < 4; ++j) {
                Vec d = load(panel + (c + j) * NR + i * W) - mean;
                square[j] += d * d;
            }
        scale[i] = inverse_sqrt((square[0] + square[1] + (square[2] + square[3])) * inverse + 1e-6f);
        shift[i] = -mean * scale[i];
    }
    for (int64_t c = 0; c < channels; c += 2) {
        Rows v;
        EACH(2) {
            Vec unit = load(panel + (c + r) * NR + i * W) * scale[i] + shift[i];
            v[r][i] = unit * gamma[c + r] + beta[c + r];
        }
        each(c, v);
    }
}

// gelu(Dense(LayerNorm(panel))): each(output, rows). `operand` is working space.
template <class P, class Each>
INLINE void project(const float* panel, const float* gamma, const float* beta, const Packed<P>& d,
                    typename P::Unit* operand, const Each& each) {
    normalise(panel, d.inputs, gamma, beta,
              [&](int64_t c, Rows& v) ALWAYS_INLINE { P::put_channels(operand, c, v); });
    dense_panel<P>(d, operand, [&](int64_t c, Rows& v) ALWAYS_INLINE {
        EACH(2) v[r][i] = gelu(v[r][i]);
        each(c, v);
    });
}

// ---- Windows ----------------------------------------------------------------------------------------------

// A thread's buffers: whole windows (each function uses some of them), then single panels.
template <class P>
struct Buffers {
    float *g, *h, *panel;
    typename P::Unit *v, *w, *operand, *second;

    Buffers(Arena& arena, int64_t tokens, int64_t channels)
        : g(arena.take<float>(tokens * channels)), h(arena.take<float>(tokens * channels)),
          panel(arena.take<float>(NR * channels)), v(units(arena, tokens * channels)),
          w(units(arena, tokens * channels)), operand(units(arena, NR * channels)),
          second(units(arena, NR * channels)) {}
    static auto units(Arena& arena, int64_t count) { return arena.take<typename P::Unit>(count / P::PACK); }
};

class Windows {
   public:
    const int64_t tokens, channels;

    explicit Windows(const Sweep& s)
        : tokens(s.side * s.side), channels(s.channels), s(s), rows(s.height / s.side),
          columns(s.width / s.side) {
        for (int64_t i = 0; i < s.side; ++i)
            for (int64_t j = 0; j < s.side; ++j)
                offsets.push_back((s.axis ? i * rows * s.width + j * columns : i * s.width + j) * channels);
    }

    // Offset of window w's first token in a map, and those of its tokens (from `token` on) from there.
    int64_t origin(int64_t w) const {
        int64_t image = w / (rows * columns), a = w / columns % rows, b = w % columns;
        int64_t step = s.axis ? 1 : s.side;
        return ((image * s.height + a * step) * s.width + b * step) * channels;
    }
    const int64_t* from(int64_t token) const { return &offsets[size_t(token)]; }

    // Bring the tokens of a panel near ahead of their use: on the grid no hardware prefetcher does, and whole
    // windows don't fit the few cache sets that maps of a power of two share. (Inlined by force: GCC takes a
    // function of prefetches for one without effects, and drops the call.)
    template <class T>
    INLINE void prefetch(const T* map, int64_t w, int64_t token) const {
        if (w >= s.last || token >= tokens || !map) return;
        map += origin(w);
        for (int64_t t = token; t < token + NR; ++t)
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

bool valid(const Sweep& s) {
    if (s.images < 0 || s.height < 0 || s.width < 0 || s.channels < 16 || s.side < 1) return false;
    if (s.channels % 16 || s.side * s.side % 32 || s.height % s.side || s.width % s.side) return false;
    if (s.axis < 0 || s.axis > 1 || s.precision < 0 || s.precision > 1 || s.threads < 1) return false;
    return 0 <= s.first && s.first <= s.last && s.last <= s.images * (s.height / s.side) * (s.width / s.side);
}

template <class P, class Base, class Out>
void mab(const Sweep& s, const MabWeights& weights, const float* x, const void* base_map, void* out_map) {
    const Windows windows(s);
    const int64_t C = s.channels, T = windows.tokens;
    Arena arena;
    const Packed<P> in(arena, weights.in_w, weights.in_b, C, C, C, MR);
    const Packed<P> gate_in(arena, weights.gin_w, weights.gin_b, 2 * C, C, C, MR);
    const Packed<P> gate_out(arena, weights.gout_w, weights.gout_b, C, C, C, MR);
    const Packed<P> last(arena, weights.out_w, weights.out_b, C, C, weights.out_stride, NR);
    std::vector<float> bias(weights.mix_b, weights.mix_b + T);
    for (float& b : bias) b += 1;  // u is multiplied by mix + 1
    const Packed<P> mix(arena, weights.mix_w, bias.data(), T, T, T, NR);
    auto* base = static_cast<const Base*>(base_map);
    auto* out = static_cast<Out*>(out_map);

    windows.run<P>(arena, [&](const Buffers<P>& b, int64_t w, int64_t origin) {
        for (int64_t t = 0; t < T; t += NR) {
            float *h = b.h + t * C, *u = b.g + t * C;
            auto* mixed = b.v + t * C / P::PACK;
            gather(x + origin, windows.from(t), C, b.panel);
            windows.prefetch(x, w, t + NR);
            project(b.panel, weights.n0_gamma, weights.n0_beta, in, b.operand,
                    [&](int64_t c, Rows& v) ALWAYS_INLINE { Full::put_channels(h, c, v); });
            project(h, weights.n1_gamma, weights.n1_beta, gate_in, b.operand,
                    [&](int64_t c, Rows& v) ALWAYS_INLINE {
                        Full::put_channels(c < C ? u : b.panel, c < C ? c : c - C, v);
                    });
            normalise(b.panel, C, weights.n2_gamma, weights.n2_beta,
                      [&](int64_t c, Rows& v) ALWAYS_INLINE { P::put_tokens(mixed, c, v); });
        }
        windows.prefetch(x, w + 1, 0);
        for (int64_t t = 0; t < T; t += NR) {
            const float *h = b.h + t * C, *u = b.g + t * C;
            const int64_t* offsets = windows.from(t);
            windows.prefetch(out, w, t);
            mix_panel<P>(mix, b.v, C, t, [&](int64_t c, Rows& v) ALWAYS_INLINE {
                EACH(2) v[r][i] *= load(u + (c + r) * NR + i * W);
                P::put_channels(b.operand, c, v);
            });
            dense_panel<P>(gate_out, b.operand, [&](int64_t c, Rows& v) ALWAYS_INLINE {
                EACH(2) v[r][i] += load(h + (c + r) * NR + i * W);
                P::put_channels(b.second, c, v);
            });
            dense_map<P>(
                last, b.second,
                [&](int token, int64_t c) ALWAYS_INLINE {
                    int64_t at = origin + offsets[token] + c;
                    return base ? load(x + at) + load(base + at) : Vec{};
                },
                [&](int token, int64_t c, Vec r)
                    ALWAYS_INLINE { store(out + origin + offsets[token] + c, r); });
        }
    });
}

// A gate's weights, and its steps up to the last Dense.
template <class P>
struct Gate {
    using Unit = typename P::Unit;
    const GateWeights& w;
    const int64_t C;
    const Packed<P> first, in, mix, out;

    Gate(Arena& arena, const GateWeights& w, int64_t C, int64_t T, int out_width)
        : w(w), C(C), first(arena, w.p_w, w.p_b, C, C, C, MR), in(arena, w.in_w, w.in_b, C, C, C, MR),
          mix(arena, w.mix_w, w.mix_b, T, T, T, NR),
          out(arena, w.out_w, w.out_b, C, C, w.out_stride, out_width) {}

    // A panel's g, and what is to be mixed, for the mix. `g` may be `panel`.
    void features(const float* panel, float* g, Unit* operand, Unit* mixed) const {
        project(panel, w.n0_gamma, w.n0_beta, first, operand,
                [&](int64_t c, Rows& v) ALWAYS_INLINE { Full::put_channels(g, c, v); });
        project(g, w.n1_gamma, w.n1_beta, in, operand,
                [&](int64_t c, Rows& v) ALWAYS_INLINE { P::put_tokens(mixed, c, v); });
    }

    // The mix of NR tokens, for `out`.
    void mixed(const Unit* v, int64_t token, Unit* operand) const {
        mix_panel<P>(mix, v, C, token,
                     [&](int64_t c, Rows& r) ALWAYS_INLINE { P::put_channels(operand, c, r); });
    }
};

template <class P, class T>
void gate(const Sweep& s, const GateWeights& weights, const void* x_map, void* out_map) {
    const Windows windows(s);
    const int64_t C = s.channels;
    Arena arena;
    const Gate<P> gate(arena, weights, C, windows.tokens, NR);
    auto* x = static_cast<const T*>(x_map);
    auto* out = static_cast<T*>(out_map);

    windows.run<P>(arena, [&](const Buffers<P>& b, int64_t w, int64_t origin) {
        for (int64_t t = 0; t < windows.tokens; t += NR) {
            gather(x + origin, windows.from(t), C, b.panel);
            windows.prefetch(x, w, t + NR);
            gate.features(b.panel, b.panel, b.operand, b.v + t * C / P::PACK);
        }
        windows.prefetch(x, w + 1, 0);
        for (int64_t t = 0; t < windows.tokens; t += NR) {
            const int64_t* offsets = windows.from(t);
            windows.prefetch(out, w, t);
            gate.mixed(b.v, t, b.operand);
            dense_map<P>(
                gate.out, b.operand,
                [](int, int64_t) ALWAYS_INLINE { return Vec{}; },
                [&](int token, int64_t c, Vec r)
                    ALWAYS_INLINE { store(out + origin + offsets[token] + c, r); });
        }
    });
}

template <class P, class T>
void cross_gate(const Sweep& s, const CrossWeights& weights, void* x_map, void* y_map, const void* gx_map,
                const void* gy_map) {
    const Windows windows(s);
    const int64_t C = s.channels;
    Arena arena;
    const Gate<P> gate_x(arena, weights.x, C, windows.tokens, MR);
    const Gate<P> gate_y(arena, weights.y, C, windows.tokens, MR);
    const Packed<P> out_x(arena, weights.ox_w, weights.ox_b, C, C, C, NR);
    const Packed<P> out_y(arena, weights.oy_w, weights.oy_b, C, C, C, NR);
    auto *x = static_cast<T*>(x_map), *y = static_cast<T*>(y_map);
    auto *gx = static_cast<const T*>(gx_map), *gy = static_cast<const T*>(gy_map);

    windows.run<P>(arena, [&](const Buffers<P>& b, int64_t w, int64_t origin) {
        for (int64_t t = 0; t < windows.tokens; t += NR) {
            gather(x + origin, windows.from(t), C, b.panel);
            gate_x.features(b.panel, b.g + t * C, b.operand, b.v + t * C / P::PACK);
            gather(y + origin, windows.from(t), C, b.panel);
            gate_y.features(b.panel, b.h + t * C, b.operand, b.w + t * C / P::PACK);
            windows.prefetch(x, w, t + NR);
            windows.prefetch(y, w, t + NR);
        }
        windows.prefetch(x, w + 1, 0);
        windows.prefetch(y, w + 1, 0);
        // second = features * (map + Dense(mix)): one branch's features, weighted by the other's gate.
        auto weigh = [&](const float* features, const Gate<P>& gate, const auto* v, const T* map, int64_t t) {
            gate.mixed(v, t, b.operand);
            gather(map + origin, windows.from(t), C, b.panel);
            dense_panel<P>(gate.out, b.operand, [&](int64_t c, Rows& v) ALWAYS_INLINE {
                EACH(2) {
                    int64_t at = (c + r) * NR + i * W;
                    v[r][i] = (v[r][i] + load(b.panel + at)) * load(features + t * C + at);
                }
                P::put_channels(b.second, c, v);
            });
        };
        for (int64_t t = 0; t < windows.tokens; t += NR) {
            const int64_t* offsets = windows.from(t);
            auto at = [&](T* map, int token, int64_t c)
                          ALWAYS_INLINE { return map + origin + offsets[token] + c; };
            windows.prefetch(gx, w, t);
            windows.prefetch(gy, w, t);
            windows.prefetch(x, w, t);
            windows.prefetch(y, w, t);
            weigh(b.h, gate_x, b.v, gx, t);
            dense_map<P>(
                out_y, b.second, [&](int token, int64_t c) ALWAYS_INLINE { return load(at(y, token, c)); },
                [&](int token, int64_t c, Vec r) ALWAYS_INLINE { store(at(y, token, c), r); });
            weigh(b.g, gate_y, b.w, gy, t);
            dense_map<P>(
                out_x, b.second,
                [&](int token, int64_t c)
                    ALWAYS_INLINE { return load(at(x, token, c)) + load(at(y, token, c)); },
                [&](int token, int64_t c, Vec r) ALWAYS_INLINE { store(at(x, token, c), r); });
        }
    });
}

// ---- Convolutions -----------------------------------------------------------------------------------------

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
INLINE void multiply(const float* a, int64_t inputs, const float* weights, float* out, int64_t outputs) {
    Vec sum[M][NV] = {};
    for (int64_t k = 0; k < inputs; ++k, weights += NR) {
        Vec row[NV];
        UNROLL for (int i = 0; i < NV; ++i) row[i] = load(weights + i * W);
        EACH(M) sum[r][i] += a[r * inputs + k] * row[i];
    }
    EACH(M) store(out + r * outputs + i * W, sum[r][i]);
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
    auto leaky = [&](Vec v) ALWAYS_INLINE { return v < 0 ? v * s.negative_slope : v; };

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
                    for (; tile + TILES <= tiles; tile += TILES) multiply<TILES>(a + tile * C, C, w, to + tile * O, O);
                    for (; tile < tiles; ++tile) multiply<1>(a + tile * C, C, w, to + tile * O, O);
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
                        store(to, leaky(z[r][0] + z[r][1] + z[r][2] + b));
                        store(to + O, leaky(z[r][1] - z[r][2] - z[r][3] + b));
                    }
                }
        }
    });
}

// ---- Maps, element by element -----------------------------------------------------------------------------

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

// ---- Exported ---------------------------------------------------------------------------------------------

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
    constexpr unsigned YMM = 0x6, ZMM = 0xe6;  // registers that the system saves: XCR0
    unsigned eax, ebx, ecx, edx, saved, unused;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & FMA_XSAVE) != FMA_XSAVE) return 0;
    __asm__("xgetbv" : "=a"(saved), "=d"(unused) : "c"(0));
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return 0;
    auto has = [&](unsigned features, unsigned registers) {
        return (ebx & features) == features && (saved & registers) == registers;
    };
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
        auto* call = s->precision ? mab<Half, float, float> : mab<Full, float, float>;
        if (s->features_bf16 && base)
            call = s->precision ? mab<Half, uint16_t, float> : mab<Full, uint16_t, float>;
        else if (s->features_bf16)
            call = s->precision ? mab<Half, uint16_t, uint16_t> : mab<Full, uint16_t, uint16_t>;
        call(*s, *weights, x, base, out);
    });
}

// out = G(x): one axis of a gate, without the other's share. Both are feature maps.
EXPORT int gate_sweep(const Sweep* s, const GateWeights* weights, const void* x, void* out) {
    return guarded(valid(*s), [&] {
        auto* call = s->features_bf16 ? (s->precision ? gate<Half, uint16_t> : gate<Full, uint16_t>)
                                      : (s->precision ? gate<Half, float> : gate<Full, float>);
        call(*s, *weights, x, out);
    });
}

// In place: y += Dense(b * (gx + G_x(x))), then x += y + Dense(a * (gy + G_y(y of before))); a and b are the
// features of x and y that their gates begin with. All are feature maps.
EXPORT int cross_gate_sweep(const Sweep* s, const CrossWeights* weights, void* x, void* y, const void* gx,
                            const void* gy) {
    return guarded(valid(*s), [&] {
        auto* call = s->features_bf16 ? (s->precision ? cross_gate<Half, uint16_t> : cross_gate<Full, uint16_t>)
                                   : (s->precision ? cross_gate<Half, float> : cross_gate<Full, float>);
        call(*s, *weights, x, y, gx, gy);
    });
}

EXPORT int convolution(const Convolution* s, const float* in, const float* weights, const float* bias, float* out) {
    return guarded(fits(*s), [&] { convolve(*s, in, weights, bias, out); });
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
