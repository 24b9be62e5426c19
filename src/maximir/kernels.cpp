// Native CPU kernels of MAXIM's window operations: the multi-axis gated MLP and cross gating.
//
// A framework runs these blocks one operation at a time over the whole map, and most of its time goes into
// moving maps through memory. Here a window (the P = side*side tokens that a spatial Dense mixes) is gathered
// once, goes through every step in buffers that stay in the L1 and L2 caches, and is scattered once.
//
// Inside, channels are rows and tokens lie across the vector lanes: a *panel* is `[channels][NR]` floats of NR
// tokens, NR two vectors. Then LayerNorm needs no horizontal sums, a Dense broadcasts its weights, and one GEMM
// tile of MR x NR accumulators serves all products:
//
//   Dense, panel to panel   rows: outputs,  broadcast: packed weights,  vectors: the panel (k: input channels)
//   mix over tokens         rows: channels, broadcast: token operand,   vectors: packed mix_w (k: tokens)
//   Dense, panel to map     rows: tokens,   broadcast: the panel,       vectors: packed weights (k: inputs)
//
// The last one turns the layout back, so that only the gather pays for a transposition.
//
// Written with vector extensions of GCC and clang: the width follows from the compiler's flags. Needs
// -ffp-contract=fast -fno-math-errno for full speed.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include <omp.h>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))
#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

// ---- The interface -------------------------------------------------------------------------------------------

// Which windows of which maps. Maps are [images, height, width, channels], contiguous: float32, or the type of
// feature maps where it says so.
struct Sweep {
    int64_t images, height, width, channels;  // channels: a multiple of 16
    int64_t side;                             // of a window; divides height and width; side*side % 32 == 0
    int64_t first, last;                      // windows [first, last) of images*(height/side)*(width/side)
    int32_t axis;                             // 0: block, 1: grid
    int32_t precision;                        // 0: float32, 1: operands of the products rounded to bfloat16
    int32_t threads;                          // the caller's included
    int32_t features_bf16;                    // feature maps are bfloat16 instead of float32
};

// Weights are float32 in torch's layout: w [outputs, inputs], rows contiguous unless a stride is given.
struct MabWeights {
    const float *n0_gamma, *n0_beta, *in_w, *in_b;    // LayerNorm, C -> C
    const float *n1_gamma, *n1_beta, *gin_w, *gin_b;  // LayerNorm, C -> 2C
    const float *n2_gamma, *n2_beta, *mix_w, *mix_b;  // LayerNorm, P -> P
    const float *gout_w, *gout_b, *out_w, *out_b;     // C -> C; out_b may be NULL
    int64_t out_stride;                               // of out_w's rows
};

struct GateWeights {
    const float *n0_gamma, *n0_beta, *p_w, *p_b;    // LayerNorm, C -> C
    const float *n1_gamma, *n1_beta, *in_w, *in_b;  // LayerNorm, C -> C
    const float *mix_w, *mix_b, *out_w, *out_b;     // P -> P, C -> C; out_b may be NULL
    int64_t out_stride;                             // of out_w's rows
};

struct CrossWeights {
    GateWeights x, y;                        // of the gates computed from x and from y
    const float *oy_w, *oy_b, *ox_w, *ox_b;  // C -> C, what joins y and x
};

enum Status { OK = 0, BAD_ARGUMENT = 1, NO_MEMORY = 2 };

namespace {

// ---- Vectors -------------------------------------------------------------------------------------------------

#if defined(__AVX512F__)
constexpr int W = 16;  // floats in a vector
constexpr int MR = 8;  // rows of a tile: MR*2 accumulators
#elif defined(__AVX__)
constexpr int W = 8;
constexpr int MR = 4;
#else
constexpr int W = 4;
constexpr int MR = 8;
#endif
constexpr int NR = 2 * W;  // columns of a tile, tokens of a panel

typedef float Vec __attribute__((vector_size(4 * W)));
typedef int32_t Int __attribute__((vector_size(4 * W)));
typedef uint32_t Uint __attribute__((vector_size(4 * W)));
typedef uint16_t Short __attribute__((vector_size(2 * W)));

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

// A map's elements: float32, or bfloat16 as its bits.
INLINE Vec load(const float* p) { return read<Vec>(p); }
INLINE Vec load(const uint16_t* p) { return (Vec)(__builtin_convertvector(read<Short>(p), Uint) << 16); }
INLINE void store(float* p, Vec v) { write(p, v); }
INLINE void store(uint16_t* p, Vec v) {  // to nearest even; NaN stays NaN
    Uint bits = (Uint)v;
    Uint rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    write(p, __builtin_convertvector(v == v ? rounded : Uint{} + 0x7fc0, Short));
}

template <size_t... I>
INLINE void interleave(Vec a, Vec b, Vec& low, Vec& high, std::index_sequence<I...>) {
    low = __builtin_shufflevector(a, b, (I / 2 + I % 2 * W)...);
    high = __builtin_shufflevector(a, b, (W / 2 + I / 2 + I % 2 * W)...);
}

// The transpose of W vectors: log2(W) perfect shuffles of all their elements.
INLINE void transpose(Vec (&v)[W]) {
#pragma GCC unroll 4
    for (int round = 1; round < W; round *= 2) {
        Vec t[W];
#pragma GCC unroll 16
        for (int i = 0; i < W / 2; ++i)
            interleave(v[i], v[i + W / 2], t[2 * i], t[2 * i + 1], std::make_index_sequence<W>());
#pragma GCC unroll 16
        for (int i = 0; i < W; ++i) v[i] = t[i];
    }
}

INLINE Vec inverse_sqrt(Vec v) {
    float f[W];
    write(f, v);
    for (int i = 0; i < W; ++i) f[i] = 1.0f / std::sqrt(f[i]);
    return read<Vec>(f);
}

// GELU in its tanh form: x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)) = x / (1 + 2^t).
INLINE Vec gelu(Vec x) {
    constexpr float c = -2 * 0.7978845608f * 1.44269504089f;
    Vec t = x * (c + 0.044715f * c * (x * x));
    t = t < 126.0f ? t : Vec{} + 126.0f;  // keeps 2^t finite and normal
    t = t > -126.0f ? t : Vec{} - 126.0f;
    // 2^t = 2^n 2^f, n = round(t): adding 1.5 * 2^23 leaves n in the low bits. 2^f: minimax, error 2e-9.
    Vec shifted = t + 12582912.0f;
    Vec f = t - (shifted - 12582912.0f);
    Vec p = 0.0001534581216f * f + 0.001339993118f;
    p = p * f + 0.009618488956f;
    p = p * f + 0.05550328777f;
    p = p * f + 0.2402264689f;
    p = p * f + 0.6931472057f;
    p = p * f + 1.000000001f;
    Vec d = 1.0f + (Vec)((Int)p + ((Int)shifted << 23));
#ifdef __AVX512F__
    Vec r = (Vec)_mm512_maskz_rcp14_ps(0xffff, (__m512)d);  // one step of Newton: 14 bits become 28
    return x * (r + r * (1.0f - d * r));
#else
    return x / d;
#endif
}

// ---- Operands of products ------------------------------------------------------------------------------------

// The operands' number format. A unit is what one multiplication of a lane takes: a float, or two bfloat16 that
// follow each other along k. Producers write the layout that their consumer reads:
//   put_channels   k: channels; `v` are rows `row`, `row+1` of a panel  -> [channels / PACK][NR] units
//   put_tokens     k: tokens;   the same rows                           -> [channels][NR / PACK] units
struct Full {
    using Unit = float;
    static constexpr int PACK = 1;
    static INLINE Vec multiply_add(Vec sum, Unit a, Vec b) { return sum + a * b; }
    static Unit pack(const float* w) { return *w; }
    static INLINE void put_channels(Unit* panel, int64_t row, const Vec (&v)[2][2]) {
        for (int i = 0; i < 4; ++i) store(panel + row * NR + i * W, v[i / 2][i % 2]);
    }
    static INLINE void put_tokens(Unit* panel, int64_t row, const Vec (&v)[2][2]) { put_channels(panel, row, v); }
};

#ifdef __AVX512BF16__
struct Half {
    using Unit = uint32_t;
    static constexpr int PACK = 2;
    static INLINE Vec multiply_add(Vec sum, Unit a, Vec b) {
        return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(int(a)), (__m512bh)b);
    }
    static Unit round(float x) {
        uint32_t bits;
        std::memcpy(&bits, &x, 4);
        return x == x ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fc0;
    }
    static Unit pack(const float* w) { return round(w[0]) | round(w[1]) << 16; }
    static INLINE __m512i rounded(Vec low, Vec high) {
        return (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
    }
    static INLINE void put_channels(Unit* panel, int64_t row, const Vec (&v)[2][2]) {
        typedef uint16_t Shorts __attribute__((vector_size(64)));
        constexpr Shorts pairs = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                  8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
        for (int i = 0; i < 2; ++i)
            write(panel + row / 2 * NR + i * W, _mm512_permutexvar_epi16((__m512i)pairs, rounded(v[0][i], v[1][i])));
    }
    static INLINE void put_tokens(Unit* panel, int64_t row, const Vec (&v)[2][2]) {
        for (int r = 0; r < 2; ++r) write(panel + (row + r) * W, rounded(v[r][0], v[r][1]));
    }
};
#else
using Half = Full;
#endif

// ---- Memory and threads --------------------------------------------------------------------------------------

// Buffers on cache lines, freed together. Throws std::bad_alloc.
class Arena {
   public:
    ~Arena() {
        for (void* block : blocks) ::operator delete(block, LINE);
    }
    template <class T>
    T* take(int64_t count) {
        blocks.reserve(blocks.size() + 1);
        blocks.push_back(::operator new(size_t(count) * sizeof(T), LINE));
        return static_cast<T*>(blocks.back());
    }

   private:
    static constexpr std::align_val_t LINE{64};
    std::vector<void*> blocks;
};

// work(thread, i) for every i in [first, last), in runs of `run` that the threads take as they get free.
template <class Work>
void parallel(int threads, int64_t first, int64_t last, int64_t run, const Work& work) {
    std::atomic<int64_t> next{first};
    auto loop = [&](int thread) {
        for (int64_t start; (start = next.fetch_add(run)) < last;)
            for (int64_t i = start; i < std::min(start + run, last); ++i) work(thread, i);
    };
    // OpenMP, because torch's threads are OpenMP's too: after its own work they wait in a busy loop for a while,
    // and threads of our own would have to fight them for the processors.
#pragma omp parallel num_threads(threads)
    loop(omp_get_thread_num());
}

// ---- The products --------------------------------------------------------------------------------------------

// [outputs, inputs] weights as [outputs / width][inputs / PACK][width] units, padded with zeros.
template <class P>
typename P::Unit* pack(Arena& arena, const float* w, int64_t outputs, int64_t inputs, int64_t stride, int width) {
    int64_t steps = inputs / P::PACK, panels = (outputs + width - 1) / width;
    auto* packed = arena.take<typename P::Unit>(panels * width * steps);
    for (int64_t o = 0; o < panels * width; ++o) {
        auto* column = packed + o / width * steps * width + o % width;
        for (int64_t k = 0; k < steps; ++k)
            column[k * width] = o < outputs ? P::pack(w + o * stride + k * P::PACK) : 0;
    }
    return packed;
}

template <class P>
struct Packed {
    const typename P::Unit* w;
    const float* b;
    int64_t inputs, outputs;

    Packed(Arena& arena, const float* weights, const float* bias, int64_t outputs, int64_t inputs, int64_t stride,
           int width)
        : w(pack<P>(arena, weights, outputs, inputs, stride, width)), inputs(inputs), outputs(outputs) {
        int64_t padded = (outputs + width - 1) / width * width;
        float* copy = arena.take<float>(padded);
        for (int64_t o = 0; o < padded; ++o) copy[o] = bias && o < outputs ? bias[o] : 0;
        b = copy;
    }
};

typedef Vec Tile[MR][2];

// tile += A B over `steps` of k. A's element (r, k) is a[r*RS + k*KS], a row of B is NR units.
template <class P, int RS, int KS, class Unit>
INLINE void accumulate(Tile& tile, const Unit* a, const Unit* b, int64_t steps) {
#pragma GCC unroll 4
    for (int64_t k = 0; k < steps; ++k, a += KS, b += NR) {
        Vec b0 = read<Vec>(b), b1 = read<Vec>(b + W);
#pragma GCC unroll 8
        for (int r = 0; r < MR; ++r) {
            tile[r][0] = P::multiply_add(tile[r][0], a[r * RS], b0);
            tile[r][1] = P::multiply_add(tile[r][1], a[r * RS], b1);
        }
    }
}

// each(row, v) for every two rows of a tile that begins at `row`.
template <class Each>
INLINE void row_pairs(Tile& tile, int64_t row, const Each& each) {
#pragma GCC unroll 8
    for (int r = 0; r < MR; r += 2) {
        Vec v[2][2] = {{tile[r][0], tile[r][1]}, {tile[r + 1][0], tile[r + 1][1]}};
        each(row + r, v);
    }
}

// Dense, panel to panel, for outputs [first, last): each(output, v) with two rows of results.
template <class P, class Each>
INLINE void dense_rows(const Packed<P>& d, const typename P::Unit* panel, int64_t first, int64_t last,
                       const Each& each) {
    const int64_t steps = d.inputs / P::PACK;
    for (int64_t m = first; m < last; m += MR) {
        Tile tile;
        for (int r = 0; r < MR; ++r) tile[r][0] = tile[r][1] = broadcast(d.b[m + r]);
        accumulate<P, 1, MR>(tile, d.w + m * steps, panel, steps);
        row_pairs(tile, m, each);
    }
}

// The mix, for the NR tokens from `token`: each(channel, v) with two rows of results.
template <class P, class Each>
INLINE void mix_rows(const Packed<P>& mix, const typename P::Unit* operand, int64_t channels, int64_t token,
                     const Each& each) {
    constexpr int STEPS = NR / P::PACK;  // of k in a panel of the operand
    for (int64_t m = 0; m < channels; m += MR) {
        Tile tile;
        for (int r = 0; r < MR; ++r)
            for (int i = 0; i < 2; ++i) tile[r][i] = load(mix.b + token + i * W);
        const auto* a = operand + m * STEPS;
        const auto* b = mix.w + token * (mix.inputs / P::PACK);
        for (int64_t k = 0; k < mix.inputs; k += NR, a += channels * STEPS, b += STEPS * NR)
            accumulate<P, STEPS, 1>(tile, a, b, STEPS);
        row_pairs(tile, m, each);
    }
}

// Dense, panel to map: each(token, output, v) with W outputs of a token of the panel.
template <class P, class Each>
INLINE void dense_tokens(const Packed<P>& d, const typename P::Unit* panel, const Each& each) {
    const int64_t steps = d.inputs / P::PACK;
    for (int64_t n = 0; n < d.outputs; n += NR)
        for (int m = 0; m < NR; m += MR) {
            Tile tile;
            for (int r = 0; r < MR; ++r)
                for (int i = 0; i < 2; ++i) tile[r][i] = load(d.b + n + i * W);
            accumulate<P, 1, NR>(tile, panel + m, d.w + n * steps, steps);
#pragma GCC unroll 8
            for (int r = 0; r < MR; ++r) {
                each(m + r, n, tile[r][0]);
                if (n + W < d.outputs) each(m + r, n + W, tile[r][1]);
            }
        }
}

// ---- The other steps, a panel at a time ----------------------------------------------------------------------

// NR tokens at map + offsets[i] into a panel.
template <class T>
void gather(const T* map, const int64_t* offsets, int64_t channels, float* panel) {
    for (int half = 0; half < NR; half += W)
        for (int64_t c = 0; c < channels; c += W) {
            Vec v[W];
#pragma GCC unroll 16
            for (int i = 0; i < W; ++i) v[i] = load(map + offsets[half + i] + c);
            transpose(v);
#pragma GCC unroll 16
            for (int i = 0; i < W; ++i) store(panel + (c + i) * NR + half, v[i]);
        }
}

// LayerNorm over a panel's channels: each(channel, v) with two rows of results.
template <class Each>
INLINE void normalise(const float* panel, int64_t channels, const float* gamma, const float* beta,
                      const Each& each) {
    Vec scale[2], shift[2];
    for (int i = 0; i < 2; ++i) {
        const float* p = panel + i * W;
        Vec s[4] = {};  // four sums at a time, not to wait for the last addition
        for (int64_t c = 0; c < channels; c += 4)
            for (int j = 0; j < 4; ++j) s[j] += load(p + (c + j) * NR);
        Vec mean = ((s[0] + s[1]) + (s[2] + s[3])) / float(channels);
        Vec q[4] = {};
        for (int64_t c = 0; c < channels; c += 4)
            for (int j = 0; j < 4; ++j) {
                Vec d = load(p + (c + j) * NR) - mean;
                q[j] += d * d;
            }
        scale[i] = inverse_sqrt(((q[0] + q[1]) + (q[2] + q[3])) / float(channels) + 1e-6f);
        shift[i] = -mean * scale[i];
    }
    for (int64_t c = 0; c < channels; c += 2) {
        Vec v[2][2];
        for (int r = 0; r < 2; ++r)
            for (int i = 0; i < 2; ++i)
                v[r][i] = (load(panel + (c + r) * NR + i * W) * scale[i] + shift[i]) * gamma[c + r] + beta[c + r];
        each(c, v);
    }
}

INLINE void gelu(Vec (&v)[2][2]) {
    for (int i = 0; i < 4; ++i) v[i / 2][i % 2] = gelu(v[i / 2][i % 2]);
}

// ---- Windows -------------------------------------------------------------------------------------------------

struct Windows {
    int64_t rows, columns, tokens, channels, count;  // rows x columns windows in an image
    std::vector<int64_t> offsets;                    // of a window's tokens, from its first, in floats
    const Sweep& s;

    explicit Windows(const Sweep& s)
        : rows(s.height / s.side), columns(s.width / s.side), tokens(s.side * s.side), channels(s.channels),
          count(s.images * rows * columns), s(s) {
        for (int64_t i = 0; i < s.side; ++i)
            for (int64_t j = 0; j < s.side; ++j)
                offsets.push_back((s.axis == 0 ? i * s.width + j : i * rows * s.width + j * columns) * channels);
    }

    // Offset of window w's first token.
    int64_t origin(int64_t w) const {
        int64_t image = w / (rows * columns), a = w / columns % rows, b = w % columns;
        int64_t step = s.axis == 0 ? s.side : 1;
        return ((image * s.height + a * step) * s.width + b * step) * channels;
    }

    // Ask for the tokens of a panel ahead of their use: on the grid, each lies in a page of its own, where no
    // hardware prefetcher looks.
    template <class T>
    void prefetch(const T* map, int64_t w, int64_t token) const {
        if (w >= s.last || !map) return;
        const T* first = map + origin(w);
        for (int64_t t = token; t < token + NR; ++t)
            for (int64_t c = 0; c < channels; c += int64_t(64 / sizeof(T))) __builtin_prefetch(first + offsets[size_t(t)] + c, 0, 2);
    }

    template <class Work>
    void run(const Work& work) const {
        int64_t share = (s.last - s.first) / (4 * s.threads);
        // Neighbours on the grid share pages: a run of them goes to the same thread.
        parallel(s.threads, s.first, s.last, std::max<int64_t>(1, std::min<int64_t>(8, share)), work);
    }
};

bool valid(const Sweep& s) {
    if (s.images < 0 || s.height < 0 || s.width < 0 || s.channels < 16 || s.channels % 16 || s.side < 1) return false;
    if (s.side * s.side % 32 || s.height % s.side || s.width % s.side || s.threads < 1) return false;
    if (s.axis < 0 || s.axis > 1 || s.precision < 0 || s.precision > 1) return false;
    int64_t windows = s.images * (s.height / s.side) * (s.width / s.side);
    return 0 <= s.first && s.first <= s.last && s.last <= windows;
}

// No exception leaves the library.
template <class Call>
int guarded(const Call& call) {
    try {
        call();
        return OK;
    } catch (...) {
        return NO_MEMORY;
    }
}

// ---- The gated MLP -------------------------------------------------------------------------------------------

template <class P, class Base, class Out>
void mab(const Sweep& s, const MabWeights& weights, const float* x, const Base* base, Out* out) {
    using Unit = typename P::Unit;
    const Windows windows(s);
    const int64_t C = s.channels, T = windows.tokens;
    Arena arena;
    const Packed<P> in(arena, weights.in_w, weights.in_b, C, C, C, MR);
    const Packed<P> gin(arena, weights.gin_w, weights.gin_b, 2 * C, C, C, MR);
    const Packed<P> gout(arena, weights.gout_w, weights.gout_b, C, C, C, MR);
    const Packed<P> last(arena, weights.out_w, weights.out_b, C, C, weights.out_stride, NR);
    std::vector<float> mix_b(weights.mix_b, weights.mix_b + T);
    for (float& b : mix_b) b += 1;  // the gate is mix + 1
    const Packed<P> mix(arena, weights.mix_w, mix_b.data(), T, T, T, NR);

    struct Buffers {
        float *h, *u, *panel;
        Unit *v, *operand, *second;
    };
    std::vector<Buffers> buffers;
    for (int i = 0; i < s.threads; ++i)
        buffers.push_back({arena.take<float>(T * C), arena.take<float>(T * C), arena.take<float>(NR * C),
                           arena.take<Unit>(T * C / P::PACK), arena.take<Unit>(NR * C / P::PACK),
                           arena.take<Unit>(NR * C / P::PACK)});

    windows.run([&](int thread, int64_t w) {
        const Buffers& b = buffers[size_t(thread)];
        const int64_t origin = windows.origin(w);
        for (int64_t t = 0; t < T; t += NR) {
            float *h = b.h + t * C, *u = b.u + t * C;
            Unit* v = b.v + t * C / P::PACK;
            windows.prefetch(out, w, t);
            gather(x + origin, &windows.offsets[size_t(t)], C, b.panel);
            windows.prefetch(x, w + 1, t);
            auto to_operand = [&](int64_t c, Vec(&r)[2][2]) INLINE_LAMBDA { P::put_channels(b.operand, c, r); };
            normalise(b.panel, C, weights.n0_gamma, weights.n0_beta, to_operand);
            dense_rows<P>(in, b.operand, 0, C, [&](int64_t c, Vec(&r)[2][2]) INLINE_LAMBDA {
                gelu(r);
                Full::put_channels(h, c, r);
            });
            normalise(h, C, weights.n1_gamma, weights.n1_beta, to_operand);
            dense_rows<P>(gin, b.operand, 0, C, [&](int64_t c, Vec(&r)[2][2]) INLINE_LAMBDA {
                gelu(r);
                Full::put_channels(u, c, r);
            });
            dense_rows<P>(gin, b.operand, C, 2 * C, [&](int64_t c, Vec(&r)[2][2]) INLINE_LAMBDA {
                gelu(r);
                Full::put_channels(b.panel, c - C, r);
            });
            normalise(b.panel, C, weights.n2_gamma, weights.n2_beta,
                      [&](int64_t c, Vec(&r)[2][2]) INLINE_LAMBDA { P::put_tokens(v, c, r); });
        }
        for (int64_t t = 0; t < T; t += NR) {
            const float *h = b.h + t * C, *u = b.u + t * C;
            mix_rows<P>(mix, b.v, C, t, [&](int64_t c, Vec(&r)[2][2]) INLINE_LAMBDA {
                for (int i = 0; i < 4; ++i) r[i / 2][i % 2] *= load(u + c * NR + i * W);
                P::put_channels(b.operand, c, r);
            });
            dense_rows<P>(gout, b.operand, 0, C, [&](int64_t c, Vec(&r)[2][2]) INLINE_LAMBDA {
                for (int i = 0; i < 4; ++i) r[i / 2][i % 2] += load(h + c * NR + i * W);
                P::put_channels(b.second, c, r);
            });
            const int64_t* offsets = &windows.offsets[size_t(t)];
            dense_tokens<P>(last, b.second, [&](int token, int64_t c, Vec r) INLINE_LAMBDA {
                int64_t at = origin + offsets[token] + c;
                store(out + at, base ? load(x + at) + (load(base + at) + r) : r);
            });
        }
    });
}

// ---- Cross gating --------------------------------------------------------------------------------------------

// One gate's weights, and its steps: `features` for every panel of a window, then `mixed`.
template <class P>
struct Gate {
    using Unit = typename P::Unit;
    const GateWeights& w;
    Packed<P> project, in, mix, out;

    // out_width: MR for a panel of results, NR for results by token.
    Gate(Arena& arena, const GateWeights& w, int64_t C, int64_t T, int out_width)
        : w(w), project(arena, w.p_w, w.p_b, C, C, C, MR), in(arena, w.in_w, w.in_b, C, C, C, MR),
          mix(arena, w.mix_w, w.mix_b, T, T, T, NR), out(arena, w.out_w, w.out_b, C, C, w.out_stride, out_width) {}

    // g = gelu(Dense(LN(tokens))), v = gelu(Dense(LN(g))) as the mix's operand. `g` may be `tokens`.
    void features(const float* tokens, float* g, Unit* operand, Unit* v) const {
        const int64_t C = in.inputs;
        auto to_operand = [&](int64_t c, Vec(&r)[2][2]) INLINE_LAMBDA { P::put_channels(operand, c, r); };
        normalise(tokens, C, w.n0_gamma, w.n0_beta, to_operand);
        dense_rows<P>(project, operand, 0, C, [&](int64_t c, Vec(&r)[2][2]) INLINE_LAMBDA {
            gelu(r);
            Full::put_channels(g, c, r);
        });
        normalise(g, C, w.n1_gamma, w.n1_beta, to_operand);
        dense_rows<P>(in, operand, 0, C, [&](int64_t c, Vec(&r)[2][2]) INLINE_LAMBDA {
            gelu(r);
            P::put_tokens(v, c, r);
        });
    }

    // The mix for the NR tokens from `token`, as `out`'s operand.
    void mixed(const Unit* v, int64_t token, Unit* operand) const {
        mix_rows<P>(mix, v, in.inputs, token,
                    [&](int64_t c, Vec(&r)[2][2]) INLINE_LAMBDA { P::put_channels(operand, c, r); });
    }
};

template <class P, class T>
void gate(const Sweep& s, const GateWeights& weights, const T* x, T* out) {
    using Unit = typename P::Unit;
    const Windows windows(s);
    const int64_t C = s.channels, tokens = windows.tokens;
    Arena arena;
    const Gate<P> g(arena, weights, C, tokens, NR);
    struct Buffers {
        float* panel;
        Unit *v, *operand;
    };
    std::vector<Buffers> buffers;
    for (int i = 0; i < s.threads; ++i)
        buffers.push_back({arena.take<float>(NR * C), arena.take<Unit>(tokens * C / P::PACK),
                           arena.take<Unit>(NR * C / P::PACK)});

    windows.run([&](int thread, int64_t w) {
        const Buffers& b = buffers[size_t(thread)];
        const int64_t origin = windows.origin(w);
        for (int64_t t = 0; t < tokens; t += NR) {
            windows.prefetch(out, w, t);
            gather(x + origin, &windows.offsets[size_t(t)], C, b.panel);
            windows.prefetch(x, w + 1, t);
            g.features(b.panel, b.panel, b.operand, b.v + t * C / P::PACK);
        }
        for (int64_t t = 0; t < tokens; t += NR) {
            const int64_t* offsets = &windows.offsets[size_t(t)];
            g.mixed(b.v, t, b.operand);
            dense_tokens<P>(g.out, b.operand, [&](int token, int64_t c, Vec r) INLINE_LAMBDA {
                int64_t at = origin + offsets[token] + c;
                store(out + at, r);
            });
        }
    });
}

template <class P, class T>
void cross_gate(const Sweep& s, const CrossWeights& weights, T* x, T* y, const T* gx, const T* gy) {
    using Unit = typename P::Unit;
    const Windows windows(s);
    const int64_t C = s.channels, tokens = windows.tokens;
    Arena arena;
    const Gate<P> gate_x(arena, weights.x, C, tokens, MR), gate_y(arena, weights.y, C, tokens, MR);
    const Packed<P> out_x(arena, weights.ox_w, weights.ox_b, C, C, C, NR);
    const Packed<P> out_y(arena, weights.oy_w, weights.oy_b, C, C, C, NR);
    struct Buffers {
        float *a, *b, *panel;
        Unit *vx, *vy, *operand, *second;
    };
    std::vector<Buffers> buffers;
    for (int i = 0; i < s.threads; ++i)
        buffers.push_back({arena.take<float>(tokens * C), arena.take<float>(tokens * C), arena.take<float>(NR * C),
                           arena.take<Unit>(tokens * C / P::PACK), arena.take<Unit>(tokens * C / P::PACK),
                           arena.take<Unit>(NR * C / P::PACK), arena.take<Unit>(NR * C / P::PACK)});

    windows.run([&](int thread, int64_t w) {
        const Buffers& b = buffers[size_t(thread)];
        const int64_t origin = windows.origin(w);
        for (int64_t t = 0; t < tokens; t += NR) {
            const int64_t* offsets = &windows.offsets[size_t(t)];
            gather(x + origin, offsets, C, b.panel);
            gate_x.features(b.panel, b.a + t * C, b.operand, b.vx + t * C / P::PACK);
            gather(y + origin, offsets, C, b.panel);
            gate_y.features(b.panel, b.b + t * C, b.operand, b.vy + t * C / P::PACK);
            windows.prefetch(gx, w, t);
            windows.prefetch(gy, w, t);
        }
        // second = other * (map + Dense(mix)): what a gate leaves of the other branch's features.
        auto gated = [&](const Gate<P>& gate, const Unit* v, const T* map, const float* other, int64_t t) {
            gate.mixed(v, t, b.operand);
            gather(map + origin, &windows.offsets[size_t(t)], C, b.panel);
            dense_rows<P>(gate.out, b.operand, 0, C, [&](int64_t c, Vec(&r)[2][2]) INLINE_LAMBDA {
                for (int i = 0; i < 4; ++i) {
                    int64_t at = c * NR + i * W;
                    r[i / 2][i % 2] = (r[i / 2][i % 2] + load(b.panel + at)) * load(other + t * C + at);
                }
                P::put_channels(b.second, c, r);
            });
        };
        for (int64_t t = 0; t < tokens; t += NR) {
            const int64_t* offsets = &windows.offsets[size_t(t)];
            gated(gate_x, b.vx, gx, b.b, t);
            dense_tokens<P>(out_y, b.second, [&](int token, int64_t c, Vec r) INLINE_LAMBDA {
                T* at = y + origin + offsets[token] + c;
                store(at, load(at) + r);
            });
            gated(gate_y, b.vy, gy, b.a, t);
            dense_tokens<P>(out_x, b.second, [&](int token, int64_t c, Vec r) INLINE_LAMBDA {
                int64_t at = origin + offsets[token] + c;
                store(x + at, load(x + at) + load(y + at) + r);
            });
            windows.prefetch(x, w + 1, t);
            windows.prefetch(y, w + 1, t);
        }
    });
}

// ---- Rows ----------------------------------------------------------------------------------------------------

// The sums of W vectors, one per lane.
INLINE Vec sums(Vec (&v)[W]) {
    transpose(v);
#pragma GCC unroll 4
    for (int n = W / 2; n > 0; n /= 2)
#pragma GCC unroll 16
        for (int i = 0; i < n; ++i) v[i] += v[i + n];
    return v[0];
}

template <class T>
void norm_rows(const float* x, T* out, const float* gamma, const float* beta, int64_t rows, int64_t C) {
    const float* row[W];  // rows are taken by W; those that are missing repeat the last
    for (int i = 0; i < W; ++i) row[i] = x + std::min<int64_t>(i, rows - 1) * C;
    Vec v[W];
    float mean[W], scale[W];
    for (int i = 0; i < W; ++i) {
        v[i] = Vec{};
        for (int64_t c = 0; c < C; c += W) v[i] += load(row[i] + c);
    }
    write(mean, sums(v) / float(C));
    for (int i = 0; i < W; ++i) {
        v[i] = Vec{};
        for (int64_t c = 0; c < C; c += W) {
            Vec d = load(row[i] + c) - mean[i];
            v[i] += d * d;
        }
    }
    write(scale, inverse_sqrt(sums(v) / float(C) + 1e-6f));
    for (int64_t i = 0; i < std::min<int64_t>(W, rows); ++i)
        for (int64_t c = 0; c < C; c += W)
            store(out + i * C + c, (load(row[i] + c) - mean[i]) * scale[i] * load(gamma + c) + load(beta + c));
}

}  // namespace

// ---- Exported ------------------------------------------------------------------------------------------------

// Whether this processor has the instructions that this build is made of.
EXPORT int supported(void) {
#if defined(__AVX512BF16__)
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw");
#elif defined(__AVX512F__)
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
#elif defined(__AVX2__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 1;
#endif
}

// Whether precision 1 differs from precision 0 in this build.
EXPORT int native_bf16(void) { return Half::PACK == 2; }

// F: the gated MLP of one axis, from the projection in to the one out. Two calls make the block: first
// out = F(x), `out` a feature map and `base` NULL; then, on the other axis, out = x + base + F(x), `base` that
// feature map, and `out` float32: x itself, base itself if that is float32, or another.
EXPORT int mab_sweep(const Sweep* s, const MabWeights* weights, const float* x, const void* base, void* out) {
    if (!valid(*s)) return BAD_ARGUMENT;
    return guarded([&] {
        auto* to = static_cast<float*>(out);
        if (!s->features_bf16) {
            (s->precision ? mab<Half, float, float> : mab<Full, float, float>)(*s, *weights, x,
                                                                               static_cast<const float*>(base), to);
            return;
        }
        auto* from = static_cast<const uint16_t*>(base);
        if (base)
            (s->precision ? mab<Half, uint16_t, float> : mab<Full, uint16_t, float>)(*s, *weights, x, from, to);
        else
            (s->precision ? mab<Half, uint16_t, uint16_t> : mab<Full, uint16_t, uint16_t>)(
                *s, *weights, x, from, static_cast<uint16_t*>(out));
    });
}

// out = G(x): one axis' half of a cross gating's gate. Both are feature maps.
EXPORT int gate_sweep(const Sweep* s, const GateWeights* weights, const void* x, void* out) {
    if (!valid(*s)) return BAD_ARGUMENT;
    return guarded([&] {
        if (s->features_bf16)
            (s->precision ? gate<Half, uint16_t> : gate<Full, uint16_t>)(
                *s, *weights, static_cast<const uint16_t*>(x), static_cast<uint16_t*>(out));
        else
            (s->precision ? gate<Half, float> : gate<Full, float>)(*s, *weights, static_cast<const float*>(x),
                                                                  static_cast<float*>(out));
    });
}

// Cross gating in place, given the other axis' halves of both gates. All are feature maps.
EXPORT int cross_gate_sweep(const Sweep* s, const CrossWeights* weights, void* x, void* y, const void* gx,
                            const void* gy) {
    if (!valid(*s)) return BAD_ARGUMENT;
    return guarded([&] {
        if (s->features_bf16)
            (s->precision ? cross_gate<Half, uint16_t> : cross_gate<Full, uint16_t>)(
                *s, *weights, static_cast<uint16_t*>(x), static_cast<uint16_t*>(y),
                static_cast<const uint16_t*>(gx), static_cast<const uint16_t*>(gy));
        else
            (s->precision ? cross_gate<Half, float> : cross_gate<Full, float>)(
                *s, *weights, static_cast<float*>(x), static_cast<float*>(y), static_cast<const float*>(gx),
                static_cast<const float*>(gy));
    });
}

// LayerNorm of contiguous rows; out: float32 or bfloat16.
EXPORT int layer_norm(const float* x, void* out, const float* gamma, const float* beta, int64_t rows,
                      int64_t channels, int32_t out_is_bf16, int32_t threads) {
    if (channels < 16 || channels % 16 || rows < 0 || threads < 1) return BAD_ARGUMENT;
    return guarded([&] {
        parallel(threads, 0, (rows + W - 1) / W, 64, [&](int, int64_t i) {
            int64_t at = i * W * channels, count = rows - i * W;
            if (out_is_bf16)
                norm_rows(x + at, static_cast<uint16_t*>(out) + at, gamma, beta, count, channels);
            else
                norm_rows(x + at, static_cast<float*>(out) + at, gamma, beta, count, channels);
        });
    });
}
