// What all families share. Every kernel is a device function, templated on shapes; the lowering writes one `__global__` wrapper around each
// use of one, so that shapes are constants. How tensors lie is told in `forms.cu`; indices are int, since the lowering refuses
// tensors of 2^31 values and more. No atomics: every sum is taken in an order that depends on the shapes alone.

#define DEVICE __device__ __forceinline__

// Threads of a block, unless a kernel says otherwise.
constexpr int THREADS = 256;

DEVICE int first_index() {
    return (int)(blockIdx.x * THREADS + threadIdx.x);
}

// The sum of one value of each thread, as a tree; known to all threads. `room` holds THREADS values.
template <class T>
DEVICE T block_sum(T value, T* room) {
    const int thread = threadIdx.x;
    room[thread] = value;
    __syncthreads();
    for (int width = THREADS / 2; width > 0; width /= 2) {
        if (thread < width) room[thread] += room[thread + width];
        __syncthreads();
    }
    const T sum = room[0];
    __syncthreads();
    return sum;
}

// The same for the largest value; NaN does not win.
DEVICE float block_max(float value, float* room) {
    const int thread = threadIdx.x;
    room[thread] = value;
    __syncthreads();
    for (int width = THREADS / 2; width > 0; width /= 2) {
        if (thread < width) room[thread] = fmaxf(room[thread], room[thread + width]);
        __syncthreads();
    }
    const float largest = room[0];
    __syncthreads();
    return largest;
}
