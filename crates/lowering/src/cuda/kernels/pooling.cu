// Pooling without padding. Gradients are gathered, not scattered: a thread for each pixel of x adds what its windows give it, in their order.

template <int PLANES_, int HEIGHT, int WIDTH, int WINDOW, int STEP>
struct Pool {
    static constexpr int PLANES = PLANES_, H = HEIGHT, W = WIDTH, SIZE = WINDOW, STRIDE = STEP;
    static constexpr int OH = (H - SIZE) / STRIDE + 1, OW = (W - SIZE) / STRIDE + 1;

    // First and one past the last window along one side that hold position `at`, of `count`.
    static DEVICE int first_window(int at) { return at < SIZE ? 0 : (at - SIZE) / STRIDE + 1; }
    static DEVICE int end_window(int at, int count) {
        const int end = at / STRIDE + 1;
        return end < count ? end : count;
    }
};

// Position of the first largest value of the window at `corner`; NaN over all numbers.
template <class P>
DEVICE int first_largest(const float* x, int corner) {
    int best = corner;
    float largest = x[corner];
    for (int y = 0; y < P::SIZE; y++) {
        for (int i = 0; i < P::SIZE; i++) {
            if (y + i == 0) continue;
            const int at = corner + y * P::W + i;
            const float value = x[at];
            if (value > largest || value != value) {
                largest = value;
                best = at;
            }
        }
    }
    return best;
}

template <class P, class Epilogue>
DEVICE void max_pool(const float* x, float* y, Epilogue epilogue) {
    const int i = first_index();
    if (i >= P::PLANES * P::OH * P::OW) return;
    const int plane = i / (P::OH * P::OW), oy = i / P::OW % P::OH, ox = i % P::OW;
    y[i] = epilogue(x[first_largest<P>(x, (plane * P::H + oy * P::STRIDE) * P::W + ox * P::STRIDE)], i);
}

// Where the first largest value of each window lies, as the bits of a word, for `max_pool_grad`: else each pixel would search all windows that
// hold it. One thread for each window.
template <class P>
DEVICE void largest_positions(const float* x, float* positions) {
    const int i = first_index();
    if (i >= P::PLANES * P::OH * P::OW) return;
    const int plane = i / (P::OH * P::OW), oy = i / P::OW % P::OH, ox = i % P::OW;
    const int corner = (plane * P::H + oy * P::STRIDE) * P::W + ox * P::STRIDE;
    positions[i] = __uint_as_float((unsigned)first_largest<P>(x, corner));
}

template <class P, class Epilogue>
DEVICE void max_pool_grad(const float* positions, const float* dy, float* dx, Epilogue epilogue) {
    const int i = first_index();
    if (i >= P::PLANES * P::H * P::W) return;
    const int plane = i / (P::H * P::W), iy = i / P::W % P::H, ix = i % P::W;
    float sum = 0.0f;
    for (int oy = P::first_window(iy); oy < P::end_window(iy, P::OH); oy++) {
        for (int ox = P::first_window(ix); ox < P::end_window(ix, P::OW); ox++) {
            const int window = (plane * P::OH + oy) * P::OW + ox;
            if ((int)__float_as_uint(positions[window]) == i) sum += dy[window];
        }
    }
    dx[i] = epilogue(sum, i);
}

template <class P, class Epilogue>
DEVICE void average_pool(const float* x, float* y, Epilogue epilogue) {
    const int i = first_index();
    if (i >= P::PLANES * P::OH * P::OW) return;
    const int plane = i / (P::OH * P::OW), oy = i / P::OW % P::OH, ox = i % P::OW;
    const float* corner = x + (plane * P::H + oy * P::STRIDE) * P::W + ox * P::STRIDE;
    float sum = 0.0f;
    for (int wy = 0; wy < P::SIZE; wy++) {
        for (int wx = 0; wx < P::SIZE; wx++) sum += corner[wy * P::W + wx];
    }
    y[i] = epilogue(sum * (1.0f / (P::SIZE * P::SIZE)), i);
}

template <class P, class Epilogue>
DEVICE void average_pool_grad(const float* dy, float* dx, Epilogue epilogue) {
    const int i = first_index();
    if (i >= P::PLANES * P::H * P::W) return;
    const int plane = i / (P::H * P::W), iy = i / P::W % P::H, ix = i % P::W;
    float sum = 0.0f;
    for (int oy = P::first_window(iy); oy < P::end_window(iy, P::OH); oy++) {
        for (int ox = P::first_window(ix); ox < P::end_window(ix, P::OW); ox++) {
            sum += dy[(plane * P::OH + oy) * P::OW + ox] * (1.0f / (P::SIZE * P::SIZE));
        }
    }
    dx[i] = epilogue(sum, i);
}
