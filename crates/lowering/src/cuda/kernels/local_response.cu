// Local response normalization (Krizhevsky et al. 2012, section 3.3), α on the sum itself.

template <int IMAGES, int CHANNELS, int PLANE, int NEIGHBOURS>
struct Responses {
    static constexpr int N = IMAGES, C = CHANNELS, P = PLANE, SIZE = NEIGHBOURS;
};

// d = k + α Σ x², over the channels around; kept for the gradient.
template <class S>
DEVICE float denominator(const float* x, int i, float alpha, float k) {
    const int c = i / S::P % S::C;
    const int begin = max(c - S::SIZE / 2, 0), end = min(c + (S::SIZE + 1) / 2, S::C);
    float squares = 0.0f;
    for (int j = begin; j < end; j++) {
        const float value = x[i + (j - c) * S::P];
        squares += value * value;
    }
    return k + alpha * squares;
}

template <class S, class Epilogue>
DEVICE void local_response(const float* x, float* y, float alpha, float beta, float k, Epilogue epilogue) {
    const int i = first_index();
    if (i >= S::N * S::C * S::P) return;
    y[i] = epilogue(x[i] * powf(denominator<S>(x, i, alpha, k), -beta), i);
}

template <class S>
DEVICE void denominators(const float* x, float* d, float alpha, float k) {
    const int i = first_index();
    if (i < S::N * S::C * S::P) d[i] = denominator<S>(x, i, alpha, k);
}

// dx = dy·d^−β − 2αβ·x·Σ dy·x·d^(−β−1), over the channels whose sums hold this one.
template <class S, class Epilogue>
DEVICE void local_response_grad(const float* x, const float* d, const float* dy, float* dx, float alpha, float beta, Epilogue epilogue) {
    const int i = first_index();
    if (i >= S::N * S::C * S::P) return;
    const int c = i / S::P % S::C;
    const int begin = max(c + 1 - (S::SIZE + 1) / 2, 0), end = min(c + S::SIZE / 2 + 1, S::C);
    float cross = 0.0f;
    for (int j = begin; j < end; j++) {
        const int at = i + (j - c) * S::P;
        cross += dy[at] * x[at] * powf(d[at], -beta - 1.0f);
    }
    dx[i] = epilogue(dy[i] * powf(d[i], -beta) - 2.0f * alpha * beta * x[i] * cross, i);
}
