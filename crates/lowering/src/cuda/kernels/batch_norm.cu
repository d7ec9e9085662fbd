// Sums over all but the second dimension, and batch normalization (Ioffe & Szegedy 2015). A channel's values are split into PARTS ranges by
// the shape alone; a block sums each range, and another one adds a channel's parts. These are the sums along planes; `pixels.cu` has
// those of pixels.

template <int IMAGES, int CHANNELS, int PLANE, int RANGES>
struct Channels {
    static constexpr int N = IMAGES, C = CHANNELS, P = PLANE, PARTS = RANGES;
    static constexpr int COUNT = N * P, SHARE = (COUNT + PARTS - 1) / PARTS;

    // Position of value i of a channel.
    static DEVICE int at(int channel, int i) { return ((i / P) * C + channel) * P + i % P; }
};

// 1 / √(variance + ε).
DEVICE float inverse_deviation(float variance) {
    return 1.0f / sqrtf(variance + 1e-5f);
}

// Grid: (C, PARTS). partial [C, PARTS].
template <class S>
DEVICE void channel_parts(const Planes& x, float* partial) {
    __shared__ float room[THREADS];
    const int channel = blockIdx.x, part = blockIdx.y;
    const int end = min((part + 1) * S::SHARE, S::COUNT);
    float sum = 0.0f;
    for (int i = part * S::SHARE + threadIdx.x; i < end; i += THREADS) sum += x.values[S::at(channel, i)];
    sum = block_sum(sum, room);
    if (threadIdx.x == 0) partial[channel * S::PARTS + part] = sum;
}

// Adds the parts of a channel. Grid: (C).
template <class S>
DEVICE void channel_sum(const float* partial, float* y) {
    static_assert(S::PARTS <= THREADS, "a thread has one part");
    __shared__ float room[THREADS];
    const int channel = blockIdx.x, part = threadIdx.x;
    const float sum = block_sum(part < S::PARTS ? partial[channel * S::PARTS + part] : 0.0f, room);
    if (part == 0) y[channel] = sum;
}

// Mean and Σ(x − mean)² of each range. partial [2, C, PARTS]. Grid: (C, PARTS).
template <class S>
DEVICE void moment_parts(const Planes& x, float* partial) {
    __shared__ float room[THREADS];
    const int channel = blockIdx.x, part = blockIdx.y;
    const int begin = part * S::SHARE, end = min(begin + S::SHARE, S::COUNT);
    float sum = 0.0f;
    for (int i = begin + threadIdx.x; i < end; i += THREADS) sum += x.values[S::at(channel, i)];
    const float mean = end > begin ? block_sum(sum, room) / (end - begin) : 0.0f;
    float squares = 0.0f;
    for (int i = begin + threadIdx.x; i < end; i += THREADS) {
        const float apart = x.values[S::at(channel, i)] - mean;
        squares += apart * apart;
    }
    squares = block_sum(squares, room);
    if (threadIdx.x == 0) {
        partial[channel * S::PARTS + part] = mean;
        partial[(S::C + channel) * S::PARTS + part] = squares;
    }
}

// Joins mean and Σ(x − mean)² of `count` values with those of `more` (Chan, Golub & LeVeque 1979); `share` is more / (count + more).
DEVICE void join_moments(float& mean, float& squares, float count, float more_mean, float more_squares, float share) {
    const float apart = more_mean - mean;
    squares += more_squares + apart * apart * (count * share);
    mean += apart * share;
}

// Mean and biased variance from those of the ranges, as a tree. statistics [2, C]. Grid: (C).
template <class S>
DEVICE void moments(const float* partial, float* statistics) {
    static_assert(S::PARTS <= THREADS, "a thread has one part");
    __shared__ float counts[THREADS], means[THREADS], squares[THREADS];
    const int channel = blockIdx.x, part = threadIdx.x;
    const int size = part < S::PARTS ? min((part + 1) * S::SHARE, S::COUNT) - part * S::SHARE : 0;
    counts[part] = max(size, 0);
    means[part] = size > 0 ? partial[channel * S::PARTS + part] : 0.0f;
    squares[part] = size > 0 ? partial[(S::C + channel) * S::PARTS + part] : 0.0f;
    __syncthreads();
    for (int width = THREADS / 2; width > 0; width /= 2) {
        const float more = part < width ? counts[part + width] : 0.0f;
        if (more > 0.0f) {
            const float count = counts[part];
            join_moments(means[part], squares[part], count, means[part + width], squares[part + width], more / (count + more));
            counts[part] = count + more;
        }
        __syncthreads();
    }
    if (part == 0) {
        statistics[channel] = means[0];
        statistics[S::C + channel] = squares[0] / counts[0];
    }
}

// (x − mean) / √(variance + ε) · γ + β.
template <class Order, class X, class Y, class Epilogue>
DEVICE void batch_normalize(const X& x, const float* statistics, const float* gamma, const float* beta, const Y& y, const Epilogue& epilogue) {
    constexpr int LANES = Order::LANES;
    struct Channel {
        float mean[LANES], scale[LANES], shift[LANES];
    };
    const auto prepare = [&](int c) {
        Channel channel;
        float variance[LANES];
        load_channels(statistics + c, channel.mean);
        load_channels(statistics + Order::C + c, variance);
        load_channels(gamma + c, channel.scale);
        load_channels(beta + c, channel.shift);
#pragma unroll
        for (int j = 0; j < LANES; j++) channel.scale[j] *= inverse_deviation(variance[j]);
        return channel;
    };
    each_of_channel<Order>(y, epilogue, prepare, [&](Spot at, float (&values)[LANES], const Channel& channel) {
        x.load(at, values);
#pragma unroll
        for (int j = 0; j < LANES; j++) values[j] = (values[j] - channel.mean[j]) * channel.scale[j] + channel.shift[j];
    });
}

// Parts of dgamma = Σ dy·x̂ and dbeta = Σ dy. partial [2, C, PARTS]. Grid: (C, PARTS).
template <class S>
DEVICE void batch_parameter_parts(const Planes& x, const float* statistics, const Planes& dy, float* partial) {
    __shared__ float room[THREADS];
    const int channel = blockIdx.x, part = blockIdx.y;
    const int end = min((part + 1) * S::SHARE, S::COUNT);
    const float mean = statistics[channel], inverse = inverse_deviation(statistics[S::C + channel]);
    float gamma = 0.0f, beta = 0.0f;
    for (int i = part * S::SHARE + threadIdx.x; i < end; i += THREADS) {
        const int at = S::at(channel, i);
        gamma += dy.values[at] * (x.values[at] - mean) * inverse;
        beta += dy.values[at];
    }
    gamma = block_sum(gamma, room);
    beta = block_sum(beta, room);
    if (threadIdx.x == 0) {
        partial[channel * S::PARTS + part] = gamma;
        partial[(S::C + channel) * S::PARTS + part] = beta;
    }
}

// COUNT: values of a channel.
template <class Order, int COUNT, class X, class DY, class DX, class Epilogue>
DEVICE void batch_input_grad(const X& x, const float* statistics, const float* gamma, const float* parameter_grad, const DY& dy, const DX& dx,
                             const Epilogue& epilogue) {
    constexpr int LANES = Order::LANES;
    constexpr float SHARE = 1.0f / COUNT;
    struct Channel {
        float mean[LANES], inverse[LANES], scale[LANES], dgamma[LANES], dbeta[LANES];
    };
    const auto prepare = [&](int c) {
        Channel channel;
        load_channels(statistics + c, channel.mean);
        load_channels(statistics + Order::C + c, channel.inverse);
        load_channels(gamma + c, channel.scale);
        load_channels(parameter_grad + c, channel.dgamma);
        load_channels(parameter_grad + Order::C + c, channel.dbeta);
#pragma unroll
        for (int j = 0; j < LANES; j++) {
            channel.inverse[j] = inverse_deviation(channel.inverse[j]);
            channel.scale[j] *= channel.inverse[j];
            channel.dgamma[j] *= SHARE;
            channel.dbeta[j] *= SHARE;
        }
        return channel;
    };
    each_of_channel<Order>(dx, epilogue, prepare, [&](Spot at, float (&values)[LANES], const Channel& channel) {
        float given[LANES];
        x.load(at, values);
        dy.load(at, given);
#pragma unroll
        for (int j = 0; j < LANES; j++) {
            const float normalized = (values[j] - channel.mean[j]) * channel.inverse[j];
            values[j] = channel.scale[j] * (given[j] - channel.dbeta[j] - normalized * channel.dgamma[j]);
        }
    });
}

DEVICE void update_running(float* mean, float* variance, const float* statistics, int channels, float momentum, float unbiased) {
    const int c = first_index();
    if (c >= channels) return;
    mean[c] = (1.0f - momentum) * mean[c] + momentum * statistics[c];
    variance[c] = (1.0f - momentum) * variance[c] + momentum * (statistics[channels + c] * unbiased);
}
