// What kernels see in place of CUDA's built-ins when they are compiled for the host. Threads of a block are fibers, which the emulator
// switches at barriers; blocks run one after the other, so that shared memory may be static.
#include <math.h>

#include <utility>

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
}

#define threadIdx emulator_thread
#define blockIdx emulator_block

static inline void __syncthreads() { emulator_barrier(); }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }

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
