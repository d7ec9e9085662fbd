// A driver and an NVRTC for machines without a GPU: the functions that the program calls, with kernels compiled by the host's C++ compiler
// and run by a grid emulator. It checks what hardware would not tell: memory is poisoned until it is written, every allocation has guards
// around it, a barrier that some threads of a block or a warp pass by ends the process, and threads may run in reverse, which a missing
// barrier shows; then asynchronous copies within a kernel arrive as late as they may, and else as early as they may. A copy from pinned memory
// is made as late as the order of streams and events allows, so that what reads too early, or is written too early, shows; and work of two
// streams on one allocation that nothing orders is refused with RACE, whatever became of it here.
//
// It is as strict as the driver's manual: a call needs a current context, handles must be alive, nothing but launches may be recorded, a
// grid has its limits, a block no more threads than its kernel was compiled for, addresses lead to allocations, and only events that take
// times can tell one.
//
// The lanes of a warp run until all of them wait for the block, before another warp gets its turn: a barrier of a warp is none of the block.
//
// Faults come from the file LIBRARY.faults beside the library, lines of `key=value`, so that each copy of the library has its own:
//   init, version, devices, capability   what cuInit returns, and what there is
//   memory_bytes                         the device's memory
//   lose_after                           launches after which every call returns 700
//   synchronize                          what cuStreamSynchronize returns
//   nvrtc                                version of NVRTC, as that of the driver: 13000 is 13.0
//   oldest                               architecture that NVRTC begins with
//   compile                              1: nothing compiles; 7: the builtins are not there
//   capture                              what cuStreamBeginCapture returns
//   module                               what cuModuleLoadData returns
//   order                                reverse: threads and blocks run from the last to the first
//   forget                               wait: cuStreamWaitEvent does nothing; synchronize: cuEventSynchronize does nothing
//
// Built with -DKERNEL_H="PATH"; compiled kernels are kept in LIBRARY's folder.

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

#include "grid.h"

namespace {

constexpr int SUCCESS = 0, INVALID = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101, NO_IMAGE = 200,
              INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, LOST = 700, OUT_OF_RESOURCES = 701,
              CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, CAPTURE_UNMATCHED = 903, CAPTURE_ISOLATION = 905, RACE = 31336;

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
    // Whether something was called meanwhile that must not be.
    bool invalidated = false;
    int id = 0;
    // Operations that were queued.
    long long queued = 0;
    // What is over before whatever is queued next.
    Clock before;
    std::vector<Copy> late;
};

struct Event {
    bool timed = true;
    Stream* stream = nullptr;
    long long number = 0;
    Clock before;
};

std::set<void*> handles;
std::set<Stream*> streams;
bool initialized = false;
int primary_context;
thread_local void* context = nullptr;
// The stream that this thread records.
thread_local Stream* recorded = nullptr;

// What a call that is not for recordings returns at once, if not SUCCESS.
int refused() {
    if (!initialized) return NOT_INITIALIZED;
    if (context != &primary_context) return INVALID_CONTEXT;
    if (recorded) {
        recorded->invalidated = true;
        return CAPTURE_UNSUPPORTED;
    }
    return lost() ? LOST : SUCCESS;
}

// The same for one that works on a stream, which the program makes itself: the legacy one would wait for all others.
int refused(void* stream) {
    if (const int status = refused()) return status;
    if (!streams.count(static_cast<Stream*>(stream))) return INVALID_HANDLE;
    if (static_cast<Stream*>(stream)->recording) {
        static_cast<Stream*>(stream)->invalidated = true;
        return CAPTURE_UNSUPPORTED;
    }
    return SUCCESS;
}

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
        if (!given) continue;  // Null: a part that is left out.
        if (!is_over(given->copied, stream.before)) return false;
        given->used[stream.id] = stream.queued;
    }
    return true;
}

// Whether all addresses lead to allocations, and to whole words.
bool is_sound(const Work& work) {
    for (const auto& value : work.values) {
        if (value.size() != sizeof(uint64_t)) continue;
        uint64_t address;
        memcpy(&address, value.data(), sizeof address);
        if (address && (address % 4 || !around(address, 4))) return false;
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

// Names of the kernels of a source, and their launch bounds.
std::vector<std::pair<std::string, std::string>> kernels_of(const std::string& text) {
    std::vector<std::pair<std::string, std::string>> names;
    const std::string mark = "extern \"C\" __global__";
    for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) {
        const size_t bounds = text.find(')', at), open = text.find('(', bounds + 1);
        size_t begin = open;
        while (begin > 0 && (isalnum(text[begin - 1]) || text[begin - 1] == '_')) begin--;
        const size_t threads = text.find("__launch_bounds__(", at) + strlen("__launch_bounds__(");
        names.emplace_back(text.substr(begin, open - begin), text.substr(threads, bounds - threads));
    }
    return names;
}

int compile(Source& source) {
    if (fault("compile", 0) == 7) {
        source.log = "nvrtc: error: failed to open libnvrtc-builtins.so.13.0.";
        return 7;
    }
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
    for (const auto& [name, threads] : kernels_of(source.text)) {
        text += "extern \"C\" unsigned threads_" + name + " = " + threads + ";\n";
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

API int cuInit(unsigned flags) {
    if (flags) return INVALID;
    const int status = static_cast<int>(fault("init", SUCCESS));
    initialized = status == SUCCESS;
    return status;
}
API int cuDriverGetVersion(int* version) {
    *version = static_cast<int>(fault("version", 13000));
    return SUCCESS;
}
API int cuGetErrorName(int status, const char** text) {
    static const std::map<int, const char*> names = {
        {INVALID, "CUDA_ERROR_INVALID_VALUE"},
        {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"},
        {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
        {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
        {NO_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
        {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
        {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
        {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
        {NOT_READY, "CUDA_ERROR_NOT_READY"},
        {LOST, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"},
        {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
        {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
        {CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED"},
        {CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION"},
        {RACE, "EMULATOR_RACE"},
    };
    const auto found = names.find(status);
    *text = found == names.end() ? nullptr : found->second;
    return *text ? SUCCESS : INVALID;
}
API int cuGetErrorString(int status, const char** text) {
    const char* name;
    if (cuGetErrorName(status, &name) != SUCCESS) return INVALID;
    *text = status == RACE ? "nothing orders work that touches the same memory" : "as the emulator was told";
    return SUCCESS;
}
API int cuDeviceGetCount(int* count) {
    if (!initialized) return NOT_INITIALIZED;
    *count = static_cast<int>(fault("devices", 1));
    return SUCCESS;
}
API int cuDeviceGet(int* device, int ordinal) {
    if (!initialized) return NOT_INITIALIZED;
    if (ordinal < 0 || ordinal >= fault("devices", 1)) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}
API int cuDeviceGetName(char* name, int length, int) {
    if (!initialized) return NOT_INITIALIZED;
    snprintf(name, static_cast<size_t>(length), "Emulated GPU");
    return SUCCESS;
}
API int cuDeviceGetAttribute(int* value, int attribute, int) {
    if (!initialized) return NOT_INITIALIZED;
    const int capability = static_cast<int>(fault("capability", 80));
    if (attribute != 75 && attribute != 76) return INVALID;
    *value = attribute == 75 ? capability / 10 : capability % 10;
    return SUCCESS;
}
API int cuDeviceTotalMem_v2(size_t* bytes, int) {
    if (!initialized) return NOT_INITIALIZED;
    *bytes = memory_bytes();
    return SUCCESS;
}
API int cuDevicePrimaryCtxRetain(void** retained, int) {
    if (!initialized) return NOT_INITIALIZED;
    *retained = &primary_context;
    return SUCCESS;
}
API int cuCtxSetCurrent(void* chosen) {
    if (!initialized) return NOT_INITIALIZED;
    if (chosen && chosen != &primary_context) return INVALID_CONTEXT;
    context = chosen;
    return SUCCESS;
}
API int cuMemGetInfo_v2(size_t* free, size_t* total) {
    std::lock_guard<std::mutex> guard(lock);
    if (const int status = refused()) return status;
    *total = memory_bytes();
    *free = *total - used_bytes;
    return SUCCESS;
}
API int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    if (const int status = refused()) return status;
    if (bytes == 0) return INVALID;
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
    if (const int status = refused(); status && status != LOST) return status;
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
    if (const int status = refused()) return status;
    if (bytes == 0) return INVALID;
    *address = malloc(bytes);
    if (!*address) return OUT_OF_MEMORY;
    memset(*address, POISON, bytes);
    pinned[reinterpret_cast<uint64_t>(*address)] = {bytes, {}};
    return SUCCESS;
}
API int cuMemFreeHost(void* address) {
    std::lock_guard<std::mutex> guard(lock);
    if (const int status = refused(); status && status != LOST) return status;
    // As the driver does, which waits for all of the device.
    for (Stream* stream : streams) settle(*stream, stream->queued);
    if (!pinned.erase(reinterpret_cast<uint64_t>(address))) broken("pinned memory was freed that is not there");
    free(address);
    return lost() ? LOST : SUCCESS;
}
API int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* on) {
    std::lock_guard<std::mutex> guard(lock);
    if (const int status = refused(on)) return status;
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
    if (const int status = refused(on)) return status;
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
API int cuStreamCreate(void** stream, unsigned flags) {
    std::lock_guard<std::mutex> guard(lock);
    if (const int status = refused()) return status;
    if (flags > 1) return INVALID;
    static int number = 0;
    auto* made = new Stream;
    made->id = ++number;
    streams.insert(made);
    *stream = made;
    return SUCCESS;
}
API int cuStreamDestroy_v2(void* stream) {
    std::lock_guard<std::mutex> guard(lock);
    if (const int status = refused(stream); status && status != LOST) return status;
    auto* gone = static_cast<Stream*>(stream);
    settle(*gone, gone->queued);
    streams.erase(gone);
    delete gone;
    return SUCCESS;
}
API int cuStreamSynchronize(void* on) {
    std::lock_guard<std::mutex> guard(lock);
    if (const int status = refused(on)) return status;
    Stream& stream = *static_cast<Stream*>(on);
    settle(stream, stream.queued);
    join(host, stream.before);
    if (overwritten) return RACE;
    return static_cast<int>(fault("synchronize", SUCCESS));
}
API int cuStreamWaitEvent(void* on, void* event, unsigned flags) {
    std::lock_guard<std::mutex> guard(lock);
    if (recorded) recorded->invalidated = true;
    if (recorded) return CAPTURE_ISOLATION;
    if (const int status = refused(on)) return status;
    if (flags || !handles.count(event)) return flags ? INVALID : INVALID_HANDLE;
    if (told("forget", "wait")) return SUCCESS;
    auto& mark = *static_cast<Event*>(event);
    if (mark.stream && streams.count(mark.stream)) settle(*mark.stream, mark.number);
    join(static_cast<Stream*>(on)->before, mark.before);
    return SUCCESS;
}
API int cuModuleLoadData(void** module, const void* image) {
    std::lock_guard<std::mutex> guard(lock);
    if (const int status = refused()) return status;
    if (const int status = static_cast<int>(fault("module", SUCCESS))) return status;
    void* library = dlopen(static_cast<const char*>(image), RTLD_NOW | RTLD_LOCAL);
    if (!library) return NO_IMAGE;
    *module = new Kernels{library, static_cast<Index*>(dlsym(library, "emulator_thread")),
                          static_cast<Index*>(dlsym(library, "emulator_block")),
                          static_cast<void (**)()>(dlsym(library, "emulator_barrier")),
                          static_cast<pthread_mutex_t*>(dlsym(library, "emulator_lock")),
                          static_cast<void (**)()>(dlsym(library, "emulator_warp_barrier")),
                          static_cast<int*>(dlsym(library, "emulator_late_copies")), {}};
    handles.insert(*module);
    return SUCCESS;
}
API int cuModuleUnload(void* module) {
    std::lock_guard<std::mutex> guard(lock);
    if (const int status = refused(); status && status != LOST) return status;
    if (!handles.erase(module)) return INVALID_HANDLE;
    // The library stays loaded: fibers that wait have a frame of it on their stacks.
    auto* kernels = static_cast<Kernels*>(module);
    for (const auto& function : kernels->functions) handles.erase(function.get());
    delete kernels;
    return SUCCESS;
}
API int cuModuleGetFunction(void** function, void* module, const char* name) {
    std::lock_guard<std::mutex> guard(lock);
    if (const int status = refused()) return status;
    if (!handles.count(module)) return INVALID_HANDLE;
    auto* kernels = static_cast<Kernels*>(module);
    void* launch = dlsym(kernels->library, (std::string("launch_") + name).c_str());
    void* sizes = dlsym(kernels->library, (std::string("sizes_") + name).c_str());
    void* threads = dlsym(kernels->library, (std::string("threads_") + name).c_str());
    if (!launch || !sizes || !threads) return NOT_FOUND;
    kernels->functions.push_back(std::make_unique<Kernel>(Kernel{kernels, reinterpret_cast<void (*)(void**)>(launch),
                                                                 reinterpret_cast<const int* (*)()>(sizes)(), *static_cast<unsigned*>(threads)}));
    *function = kernels->functions.back().get();
    handles.insert(*function);
    return SUCCESS;
}
API int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y, unsigned threads_z,
                       unsigned shared_bytes, void* on, void** parameters, void** extra) {
    std::unique_lock<std::mutex> guard(lock);
    if (!initialized) return NOT_INITIALIZED;
    if (context != &primary_context) return INVALID_CONTEXT;
    if (lost()) return LOST;
    if (!handles.count(function) || !streams.count(static_cast<Stream*>(on))) return INVALID_HANDLE;
    Stream& stream = *static_cast<Stream*>(on);
    if (!x || !y || !z || x > 0x7fffffffu || y > 65535 || z > 65535) return INVALID;
    if (!threads || threads > MOST_THREADS || threads_y != 1 || threads_z != 1 || !parameters || extra) return INVALID;
    Work work{*static_cast<Kernel*>(function), {x, y, z}, threads, {}};
    if (threads > work.kernel.most_threads || shared_bytes) return OUT_OF_RESOURCES;
    const int* sizes = work.kernel.sizes;
    for (int i = 0; i < sizes[0]; i++) {
        const auto* bytes = static_cast<const unsigned char*>(parameters[i]);
        work.values.emplace_back(bytes, bytes + sizes[i + 1]);
    }
    if (stream.recording) {
        stream.recording->push_back(std::move(work));
        return SUCCESS;
    }
    launches++;
    if (lost() || !is_sound(work)) return LOST;
    queue(stream);
    if (!is_ordered(work, stream)) return RACE;
    settle(stream, stream.queued);
    // Kernels of other streams may run meanwhile.
    guard.unlock();
    run(work);
    guard.lock();
    check_guards();
    return SUCCESS;
}
API int cuStreamBeginCapture_v2(void* on, int mode) {
    std::lock_guard<std::mutex> guard(lock);
    if (const int status = refused(on)) return status;
    if (mode < 0 || mode > 2) return INVALID;
    if (const int status = static_cast<int>(fault("capture", SUCCESS))) return status;
    recorded = static_cast<Stream*>(on);
    recorded->recording = std::make_unique<Graph>();
    recorded->invalidated = false;
    return SUCCESS;
}
API int cuStreamEndCapture(void* on, void** graph) {
    std::lock_guard<std::mutex> guard(lock);
    *graph = nullptr;
    if (!recorded || recorded != on) return CAPTURE_UNMATCHED;
    auto made = std::move(recorded->recording);
    const bool invalidated = recorded->invalidated;
    recorded = nullptr;
    if (invalidated) return CAPTURE_INVALIDATED;
    *graph = made.release();
    handles.insert(*graph);
    return SUCCESS;
}
API int cuGraphInstantiateWithFlags(void** ready, void* graph, unsigned long long flags) {
    std::lock_guard<std::mutex> guard(lock);
    if (const int status = refused()) return status;
    if (flags || !handles.count(graph)) return flags ? INVALID : INVALID_HANDLE;
    *ready = new Graph(*static_cast<Graph*>(graph));
    handles.insert(*ready);
    return SUCCESS;
}
API int cuGraphDestroy(void* graph) {
    std::lock_guard<std::mutex> guard(lock);
    if (!handles.erase(graph)) return INVALID_HANDLE;
    delete static_cast<Graph*>(graph);
    return SUCCESS;
}
API int cuGraphExecDestroy(void* graph) { return cuGraphDestroy(graph); }
API int cuGraphLaunch(void* graph, void* on) {
    std::unique_lock<std::mutex> guard(lock);
    if (const int status = refused(on)) return status;
    if (!handles.count(graph)) return INVALID_HANDLE;
    Stream& stream = *static_cast<Stream*>(on);
    queue(stream);
    settle(stream, stream.queued);
    for (const Work& work : *static_cast<Graph*>(graph)) {
        if (lost() || !is_sound(work)) return LOST;
        if (!is_ordered(work, stream)) return RACE;
        launches++;
        if (lost()) continue;
        guard.unlock();
        run(work);
        guard.lock();
        check_guards();
    }
    return SUCCESS;
}
API int cuEventCreate(void** event, unsigned flags) {
    std::lock_guard<std::mutex> guard(lock);
    if (const int status = refused()) return status;
    auto* made = new Event;
    made->timed = !(flags & 2);
    handles.insert(made);
    *event = made;
    return SUCCESS;
}
API int cuEventDestroy_v2(void* event) {
    std::lock_guard<std::mutex> guard(lock);
    if (const int status = refused(); status && status != LOST) return status;
    if (!handles.erase(event)) return INVALID_HANDLE;
    delete static_cast<Event*>(event);
    return SUCCESS;
}
API int cuEventRecord(void* event, void* on) {
    std::lock_guard<std::mutex> guard(lock);
    if (const int status = refused(on)) return status;
    if (!handles.count(event)) return INVALID_HANDLE;
    Stream& stream = *static_cast<Stream*>(on);
    queue(stream);
    auto& mark = *static_cast<Event*>(event);
    mark = {mark.timed, &stream, stream.queued, stream.before};
    return SUCCESS;
}
API int cuEventSynchronize(void* event) {
    std::lock_guard<std::mutex> guard(lock);
    if (const int status = refused()) return status;
    if (!handles.count(event)) return INVALID_HANDLE;
    if (told("forget", "synchronize")) return SUCCESS;
    const auto& mark = *static_cast<Event*>(event);
    if (mark.stream && streams.count(mark.stream)) settle(*mark.stream, mark.number);
    join(host, mark.before);
    return overwritten ? RACE : SUCCESS;
}
API int cuEventElapsedTime(float* ms, void* from, void* to) {
    std::lock_guard<std::mutex> guard(lock);
    if (const int status = refused()) return status;
    for (void* event : {from, to}) {
        if (!handles.count(event)) return INVALID_HANDLE;
        const auto& mark = *static_cast<Event*>(event);
        if (!mark.timed || !mark.stream) return INVALID_HANDLE;
        if (!is_over(mark.before, host)) return NOT_READY;
    }
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
    architectures[0] = static_cast<int>(fault("oldest", 75));
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
