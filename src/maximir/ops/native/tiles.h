// Tiles: AMX's registers of 16 rows of 64 bytes, and the operations that the kernels need. A tile is
//   a left operand   16 rows x 32 bfloat16: columns are k
//   a right operand  16 rows x 16 pairs:    rows are pairs along k, columns are the sum's
//   a sum            16 rows x 16 float32
//
// Two implementations with the same results, to the last bit (NaN's payload aside; tests/ops compares them):
//   Hardware  the instructions, for x86-64 with amx_tile and amx_bf16, on Linux
//   Portable  plain C++, slow: it shows on any processor what the first computes. -DPORTABLE_TILES chooses it.
//
// A thread makes a `Tiles::Session` before its first tile, and keeps it as long as it uses tiles. They do not nest,
// and nothing else that uses AMX (torch's products) may run in that thread in between: it has its own configuration.

#pragma once

#include <cfloat>

#include "vectors.h"

#if defined(__AMX_BF16__) && defined(__x86_64__) && defined(__linux__)
#define HAVE_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(HAVE_AMX) || defined(PORTABLE_TILES)
#define HAVE_TILES
#endif

namespace {

constexpr int TILE_ROWS = 16, TILE_BYTES = 64;
constexpr int TILE_K = 32, TILE_COLUMNS = 16;  // depth of a product, columns of a sum

struct Portable {
    static bool available() { return true; }
    struct Session {};

    template <int T>
    static void zero() {
        std::memset(registers[T], 0, sizeof registers[T]);
    }
    template <int T>
    static void load(const void* from, int64_t stride) {  // between rows, in bytes; 0 repeats a row
        for (int r = 0; r < TILE_ROWS; ++r)
            std::memcpy(registers[T][r], static_cast<const char*>(from) + r * stride, TILE_BYTES);
    }
    template <int T>
    static void store(void* to, int64_t stride) {
        for (int r = 0; r < TILE_ROWS; ++r)
            std::memcpy(static_cast<char*>(to) + r * stride, registers[T][r], TILE_BYTES);
    }

    // sum += left * right, as tdpbf16ps: each element has one sum for the even k and one for the odd, which begin
    // with 0 and take one fused multiply-add per k; then (even + odd) is added to what was there. Subnormal
    // operands and results are zeros, rounding is to nearest even; MXCSR has no influence.
    template <int Sum, int Left, int Right>
    static void dot() {
        for (int m = 0; m < TILE_ROWS; ++m) {
            float even[TILE_COLUMNS] = {}, odd[TILE_COLUMNS] = {};
            for (int k = 0; k < TILE_ROWS; ++k) {
                const uint32_t a = registers[Left][m][k], *b = registers[Right][k];
                for (int n = 0; n < TILE_COLUMNS; ++n) even[n] = multiply_add(low(a), low(b[n]), even[n]);
                for (int n = 0; n < TILE_COLUMNS; ++n) odd[n] = multiply_add(high(a), high(b[n]), odd[n]);
            }
            for (int n = 0; n < TILE_COLUMNS; ++n) {
                const float old = flush(as_float(registers[Sum][m][n])), product = flush(even[n] + odd[n]);
                registers[Sum][m][n] = as_bits(flush(old + product));
            }
        }
    }

   private:
    static inline thread_local uint32_t registers[8][TILE_ROWS][TILE_BYTES / 4];

    static float as_float(uint32_t bits) {
        float x;
        std::memcpy(&x, &bits, sizeof x);
        return x;
    }
    static uint32_t as_bits(float x) {
        uint32_t bits;
        std::memcpy(&bits, &x, sizeof bits);
        return bits;
    }
    static float flush(float x) { return std::fabs(x) < FLT_MIN ? std::copysign(0.0f, x) : x; }
    static float low(uint32_t pair) { return flush(as_float(pair << 16)); }
    static float high(uint32_t pair) { return flush(as_float(pair & 0xffff0000)); }

    static float multiply_add(float a, float b, float c) {
        const float r = std::fma(a, b, c);
        // Whether a result is subnormal is decided as if exponents had no end: just below FLT_MIN it would have
        // one bit more, and not round up to FLT_MIN.
        const float far = std::fma(a * 0x1p64f, b, c * 0x1p64f);
        return std::fabs(r) == FLT_MIN && std::fabs(far) < FLT_MIN * 0x1p64f ? std::copysign(0.0f, r) : flush(r);
    }
};

#ifdef HAVE_AMX
// Own assembly instead of <immintrin.h>, whose macros paste the register's name (so a template's parameter can't
// be one), and do not tell gcc 12 which memory they read: it may move or drop the writes before them.
struct Hardware {
    // Ask Linux for the 8 KiB of state, once for the process: its threads have it from then on, also those that run
    // already. False on a kernel without AMX; kernels.cpp asks the processor first.
    static bool available() {
        constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
        static const bool granted = syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
        return granted;
    }

    class Session {
       public:
        Session() {
            alignas(64) Configuration all;
            asm volatile("ldtilecfg %0" ::"m"(all));  // "m" of the whole structure: 64 bytes are read
        }
        ~Session() { asm volatile("tilerelease"); }  // or the system saves 8 KiB at each switch of threads
        Session(const Session&) = delete;
        Session& operator=(const Session&) = delete;

       private:
        struct Configuration {
            uint8_t palette = 1, start_row = 0, reserved[14] = {};
            uint16_t bytes[16] = {TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES,
                                  TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES};
            uint8_t rows[16] = {TILE_ROWS, TILE_ROWS, TILE_ROWS, TILE_ROWS,
                                TILE_ROWS, TILE_ROWS, TILE_ROWS, TILE_ROWS};
        };
        static_assert(sizeof(Configuration) == 64);
    };

    template <int T>
    static void zero() {
        asm volatile("tilezero %%tmm%c0" ::"i"(T));
    }
    template <int T>
    static void load(const void* from, int64_t stride) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T) : "memory");
    }
    template <int T>
    static void store(void* to, int64_t stride) {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(T) : "memory");
    }
    template <int Sum, int Left, int Right>
    static void dot() {
        asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(Left), "i"(Right));
    }
};
#endif

#if defined(PORTABLE_TILES)
using Tiles = Portable;
#elif defined(HAVE_AMX)
using Tiles = Hardware;
#else
struct Tiles {  // none
    struct Session {};
};
#endif

}  // namespace
