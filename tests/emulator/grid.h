// The grid of threads that runs kernels compiled for the host: threads of a block are fibers of one thread of the system.
#pragma once

#include <pthread.h>
#include <setjmp.h>
#include <stdint.h>
#include <ucontext.h>

#include <memory>
#include <vector>

#if defined(__x86_64__)
// Keeps what a called function must keep on the stack of the fiber that is left, and takes it from that of the other: a pair of jumps does more, and
// `swapcontext` asks the system each time.
asm(R"(
.pushsection .text
.type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulator_switch, .-emulator_switch
.popsection
)");
extern "C" __attribute__((visibility("hidden"))) void emulator_switch(void** from, void* to);
#endif

namespace {

[[noreturn]] void broken(const char* what);
bool reversed();

struct Index {
    unsigned x, y, z;
};

struct Kernels;

struct Kernel {
    const Kernels* kernels;
    void (*launch)(void**);
    // Number of parameters, then the bytes of each.
    const int* sizes;
    // Of a block, by the kernel's launch bounds.
    unsigned most_threads;
};

// A module.
struct Kernels {
    void* library;
    Index *thread, *block;
    void (**barrier)();
    pthread_mutex_t* lock;
    void (**warp_barrier)();
    int* late_copies;
    // Functions that were asked for; they go with the module.
    std::vector<std::unique_ptr<Kernel>> functions;
};

struct Work {
    Kernel kernel;
    Index grid;
    unsigned threads;
    std::vector<std::vector<unsigned char>> values;
};

constexpr size_t STACK = 64 << 10;
constexpr unsigned MOST_THREADS = 1024, WARP = 32;

enum class At { START, WARP_BARRIER, BARRIER, END };

// Where a fiber, or the scheduler, goes on.
struct Place {
#if defined(__x86_64__)
    void* stack = nullptr;
#else
    jmp_buf registers;
#endif
};

// The fibers of one operating-system thread, which wait for the next block when they are done with one.
struct Team {
    struct Fiber {
        std::unique_ptr<char[]> stack{new char[STACK]};
        Place place;
#if !defined(__x86_64__)
        ucontext_t start;
#endif
        bool begun = false;
        At at = At::END;
    };
    std::vector<Fiber> fibers{MOST_THREADS};
    Place scheduler;
    unsigned current = 0;
    void (*launch)(void**) = nullptr;
    void** parameters = nullptr;
};

struct Teams {
    Team* own = nullptr;
    ~Teams() { delete own; }
};
thread_local Teams teams;
// The same without a destructor: it is looked at in every switch.
thread_local Team* team = nullptr;

void go(Place& from, Place& to) {
#if defined(__x86_64__)
    emulator_switch(&from.stack, to.stack);
#else
    if (!_setjmp(from.registers)) _longjmp(to.registers, 1);
#endif
}

void stop(At at) {
    Team& mine = *team;
    Team::Fiber& own = mine.fibers[mine.current];
    own.at = at;
    go(own.place, mine.scheduler);
}

void fiber() {
    for (;;) {
        team->launch(team->parameters);
        stop(At::END);
    }
}

void begin(Place& from, Team::Fiber& fiber_) {
    fiber_.begun = true;
#if defined(__x86_64__)
    // As if `fiber` had been called from nowhere, and had called the switch: six registers, where to return, and nowhere.
    auto* top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(fiber_.stack.get() + STACK) & ~uintptr_t(15));
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(&fiber);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    fiber_.place.stack = top;
    go(from, fiber_.place);
#else
    if (_setjmp(from.registers)) return;
    getcontext(&fiber_.start);
    fiber_.start.uc_stack.ss_sp = fiber_.stack.get();
    fiber_.start.uc_stack.ss_size = STACK;
    fiber_.start.uc_link = nullptr;
    makecontext(&fiber_.start, fiber, 0);
    setcontext(&fiber_.start);
#endif
}

void barrier() { stop(At::BARRIER); }

void warp_barrier() { stop(At::WARP_BARRIER); }

// Runs a thread until it stops.
void resume(Team& mine, const Kernels& kernels, unsigned thread) {
    Team::Fiber& fiber_ = mine.fibers[thread];
    mine.current = thread;
    *kernels.thread = {thread, 0, 0};
    if (fiber_.begun) {
        go(mine.scheduler, fiber_.place);
    } else {
        begin(mine.scheduler, fiber_);
    }
}

// Runs the lanes from `begin` to `end` until all of them wait for the block, or have ended; which of both it is.
At run_warp(Team& mine, const Kernels& kernels, unsigned begin, unsigned end) {
    const bool backwards = reversed();
    for (;;) {
        for (unsigned i = begin; i < end; i++) resume(mine, kernels, backwards ? begin + end - 1 - i : i);
        const At at = mine.fibers[begin].at;
        for (unsigned i = begin; i < end; i++) {
            if (mine.fibers[i].at == at) continue;
            if (at == At::WARP_BARRIER || mine.fibers[i].at == At::WARP_BARRIER) broken("some lanes of a warp do not do what the others do together");
            broken("some threads of a block ended while others wait at a barrier");
        }
        if (at != At::WARP_BARRIER) return at;
    }
}

void run_block(Team& mine, const Kernels& kernels, unsigned threads) {
    for (unsigned t = 0; t < threads; t++) mine.fibers[t].at = At::START;
    const unsigned warps = (threads + WARP - 1) / WARP;
    for (bool running = true; running;) {
        unsigned waiting = 0;
        for (unsigned i = 0; i < warps; i++) {
            const unsigned warp = reversed() ? warps - 1 - i : i, begin = warp * WARP;
            const unsigned end = begin + WARP < threads ? begin + WARP : threads;
            if (run_warp(mine, kernels, begin, end) == At::BARRIER) waiting++;
        }
        if (waiting != 0 && waiting != warps) broken("some threads of a block ended while others wait at a barrier");
        running = waiting != 0;
    }
}

void run(const Work& work) {
    if (!team) team = teams.own = new Team;
    std::vector<void*> parameters;
    for (const auto& value : work.values) parameters.push_back(const_cast<unsigned char*>(value.data()));
    const Kernels& kernels = *work.kernel.kernels;
    pthread_mutex_lock(kernels.lock);
    *kernels.barrier = barrier;
    *kernels.warp_barrier = warp_barrier;
    *kernels.late_copies = reversed();
    team->launch = work.kernel.launch;
    team->parameters = parameters.data();
    const uint64_t blocks = uint64_t(work.grid.x) * work.grid.y * work.grid.z;
    for (uint64_t i = 0; i < blocks; i++) {
        const uint64_t b = reversed() ? blocks - 1 - i : i;
        const unsigned x = b % work.grid.x, y = b / work.grid.x % work.grid.y, z = b / work.grid.x / work.grid.y;
        *kernels.block = {x, y, z};
        run_block(*team, kernels, work.threads);
    }
    pthread_mutex_unlock(kernels.lock);
}

}  // namespace
