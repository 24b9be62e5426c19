// Buffers and threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>
#include <vector>

#include "tiles.h"

namespace {

// Buffers on cache lines, freed together. Throws std::bad_alloc.
class Arena {
   public:
    Arena() = default;
    Arena(const Arena&) = delete;
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

// Entry points of the OpenMP runtime that torch has loaded. Its threads wait for more work in a busy loop, and
// threads of our own or of another OpenMP runtime would have to fight them for the processors. So none is linked:
// kernels.py passes these.
struct OpenMP {
#ifdef _WIN32  // Intel's, and LLVM's
    int32_t (*global_thread_num)(const void* location);
    void (*push_num_threads)(const void* location, int32_t thread, int32_t threads);
    void (*fork_call)(const void* location, int32_t arguments,
                      void (*member)(int32_t*, int32_t*, void (*)(void*), void*), ...);
#else  // GCC's; LLVM's and Intel's have it too
    void (*parallel)(void (*body)(void*), void* data, unsigned threads, unsigned flags);
#endif
} openmp;

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
        [[maybe_unused]] Tiles::Session session;
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

}  // namespace
