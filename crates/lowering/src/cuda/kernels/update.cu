// The optimizer's step, in place, for value i of a parameter. `hyper` as `graph::operators::update` lays it out.

enum Hyper { LEARNING_RATE, WEIGHT_DECAY, MOMENTUM, BETA2, EPSILON, CORRECTION1, CORRECTION2, CLIP_NORM, AVERAGE_DECAY };

// Blocks that sum the squares of one gradient.
constexpr int SQUARE_RANGE = 8192;

DEVICE void blend(float* average, int i, float w, const float* hyper) {
    const float kept = hyper[AVERAGE_DECAY];
    average[i] = kept * average[i] + (1.0f - kept) * w;
}

template <bool NESTEROV, bool DECAY, bool AVERAGE, bool CLIP>
DEVICE void sgd(int i, float* w, const float* g, const float* hyper, float* momentum, float* average, const float* clip, int n) {
    if (i >= n) return;
    const float lambda = DECAY ? hyper[WEIGHT_DECAY] : 0.0f, mu = hyper[MOMENTUM], factor = CLIP ? clip[0] : 1.0f;
    const float gradient = g[i] * factor + lambda * w[i];
    const float v = mu * momentum[i] + gradient;
    momentum[i] = v;
    const float stepped = w[i] - hyper[LEARNING_RATE] * (NESTEROV ? gradient + mu * v : v);
    w[i] = stepped;
    if (AVERAGE) blend(average, i, stepped, hyper);
}

template <bool DECOUPLED, bool DECAY, bool AVERAGE, bool CLIP>
DEVICE void adam(int i, float* w, const float* g, const float* hyper, float* first, float* second, float* average, const float* clip, int n) {
    if (i >= n) return;
    const float lambda = DECAY ? hyper[WEIGHT_DECAY] : 0.0f, rate = hyper[LEARNING_RATE], factor = CLIP ? clip[0] : 1.0f;
    const float joined = DECOUPLED ? 0.0f : lambda, shrink = DECOUPLED ? 1.0f - rate * lambda : 1.0f;
    const float beta1 = hyper[MOMENTUM], beta2 = hyper[BETA2];
    const float gradient = g[i] * factor + joined * w[i];
    const float m = beta1 * first[i] + (1.0f - beta1) * gradient;
    const float s = beta2 * second[i] + (1.0f - beta2) * gradient * gradient;
    first[i] = m;
    second[i] = s;
    const float root = sqrtf(s / hyper[CORRECTION2]) + hyper[EPSILON];
    const float stepped = w[i] * shrink - rate * (m / hyper[CORRECTION1]) / root;
    w[i] = stepped;
    if (AVERAGE) blend(average, i, stepped, hyper);
}

// Σ g² of each range of SQUARE_RANGE values.
DEVICE void squares(const float* g, float* partial, int n) {
    __shared__ float room[THREADS];
    const int begin = blockIdx.x * SQUARE_RANGE, end = min(begin + SQUARE_RANGE, n);
    float sum = 0.0f;
    for (int i = begin + threadIdx.x; i < end; i += THREADS) sum += g[i] * g[i];
    sum = block_sum(sum, room);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// min(1, limit / (norm + 1e-6)); one block. NaN stays NaN.
DEVICE void clip_factor(const float* partial, const float* hyper, float* factor, int n) {
    __shared__ double room[THREADS];
    double sum = 0.0;
    for (int i = threadIdx.x; i < n; i += THREADS) sum += (double)partial[i];
    sum = block_sum(sum, room);
    if (threadIdx.x == 0) {
        const double share = (double)hyper[CLIP_NORM] / (sqrt(sum) + 1e-6);
        factor[0] = share >= 1.0 ? 1.0f : (float)share;
    }
}
