// Local response normalization (Krizhevsky et al. 2012, section 3.3), α on the sum itself. A thread takes one value; orders of pixels have
// neighbours in channel beside each other.

template <int CHANNELS, int NEIGHBOURS>
struct Responses {
    static constexpr int C = CHANNELS, SIZE = NEIGHBOURS;

    static DEVICE Spot move(Spot at, int channels) { return {at.n, at.c + channels, at.y, at.x, at.flat + channels * at.plane, at.plane}; }
};

template <class X>
DEVICE float value_at(const X& x, Spot at) {
    float value[1];
    x.load(at, value);
    return value[0];
}

// d = k + α Σ x², over the channels around; kept for the gradient.
template <class S, class X>
DEVICE float denominator(const X& x, Spot at, float alpha, float k) {
    const int begin = max(at.c - S::SIZE / 2, 0), end = min(at.c + (S::SIZE + 1) / 2, S::C);
    float squares = 0.0f;
    for (int c = begin; c < end; c++) {
        const float value = value_at(x, S::move(at, c - at.c));
        squares += value * value;
    }
    return k + alpha * squares;
}

template <class S, class Order, class X, class Y, class Epilogue>
DEVICE void local_response(const X& x, const Y& y, float alpha, float beta, float k, const Epilogue& epilogue) {
    each<Order>(y, epilogue, [&](Spot at, float (&values)[1]) {
        values[0] = value_at(x, at) * powf(denominator<S>(x, at, alpha, k), -beta);
    });
}

template <class S, class Order, class X, class D>
DEVICE void denominators(const X& x, const D& d, float alpha, float k) {
    each<Order>(d, Keep{}, [&](Spot at, float (&values)[1]) { values[0] = denominator<S>(x, at, alpha, k); });
}

// dx = dy·d^−β − 2αβ·x·Σ dy·x·d^(−β−1), over the channels whose sums hold this one.
template <class S, class Order, class X, class D, class DY, class DX, class Epilogue>
DEVICE void local_response_grad(const X& x, const D& d, const DY& dy, const DX& dx, float alpha, float beta, const Epilogue& epilogue) {
    each<Order>(dx, epilogue, [&](Spot at, float (&values)[1]) {
        const int begin = max(at.c + 1 - (S::SIZE + 1) / 2, 0), end = min(at.c + S::SIZE / 2 + 1, S::C);
        float cross = 0.0f;
        for (int c = begin; c < end; c++) {
            const Spot there = S::move(at, c - at.c);
            cross += value_at(dy, there) * value_at(x, there) * powf(value_at(d, there), -beta - 1.0f);
        }
        values[0] = value_at(dy, at) * powf(value_at(d, at), -beta) - 2.0f * alpha * beta * value_at(x, at) * cross;
    });
}
