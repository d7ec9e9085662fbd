// Sums over the pixels of all images, for each channel: the same as those of `batch_norm.cu`, for images that lie pixel by pixel. A block takes a
// range of pixels and 8 channels times CHUNKS; each thread adds 8 channels of every so-manieth pixel, and a tree adds the threads. All values
// are read once.

template <class Extents_, int RANGES, int CHUNKS_>
struct PixelRanges {
    using E = Extents_;
    static constexpr int LANES = 8, PARTS = RANGES, CHUNKS = CHUNKS_, ROWS = THREADS / CHUNKS, C = E::C;
    static constexpr int COUNT = E::N * E::H * E::W, SHARE = (COUNT + PARTS - 1) / PARTS;
    static_assert(CHUNKS * ROWS == THREADS && (ROWS & (ROWS - 1)) == 0 && C % (CHUNKS * LANES) == 0, "threads share a range evenly");

    // Of this thread: its first channel, the pixel that it begins with, and where its block's range ends.
    static DEVICE int channel() { return (int)(blockIdx.y * CHUNKS + threadIdx.x % CHUNKS) * LANES; }
    static DEVICE int begin() { return (int)blockIdx.x * SHARE + (int)threadIdx.x / CHUNKS; }
    static DEVICE int end() { return min(((int)blockIdx.x + 1) * SHARE, COUNT); }
    static DEVICE Spot spot(int pixel) { return E::spot(pixel / E::W / E::H, channel(), pixel / E::W % E::H, pixel % E::W); }

    // Adds what the threads of a row of pixels have; the first row's threads write the channels' parts. partial [C, PARTS].
    static DEVICE void write_sums(float (&sums)[LANES], float* partial) {
        __shared__ float room[LANES][THREADS];
        const int thread = threadIdx.x;
#pragma unroll
        for (int j = 0; j < LANES; j++) room[j][thread] = sums[j];
        __syncthreads();
        for (int width = THREADS / 2; width >= CHUNKS; width /= 2) {
            if (thread < width) {
#pragma unroll
                for (int j = 0; j < LANES; j++) room[j][thread] += room[j][thread + width];
            }
            __syncthreads();
        }
        if (thread < CHUNKS) {
#pragma unroll
            for (int j = 0; j < LANES; j++) partial[(channel() + j) * PARTS + blockIdx.x] = room[j][thread];
        }
        __syncthreads();
    }
};

// Grid of all of these: (PARTS, C / 8 / CHUNKS).
template <class R, class X>
DEVICE void pixel_parts(const X& x, float* partial) {
    float sums[R::LANES] = {};
#pragma unroll 4
    for (int pixel = R::begin(); pixel < R::end(); pixel += R::ROWS) {
        float values[R::LANES];
        x.load(R::spot(pixel), values);
#pragma unroll
        for (int j = 0; j < R::LANES; j++) sums[j] += values[j];
    }
    R::write_sums(sums, partial);
}

// Mean and Σ(x − mean)² of each range. partial [2, C, PARTS]. A thread takes four pixels at a time, whose moments it knows exactly.
template <class R, class X>
DEVICE void pixel_moment_parts(const X& x, float* partial) {
    constexpr int LANES = R::LANES, GROUP = 4;
    float mean[LANES] = {}, squares[LANES] = {}, count = 0.0f;
    for (int pixel = R::begin(); pixel < R::end(); pixel += GROUP * R::ROWS) {
        float values[GROUP][LANES] = {};
        int size = 0;
#pragma unroll
        for (int i = 0; i < GROUP; i++) {
            if (pixel + i * R::ROWS < R::end()) {
                x.load(R::spot(pixel + i * R::ROWS), values[i]);
                size = i + 1;
            }
        }
        const float each = 1.0f / size, share = size / (count + size);
#pragma unroll
        for (int j = 0; j < LANES; j++) {
            float sum = 0.0f, apart = 0.0f;
#pragma unroll
            for (int i = 0; i < GROUP; i++) sum += values[i][j];
            const float middle = sum * each;
#pragma unroll
            for (int i = 0; i < GROUP; i++) {
                const float off = i < size ? values[i][j] - middle : 0.0f;
                apart += off * off;
            }
            join_moments(mean[j], squares[j], count, middle, apart, share);
        }
        count += size;
    }

    __shared__ float means[LANES][THREADS], rooms[LANES][THREADS], counts[THREADS];
    const int thread = threadIdx.x;
    counts[thread] = count;
#pragma unroll
    for (int j = 0; j < LANES; j++) means[j][thread] = mean[j], rooms[j][thread] = squares[j];
    __syncthreads();
    for (int width = THREADS / 2; width >= R::CHUNKS; width /= 2) {
        // Of two threads the first has a value if one of them has.
        const float mine = counts[thread], more = thread < width ? counts[thread + width] : 0.0f;
        if (more > 0.0f) {
            const float share = more / (mine + more);
#pragma unroll
            for (int j = 0; j < LANES; j++) {
                join_moments(means[j][thread], rooms[j][thread], mine, means[j][thread + width], rooms[j][thread + width], share);
            }
            counts[thread] = mine + more;
        }
        __syncthreads();
    }
    if (thread < R::CHUNKS) {
#pragma unroll
        for (int j = 0; j < LANES; j++) {
            const int at = (R::channel() + j) * R::PARTS + blockIdx.x;
            partial[at] = means[j][thread];
            partial[R::C * R::PARTS + at] = rooms[j][thread];
        }
    }
}

// Parts of dgamma = Σ dy·x̂ and dbeta = Σ dy. partial [2, C, PARTS].
template <class R, class X, class DY>
DEVICE void pixel_parameter_parts(const X& x, const float* statistics, const DY& dy, float* partial) {
    constexpr int LANES = R::LANES;
    float mean[LANES], inverse[LANES], gamma[LANES] = {}, beta[LANES] = {};
    load_channels(statistics + R::channel(), mean);
    load_channels(statistics + R::C + R::channel(), inverse);
#pragma unroll
    for (int j = 0; j < LANES; j++) inverse[j] = inverse_deviation(inverse[j]);
#pragma unroll 2
    for (int pixel = R::begin(); pixel < R::end(); pixel += R::ROWS) {
        float values[LANES], given[LANES];
        x.load(R::spot(pixel), values);
        dy.load(R::spot(pixel), given);
#pragma unroll
        for (int j = 0; j < LANES; j++) {
            gamma[j] += given[j] * (values[j] - mean[j]) * inverse[j];
            beta[j] += given[j];
        }
    }
    R::write_sums(gamma, partial);
    R::write_sums(beta, partial + R::C * R::PARTS);
}
