// What kernels see in place of CUDA's built-ins when they are compiled for the host. Threads of a block are fibers, which the emulator
// switches at barriers, of the block or of a warp; blocks run one after the other, so that shared memory may be static.
#include <math.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

#include <utility>

#define EMULATED

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(threads)

struct EmulatorIndex {
    unsigned x, y, z;
};

extern "C" {
EmulatorIndex emulator_thread, emulator_block;
void (*emulator_barrier)();
// Copies of the emulator with faults of their own share what is compiled, and so its shared memory.
pthread_mutex_t emulator_lock = PTHREAD_MUTEX_INITIALIZER;
// Waits for the other lanes of the warp.
void (*emulator_warp_barrier)();
// Whether asynchronous copies arrive when they are waited for, as late as can be, rather than when they are started.
int emulator_late_copies;
}

#define CHECK_ALIGNED(address, bytes) \
    if (reinterpret_cast<std::size_t>(address) % (bytes)) __builtin_trap()

#define threadIdx emulator_thread
#define blockIdx emulator_block

static inline void __syncthreads() { emulator_barrier(); }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }

// Rounded each by itself: no compiler may join them.
static inline float __fmul_rn(float a, float b) {
    volatile float product = a * b;
    return product;
}
static inline float __fadd_rn(float a, float b) {
    volatile float sum = a + b;
    return sum;
}
static inline float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// Calls a kernel with parameters given as the driver gets them: addresses of values.
template <class... Types, std::size_t... I>
static void emulator_call(void (*kernel)(Types...), void** parameters, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<Types>*>(parameters[I])...);
}

template <class... Types>
static void emulator_invoke(void (*kernel)(Types...), void** parameters) {
    emulator_call(kernel, parameters, std::index_sequence_for<Types...>{});
}

// Number of parameters, then the bytes of each.
template <class... Types>
static const int* emulator_sizes(void (*)(Types...)) {
    static const int sizes[] = {static_cast<int>(sizeof...(Types)), static_cast<int>(sizeof(Types))...};
    return sizes;
}

// ---- What a warp does together: the host's form of `kernels/warp.cu`.

struct Chunk;

constexpr int EMULATOR_LANES = 32, EMULATOR_THREADS = 1024;

// What a lane shows to the others.
struct EmulatorShown {
    unsigned words[6];
};

// Shows `mine`, and gives what all lanes of the warp have shown. There are two sets, taken in turn: no lane can come to the one after the
// next before all have seen this one.
static inline const EmulatorShown* emulator_exchange(const EmulatorShown& mine) {
    static EmulatorShown shown[2][EMULATOR_THREADS];
    static unsigned char turn[EMULATOR_THREADS];
    const unsigned thread = emulator_thread.x;
    EmulatorShown* set = shown[turn[thread] ^= 1];
    set[thread] = mine;
    emulator_warp_barrier();
    return set + thread / EMULATOR_LANES * EMULATOR_LANES;
}

static inline void emulator_load_matrices(unsigned (&to)[4], const Chunk* row, bool transposed) {
    if (reinterpret_cast<std::size_t>(row) % 16) __builtin_trap();
    EmulatorShown mine = {};
    memcpy(mine.words, row, 16);
    const EmulatorShown* rows = emulator_exchange(mine);
    const unsigned lane = emulator_thread.x % EMULATOR_LANES;
    for (unsigned i = 0; i < 4; i++) {
        if (transposed) {
            const auto half = [&](unsigned row) { return rows[8 * i + row].words[lane / 8] >> (lane / 4 % 2 * 16) & 0xffffu; };
            to[i] = half(lane % 4 * 2) | half(lane % 4 * 2 + 1) << 16;
        } else {
            to[i] = rows[8 * i + lane / 4].words[lane % 4];
        }
    }
}

static inline void load_matrices(unsigned (&to)[4], const Chunk* row) { emulator_load_matrices(to, row, false); }
static inline void load_transposed(unsigned (&to)[4], const Chunk* row) { emulator_load_matrices(to, row, true); }

// `value(word, i)` is the i-th of the values that a word holds, PACKED of them.
template <int PACKED, class Value>
static inline void emulator_multiply(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], Value value) {
    const EmulatorShown* lanes = emulator_exchange({{a[0], a[1], a[2], a[3], b[0], b[1]}});
    const unsigned lane = emulator_thread.x % EMULATOR_LANES;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = lane / 4, column = lane % 4 * 2 + i % 2;
        float sum = c[i];
        for (unsigned half = 0; half < 2; half++) {
            for (unsigned k = 0; k < 4 * PACKED; k++) {
                const unsigned at = k / PACKED, word_a = lanes[row * 4 + at].words[i / 2 + half * 2], word_b = lanes[column * 4 + at].words[4 + half];
                sum += value(word_a, k % PACKED) * value(word_b, k % PACKED);
            }
        }
        c[i] = sum;
    }
}

// Products of values of 16 bits are exact; of 32 bits the hardware sees the upper 19.
template <class Precision>
static inline void multiply_fragments(Precision, float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    if constexpr (sizeof(typename Precision::Value) == 2) {
        emulator_multiply<2>(c, a, b, [](unsigned word, unsigned i) { return __uint_as_float(i ? word & 0xffff0000u : word << 16); });
    } else {
        emulator_multiply<1>(c, a, b, [](unsigned word, unsigned) { return __uint_as_float(word & ~0x1fffu); });
    }
}

// Copies of the running thread that have not arrived, oldest first, in groups.
struct EmulatorCopies {
    struct Copy {
        Chunk* to;
        const void* from;
        bool valid;
    };
    // Of the groups that have ended and of the one that has not, as positions in `copies`.
    static constexpr int MOST = 256;
    Copy copies[MOST];
    int count, ends[MOST], groups;
};

static inline EmulatorCopies& emulator_copies() {
    static EmulatorCopies all[EMULATOR_THREADS];
    return all[emulator_thread.x];
}

static inline void emulator_arrive(const EmulatorCopies::Copy& copy) {
    if (copy.valid) {
        memcpy(static_cast<void*>(copy.to), copy.from, 16);
    } else {
        memset(static_cast<void*>(copy.to), 0, 16);
    }
}

static inline void copy_chunk(Chunk* to, const void* from, bool valid) {
    if (reinterpret_cast<std::size_t>(to) % 16 || reinterpret_cast<std::size_t>(from) % 16) __builtin_trap();
    const EmulatorCopies::Copy copy = {to, from, valid};
    if (!emulator_late_copies) return emulator_arrive(copy);
    EmulatorCopies& pending = emulator_copies();
    if (pending.count == EmulatorCopies::MOST) __builtin_trap();
    pending.copies[pending.count++] = copy;
}

static inline void end_copies() {
    EmulatorCopies& pending = emulator_copies();
    if (!emulator_late_copies) return;
    if (pending.groups == EmulatorCopies::MOST) __builtin_trap();
    pending.ends[pending.groups++] = pending.count;
}

template <int GROUPS>
static inline void wait_copies() {
    EmulatorCopies& pending = emulator_copies();
    const int arrived = pending.groups - GROUPS;
    if (arrived <= 0) return;
    const int end = pending.ends[arrived - 1];
    for (int i = 0; i < end; i++) emulator_arrive(pending.copies[i]);
    for (int i = end; i < pending.count; i++) pending.copies[i - end] = pending.copies[i];
    for (int i = arrived; i < pending.groups; i++) pending.ends[i - arrived] = pending.ends[i] - end;
    pending.count -= end;
    pending.groups = GROUPS;
}
