// A driver and an NVRTC for machines without a GPU: the functions that the program calls, with kernels compiled by the host's C++ compiler
// and run by a grid emulator. It checks what hardware would not tell: memory is poisoned until it is written, every allocation has guards
// around it, a barrier that some threads of a block or a warp pass by ends the process, and threads may run in reverse, which a missing
// barrier shows; then asynchronous copies within a kernel arrive as late as they may, and else as early as they may. A copy from pinned memory
// is made as late as the order of streams and events allows, so that what reads too early, or is written too early, shows; and work of two
// streams on one allocation that nothing orders is refused with RACE, whatever became of it here.
//
// The lanes of a warp run until all of them wait for the block, before another warp gets its turn: a barrier of a warp is none of the block.
//
// Faults come from the file LIBRARY.faults beside the library, lines of `key=value`, so that each copy of the library has its own:
//   init, version, devices, capability   what cuInit returns, and what there is
//   memory_bytes                         the device's memory
//   lose_after                           launches after which every call returns 700
//   synchronize                          what cuStreamSynchronize returns
//   nvrtc                                version of NVRTC, as that of the driver: 13000 is 13.0
//   compile                              1: nothing compiles
//   order                                reverse: threads and blocks run from the last to the first
//   forget                               wait: cuStreamWaitEvent does nothing; synchronize: cuEventSynchronize does nothing
//
// Built with -DKERNEL_H="PATH"; compiled kernels are kept in LIBRARY's folder.

#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

constexpr int SUCCESS = 0, INVALID = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, NO_IMAGE = 200, LOST = 700, RACE = 31336;

std::mutex lock;

std::string own_path() {
    Dl_info info;
    dladdr(reinterpret_cast<void*>(&own_path), &info);
    return info.dli_fname;
}

const std::map<std::string, std::string>& faults() {
    static const std::map<std::string, std::string> read = [] {
        std::map<std::string, std::string> faults;
        std::ifstream file(own_path() + ".faults");
        for (std::string line; std::getline(file, line);) {
            const auto at = line.find('=');
            if (at != std::string::npos) faults[line.substr(0, at)] = line.substr(at + 1);
        }
        return faults;
    }();
    return read;
}

long long fault(const char* key, long long usual) {
    const auto found = faults().find(key);
    return found == faults().end() ? usual : atoll(found->second.c_str());
}

bool told(const char* key, const char* value) {
    const auto found = faults().find(key);
    return found != faults().end() && found->second == value;
}

bool reversed() {
    static const bool asked = told("order", "reverse");
    return asked;
}

[[noreturn]] void broken(const char* what) {
    fprintf(stderr, "emulator: %s\n", what);
    abort();
}

// ---- Memory

constexpr size_t GUARD = 256;
constexpr unsigned char POISON = 0xff;  // As floats: NaN.

// By a stream's number: how many of its operations are known to be over.
using Clock = std::map<int, long long>;

void join(Clock& clock, const Clock& other) {
    for (const auto& [stream, number] : other) clock[stream] = std::max(clock[stream], number);
}

struct Allocation {
    size_t bytes;
    // The last operation of each stream that used it, and that copied into it.
    Clock used, copied;
};

std::map<uint64_t, Allocation> allocations;
// Memory of the host that is copied from late, with the last copies of it.
struct Pinned {
    size_t bytes;
    Clock copied;
};
std::map<uint64_t, Pinned> pinned;
size_t used_bytes = 0;
long long launches = 0;

size_t memory_bytes() { return static_cast<size_t>(fault("memory_bytes", 8ll << 30)); }

bool lost() {
    const long long after = fault("lose_after", -1);
    return after >= 0 && launches > after;
}

void check_guards() {
    for (const auto& [address, allocation] : allocations) {
        const size_t bytes = allocation.bytes;
        const auto* base = reinterpret_cast<const unsigned char*>(address);
        for (size_t i = 1; i <= GUARD; i++) {
            if (base[-static_cast<ptrdiff_t>(i)] != 0xa5 || base[bytes + i - 1] != 0xa5) broken("a kernel wrote beyond an allocation");
        }
    }
}

Allocation* around(uint64_t address, size_t bytes) {
    auto after = allocations.upper_bound(address);
    if (after == allocations.begin()) return nullptr;
    --after;
    return address + bytes <= after->first + after->second.bytes ? &after->second : nullptr;
}

Pinned* pinned_around(const void* from, size_t bytes) {
    const auto address = reinterpret_cast<uint64_t>(from);
    auto after = pinned.upper_bound(address);
    if (after == pinned.begin()) return nullptr;
    --after;
    return address + bytes <= after->first + after->second.bytes ? &after->second : nullptr;
}

// ---- The grid

struct Index {
    unsigned x, y, z;
};

struct Kernels;

struct Kernel {
    const Kernels* kernels;
    void (*launch)(void**);
    // Number of parameters, then the bytes of each.
    const int* sizes;
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

// The fibers of one operating-system thread, which wait for the next block when they are done with one.
struct Team {
    struct Fiber {
        std::unique_ptr<char[]> stack{new char[STACK]};
        ucontext_t start;
        jmp_buf resume;
        bool begun = false;
        At at = At::END;
    };
    std::vector<Fiber> fibers{MOST_THREADS};
    jmp_buf back;
    unsigned current = 0;
    void (*launch)(void**) = nullptr;
    void** parameters = nullptr;
};

thread_local std::unique_ptr<Team> team;

void stop(At at) {
    team->fibers[team->current].at = at;
    if (!_setjmp(team->fibers[team->current].resume)) _longjmp(team->back, 1);
}

void fiber() {
    for (;;) {
        team->launch(team->parameters);
        stop(At::END);
    }
}

void barrier() { stop(At::BARRIER); }

void warp_barrier() { stop(At::WARP_BARRIER); }

// Runs a thread until it stops. Returns to its caller by a longjmp of the fiber, so nothing that changes lives here.
void resume(const Kernels& kernels, unsigned thread) {
    Team::Fiber& fiber_ = team->fibers[thread];
    team->current = thread;
    *kernels.thread = {thread, 0, 0};
    if (_setjmp(team->back)) return;
    if (fiber_.begun) _longjmp(fiber_.resume, 1);
    fiber_.begun = true;
    getcontext(&fiber_.start);
    fiber_.start.uc_stack.ss_sp = fiber_.stack.get();
    fiber_.start.uc_stack.ss_size = STACK;
    fiber_.start.uc_link = nullptr;
    makecontext(&fiber_.start, fiber, 0);
    setcontext(&fiber_.start);
}

// Runs the lanes from `begin` to `end` until all of them wait for the block, or have ended; which of both it is.
At run_warp(const Kernels& kernels, unsigned begin, unsigned end) {
    for (;;) {
        for (unsigned i = begin; i < end; i++) resume(kernels, reversed() ? begin + end - 1 - i : i);
        const At at = team->fibers[begin].at;
        for (unsigned i = begin; i < end; i++) {
            if (team->fibers[i].at == at) continue;
            if (at == At::WARP_BARRIER || team->fibers[i].at == At::WARP_BARRIER) broken("some lanes of a warp do not do what the others do together");
            broken("some threads of a block ended while others wait at a barrier");
        }
        if (at != At::WARP_BARRIER) return at;
    }
}

void run_block(const Kernels& kernels, unsigned threads) {
    for (unsigned t = 0; t < threads; t++) team->fibers[t].at = At::START;
    const unsigned warps = (threads + WARP - 1) / WARP;
    for (bool running = true; running;) {
        unsigned waiting = 0;
        for (unsigned i = 0; i < warps; i++) {
            const unsigned warp = reversed() ? warps - 1 - i : i, begin = warp * WARP;
            const unsigned end = begin + WARP < threads ? begin + WARP : threads;
            if (run_warp(kernels, begin, end) == At::BARRIER) waiting++;
        }
        if (waiting != 0 && waiting != warps) broken("some threads of a block ended while others wait at a barrier");
        running = waiting != 0;
    }
}

void run(const Work& work) {
    if (!team) team = std::make_unique<Team>();
    if (work.threads > MOST_THREADS) broken("too many threads in a block");
    if (work.grid.y > 65535 || work.grid.z > 65535) broken("a grid is too large");
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
        run_block(kernels, work.threads);
    }
    pthread_mutex_unlock(kernels.lock);
    check_guards();
}

// ---- Streams and recordings

using Graph = std::vector<Work>;

// A copy from pinned memory that need not have been made yet.
struct Copy {
    uint64_t to;
    const unsigned char* from;
    std::vector<unsigned char> expected;
    long long number;
};

struct Stream {
    std::unique_ptr<Graph> recording;
    int id = 0;
    // Operations that were queued.
    long long queued = 0;
    // What is over before whatever is queued next.
    Clock before;
    std::vector<Copy> late;
};

struct Event {
    Stream* stream = nullptr;
    long long number = 0;
    Clock before;
};

std::set<Stream*> streams;
// What the host has waited for.
Clock host;
// Whether memory was written while a copy of it was on its way; told at the next wait.
bool overwritten = false;

void queue(Stream& stream) {
    join(stream.before, host);
    stream.before[stream.id] = ++stream.queued;
}

// Makes the copies of a stream up to this operation.
void settle(Stream& stream, long long number) {
    size_t made = 0;
    for (; made < stream.late.size() && stream.late[made].number <= number; made++) {
        const Copy& copy = stream.late[made];
        if (memcmp(copy.from, copy.expected.data(), copy.expected.size()) != 0) overwritten = true;
        if (around(copy.to, copy.expected.size())) memcpy(reinterpret_cast<void*>(copy.to), copy.from, copy.expected.size());
    }
    stream.late.erase(stream.late.begin(), stream.late.begin() + static_cast<ptrdiff_t>(made));
}

bool is_over(const Clock& operations, const Clock& before) {
    for (const auto& [stream, number] : operations) {
        const auto found = before.find(stream);
        if (found == before.end() || found->second < number) return false;
    }
    return true;
}

// Whether a kernel may run now: nothing that it is given is still being copied.
bool is_ordered(const Work& work, const Stream& stream) {
    for (const auto& value : work.values) {
        if (value.size() != sizeof(uint64_t)) continue;
        uint64_t address;
        memcpy(&address, value.data(), sizeof address);
        Allocation* given = around(address, 1);
        if (!given) continue;
        if (!is_over(given->copied, stream.before)) return false;
        given->used[stream.id] = stream.queued;
    }
    return true;
}

// ---- NVRTC

struct Source {
    std::string text, log, image;
};

std::string shell(const std::string& text) {
    std::string quoted = "'";
    for (char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return quoted + "'";
}

// Names of the kernels of a source.
std::vector<std::string> kernels_of(const std::string& text) {
    std::vector<std::string> names;
    const std::string mark = "extern \"C\" __global__";
    for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) {
        const size_t bounds = text.find(')', at), open = text.find('(', bounds + 1);
        size_t begin = open;
        while (begin > 0 && (isalnum(text[begin - 1]) || text[begin - 1] == '_')) begin--;
        names.push_back(text.substr(begin, open - begin));
    }
    return names;
}

int compile(Source& source) {
    if (fault("compile", 0)) {
        source.log = "step.cu(7): error: expected a \";\"";
        return 6;
    }
    std::ifstream header_file(KERNEL_H);
    std::stringstream header;
    header << header_file.rdbuf();
    // Shared memory of templates would else be one for all libraries of the process that have the same instance.
    const std::string own_only = "\n#pragma GCC visibility push(hidden)\n", rest = "\n#pragma GCC visibility pop\n";
    std::string text = header.str() + own_only + "#line 1 \"step.cu\"\n" + source.text + rest;
    for (const auto& name : kernels_of(source.text)) {
        text += "extern \"C\" void launch_" + name + "(void** parameters) { emulator_invoke(" + name + ", parameters); }\n";
        text += "extern \"C\" const int* sizes_" + name + "() { return emulator_sizes(" + name + "); }\n";
    }
    const std::string own = own_path(), folder = own.substr(0, own.rfind('/'));
    char name[64];
    snprintf(name, sizeof name, "/kernels-%016zx", std::hash<std::string>{}(text));
    const std::string base = folder + name, library = base + ".so";
    if (access(library.c_str(), R_OK) != 0) {
        const std::string mine = base + "-" + std::to_string(getpid()) + "-" + std::to_string(reinterpret_cast<uintptr_t>(&source));
        std::ofstream(mine + ".cpp") << text;
        const char* chosen = getenv("CXX");
        const std::string compiler = chosen && *chosen ? chosen : "c++";
        const std::string command = compiler + " -std=c++17 -O1 -w -fPIC -shared -fno-strict-aliasing -o " + shell(mine + ".so") + " " +
                                    shell(mine + ".cpp") + " 2> " + shell(mine + ".log");
        const bool failed = system(command.c_str()) != 0;
        std::ifstream log(mine + ".log");
        std::stringstream told;
        told << log.rdbuf();
        source.log = told.str();
        unlink((mine + ".cpp").c_str());
        unlink((mine + ".log").c_str());
        if (failed) return 6;
        rename((mine + ".so").c_str(), library.c_str());
    }
    source.image = library;
    return SUCCESS;
}

}  // namespace

#define API extern "C" __attribute__((visibility("default")))

API int cuInit(unsigned) { return static_cast<int>(fault("init", SUCCESS)); }
API int cuDriverGetVersion(int* version) {
    *version = static_cast<int>(fault("version", 13000));
    return SUCCESS;
}
API int cuGetErrorName(int status, const char** text) {
    *text = status == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
            : status == NO_DEVICE   ? "CUDA_ERROR_NO_DEVICE"
            : status == NO_IMAGE    ? "CUDA_ERROR_INVALID_IMAGE"
            : status == LOST        ? "CUDA_ERROR_ILLEGAL_ADDRESS"
            : status == INVALID     ? "CUDA_ERROR_INVALID_VALUE"
            : status == RACE        ? "EMULATOR_RACE"
                                    : nullptr;
    return *text ? SUCCESS : INVALID;
}
API int cuGetErrorString(int status, const char** text) {
    const char* name;
    if (cuGetErrorName(status, &name) != SUCCESS) return INVALID;
    *text = status == RACE ? "nothing orders work that touches the same memory" : "as the emulator was told";
    return SUCCESS;
}
API int cuDeviceGetCount(int* count) {
    *count = static_cast<int>(fault("devices", 1));
    return SUCCESS;
}
API int cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return SUCCESS;
}
API int cuDeviceGetName(char* name, int length, int) {
    snprintf(name, static_cast<size_t>(length), "Emulated GPU");
    return SUCCESS;
}
API int cuDeviceGetAttribute(int* value, int attribute, int) {
    const int capability = static_cast<int>(fault("capability", 80));
    *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : 0;
    return SUCCESS;
}
API int cuDeviceTotalMem_v2(size_t* bytes, int) {
    *bytes = memory_bytes();
    return SUCCESS;
}
API int cuDevicePrimaryCtxRetain(void** context, int) {
    static int primary;
    *context = &primary;
    return SUCCESS;
}
API int cuCtxSetCurrent(void*) { return SUCCESS; }
API int cuMemGetInfo_v2(size_t* free, size_t* total) {
    std::lock_guard<std::mutex> guard(lock);
    *total = memory_bytes();
    *free = *total - used_bytes;
    return SUCCESS;
}
API int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    if (lost()) return LOST;
    if (used_bytes + bytes > memory_bytes()) return OUT_OF_MEMORY;
    auto* base = static_cast<unsigned char*>(malloc(bytes + 2 * GUARD));
    if (!base) return OUT_OF_MEMORY;
    memset(base, 0xa5, bytes + 2 * GUARD);
    memset(base + GUARD, POISON, bytes);
    *address = reinterpret_cast<uint64_t>(base + GUARD);
    allocations[*address] = {bytes, {}, {}};
    used_bytes += bytes;
    return SUCCESS;
}
API int cuMemFree_v2(uint64_t address) {
    std::lock_guard<std::mutex> guard(lock);
    const auto found = allocations.find(address);
    if (found == allocations.end()) broken("memory was freed that is not there");
    check_guards();
    used_bytes -= found->second.bytes;
    allocations.erase(found);
    free(reinterpret_cast<unsigned char*>(address) - GUARD);
    return lost() ? LOST : SUCCESS;
}
API int cuMemHostAlloc(void** address, size_t bytes, unsigned) {
    std::lock_guard<std::mutex> guard(lock);
    if (lost()) return LOST;
    *address = malloc(bytes);
    if (!*address) return OUT_OF_MEMORY;
    memset(*address, POISON, bytes);
    pinned[reinterpret_cast<uint64_t>(*address)] = {bytes, {}};
    return SUCCESS;
}
API int cuMemFreeHost(void* address) {
    std::lock_guard<std::mutex> guard(lock);
    // As the driver does, which waits for all of the device.
    for (Stream* stream : streams) settle(*stream, stream->queued);
    if (!pinned.erase(reinterpret_cast<uint64_t>(address))) broken("pinned memory was freed that is not there");
    free(address);
    return lost() ? LOST : SUCCESS;
}
API int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* on) {
    std::lock_guard<std::mutex> guard(lock);
    if (lost()) return LOST;
    Allocation* target = around(to, bytes);
    if (!target) return INVALID;
    Stream& stream = *static_cast<Stream*>(on);
    queue(stream);
    if (!is_over(target->used, stream.before) || !is_over(target->copied, stream.before)) return RACE;
    target->copied = {{stream.id, stream.queued}};
    if (Pinned* memory = pinned_around(from, bytes)) {
        // What is copied now was written while the copy before may not have been made.
        if (!is_over(memory->copied, host)) return RACE;
        memory->copied = {{stream.id, stream.queued}};
        const auto* source = static_cast<const unsigned char*>(from);
        stream.late.push_back({to, source, {source, source + bytes}, stream.queued});
    } else {
        // What is not pinned is taken at once.
        settle(stream, stream.queued);
        memcpy(reinterpret_cast<void*>(to), from, bytes);
    }
    return SUCCESS;
}
API int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* on) {
    std::lock_guard<std::mutex> guard(lock);
    if (lost()) return LOST;
    Allocation* source = around(from, bytes);
    if (!source) return INVALID;
    Stream& stream = *static_cast<Stream*>(on);
    queue(stream);
    if (!is_over(source->copied, stream.before)) return RACE;
    source->used[stream.id] = stream.queued;
    settle(stream, stream.queued);
    memcpy(to, reinterpret_cast<const void*>(from), bytes);
    return SUCCESS;
}
API int cuStreamCreate(void** stream, unsigned) {
    std::lock_guard<std::mutex> guard(lock);
    static int number = 0;
    auto* made = new Stream;
    made->id = ++number;
    streams.insert(made);
    *stream = made;
    return SUCCESS;
}
API int cuStreamDestroy_v2(void* stream) {
    std::lock_guard<std::mutex> guard(lock);
    auto* gone = static_cast<Stream*>(stream);
    settle(*gone, gone->queued);
    streams.erase(gone);
    delete gone;
    return SUCCESS;
}
API int cuStreamSynchronize(void* on) {
    std::lock_guard<std::mutex> guard(lock);
    if (lost()) return LOST;
    Stream& stream = *static_cast<Stream*>(on);
    settle(stream, stream.queued);
    join(host, stream.before);
    if (overwritten) return RACE;
    return static_cast<int>(fault("synchronize", SUCCESS));
}
API int cuStreamWaitEvent(void* on, void* event, unsigned) {
    std::lock_guard<std::mutex> guard(lock);
    if (lost()) return LOST;
    if (told("forget", "wait")) return SUCCESS;
    auto& mark = *static_cast<Event*>(event);
    if (mark.stream && streams.count(mark.stream)) settle(*mark.stream, mark.number);
    join(static_cast<Stream*>(on)->before, mark.before);
    return SUCCESS;
}
API int cuModuleLoadData(void** module, const void* image) {
    void* library = dlopen(static_cast<const char*>(image), RTLD_NOW | RTLD_LOCAL);
    if (!library) return NO_IMAGE;
    *module = new Kernels{library, static_cast<Index*>(dlsym(library, "emulator_thread")),
                          static_cast<Index*>(dlsym(library, "emulator_block")),
                          static_cast<void (**)()>(dlsym(library, "emulator_barrier")),
                          static_cast<pthread_mutex_t*>(dlsym(library, "emulator_lock")),
                          static_cast<void (**)()>(dlsym(library, "emulator_warp_barrier")),
                          static_cast<int*>(dlsym(library, "emulator_late_copies")), {}};
    return SUCCESS;
}
API int cuModuleUnload(void* module) {
    // The library stays loaded: fibers that wait have a frame of it on their stacks.
    delete static_cast<Kernels*>(module);
    return SUCCESS;
}
API int cuModuleGetFunction(void** function, void* module, const char* name) {
    auto* kernels = static_cast<Kernels*>(module);
    void* launch = dlsym(kernels->library, (std::string("launch_") + name).c_str());
    void* sizes = dlsym(kernels->library, (std::string("sizes_") + name).c_str());
    if (!launch || !sizes) return 500;
    kernels->functions.push_back(std::make_unique<Kernel>(
        Kernel{kernels, reinterpret_cast<void (*)(void**)>(launch), reinterpret_cast<const int* (*)()>(sizes)()}));
    *function = kernels->functions.back().get();
    return SUCCESS;
}
API int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned, unsigned, void* stream,
                       void** parameters, void**) {
    std::lock_guard<std::mutex> guard(lock);
    if (lost()) return LOST;
    Work work{*static_cast<Kernel*>(function), {x, y, z}, threads, {}};
    const int* sizes = work.kernel.sizes;
    for (int i = 0; i < sizes[0]; i++) {
        const auto* bytes = static_cast<const unsigned char*>(parameters[i]);
        work.values.emplace_back(bytes, bytes + sizes[i + 1]);
    }
    auto& recording = static_cast<Stream*>(stream)->recording;
    if (recording) {
        recording->push_back(std::move(work));
        return SUCCESS;
    }
    launches++;
    if (lost()) return LOST;
    queue(*static_cast<Stream*>(stream));
    if (!is_ordered(work, *static_cast<Stream*>(stream))) return RACE;
    settle(*static_cast<Stream*>(stream), static_cast<Stream*>(stream)->queued);
    run(work);
    return SUCCESS;
}
API int cuStreamBeginCapture_v2(void* stream, int) {
    static_cast<Stream*>(stream)->recording = std::make_unique<Graph>();
    return SUCCESS;
}
API int cuStreamEndCapture(void* stream, void** graph) {
    *graph = static_cast<Stream*>(stream)->recording.release();
    return SUCCESS;
}
API int cuGraphInstantiateWithFlags(void** ready, void* graph, unsigned long long) {
    *ready = new Graph(*static_cast<Graph*>(graph));
    return SUCCESS;
}
API int cuGraphDestroy(void* graph) {
    delete static_cast<Graph*>(graph);
    return SUCCESS;
}
API int cuGraphExecDestroy(void* graph) { return cuGraphDestroy(graph); }
API int cuGraphLaunch(void* graph, void* on) {
    std::lock_guard<std::mutex> guard(lock);
    Stream& stream = *static_cast<Stream*>(on);
    queue(stream);
    settle(stream, stream.queued);
    for (const Work& work : *static_cast<Graph*>(graph)) {
        if (lost()) return LOST;
        if (!is_ordered(work, stream)) return RACE;
        launches++;
        if (!lost()) run(work);
    }
    return SUCCESS;
}
API int cuEventCreate(void** event, unsigned) {
    *event = new Event;
    return SUCCESS;
}
API int cuEventDestroy_v2(void* event) {
    delete static_cast<Event*>(event);
    return SUCCESS;
}
API int cuEventRecord(void* event, void* on) {
    std::lock_guard<std::mutex> guard(lock);
    if (lost()) return LOST;
    Stream& stream = *static_cast<Stream*>(on);
    queue(stream);
    *static_cast<Event*>(event) = {&stream, stream.queued, stream.before};
    return SUCCESS;
}
API int cuEventSynchronize(void* event) {
    std::lock_guard<std::mutex> guard(lock);
    if (lost()) return LOST;
    if (told("forget", "synchronize")) return SUCCESS;
    const auto& mark = *static_cast<Event*>(event);
    if (mark.stream && streams.count(mark.stream)) settle(*mark.stream, mark.number);
    join(host, mark.before);
    return overwritten ? RACE : SUCCESS;
}
API int cuEventElapsedTime(float* ms, void*, void*) {
    *ms = 1.0f;
    return SUCCESS;
}

API int nvrtcVersion(int* major, int* minor) {
    const int version = static_cast<int>(fault("nvrtc", 13000));
    *major = version / 1000;
    *minor = version % 1000 / 10;
    return SUCCESS;
}
API int nvrtcGetNumSupportedArchs(int* count) {
    *count = 3;
    return SUCCESS;
}
API int nvrtcGetSupportedArchs(int* architectures) {
    architectures[0] = 75;
    architectures[1] = 80;
    architectures[2] = 90;
    return SUCCESS;
}
API int nvrtcCreateProgram(void** program, const char* text, const char*, int, const char* const*, const char* const*) {
    *program = new Source{text, "", ""};
    return SUCCESS;
}
API int nvrtcCompileProgram(void* program, int, const char* const*) { return compile(*static_cast<Source*>(program)); }
API int nvrtcDestroyProgram(void** program) {
    delete static_cast<Source*>(*program);
    *program = nullptr;
    return SUCCESS;
}
API int nvrtcGetProgramLogSize(void* program, size_t* size) {
    *size = static_cast<Source*>(program)->log.size() + 1;
    return SUCCESS;
}
API int nvrtcGetProgramLog(void* program, char* log) {
    strcpy(log, static_cast<Source*>(program)->log.c_str());
    return SUCCESS;
}
API int nvrtcGetCUBINSize(void* program, size_t* size) {
    *size = static_cast<Source*>(program)->image.size() + 1;
    return SUCCESS;
}
API int nvrtcGetCUBIN(void* program, char* image) {
    strcpy(image, static_cast<Source*>(program)->image.c_str());
    return SUCCESS;
}
API int nvrtcGetPTXSize(void* program, size_t* size) { return nvrtcGetCUBINSize(program, size); }
API int nvrtcGetPTX(void* program, char* image) { return nvrtcGetCUBIN(program, image); }
