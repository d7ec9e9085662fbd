// Values one by one: fills, copies, sums, nonlinearities, dropout. All but the first two are also epilogues of other kernels.

enum Nonlinearity { RELU, TANH, SIGMOID };

// Written so that NaN stays NaN.
template <Nonlinearity KIND>
DEVICE float activate(float x) {
    if (KIND == RELU) return x <= 0.0f ? 0.0f : x;
    if (KIND == TANH) return tanhf(x);
    return 1.0f / (1.0f + expf(-x));
}

// dx from y = f(x) and dy.
template <Nonlinearity KIND>
DEVICE float activate_gradient(float y, float dy) {
    if (KIND == RELU) return y <= 0.0f ? 0.0f : dy;
    if (KIND == TANH) return dy * (1.0f - y * y);
    return dy * y * (1.0f - y);
}

// Wellons' lowbias32, as the reference has it.
DEVICE unsigned mix(unsigned h) {
    h ^= h >> 16;
    h *= 0x7feb352du;
    h ^= h >> 15;
    h *= 0x846ca68bu;
    return h ^ (h >> 16);
}

DEVICE unsigned key_word(unsigned seed, unsigned layer, float a, float b) {
    return mix(mix(seed ^ (layer * 0x9e3779b9u)) ^ (mix((unsigned)a) + mix((unsigned)b ^ 0x5bd1e995u)));
}

// The two words of a step's key for a layer: read and mixed once by each thread.
struct DropWords {
    unsigned first, second;

    DEVICE DropWords(const float* key, unsigned layer)
        : first(key_word(0x243f6a88u, layer, key[0], key[1])), second(key_word(0x85a308d3u, layer, key[2], key[3])) {}
};

// Drops values or scales them up (Srivastava et al. 2014), by their positions in planes.
template <int LANES>
DEVICE void drop(float (&values)[LANES], Spot at, DropWords words, unsigned threshold, float scale) {
#pragma unroll
    for (int j = 0; j < LANES; j++) {
        const bool keeps = mix(mix((unsigned)(at.flat + j * at.plane) ^ words.first) + words.second) >= threshold;
        values[j] = keeps ? values[j] * scale : 0.0f;
    }
}

DEVICE void fill(float* y, int n, float value) {
    const int i = first_index();
    if (i < n) y[i] = value;
}

// y = epilogue(x).
template <class Epilogue>
DEVICE void map(const float* x, float* y, int n, const Epilogue& epilogue) {
    const int i = first_index();
    if (i < n) put(y, i, x[i], epilogue);
}

// The same of images, from one form to another.
template <class Order, class X, class Y, class Epilogue>
DEVICE void map_image(const X& x, const Y& y, const Epilogue& epilogue) {
    each<Order>(y, epilogue, [&](Spot at, float (&values)[Order::LANES]) { x.load(at, values); });
}
