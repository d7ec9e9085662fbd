// Pooling without padding. Gradients are gathered, not scattered: a spot of x adds what its windows give it, in their order.
//
// Order says how threads take the values that a kernel makes, Windows how they take those of y.

template <int N, int C, int H_, int W_, int WINDOW, int STEP>
struct Pool : Extents<N, C, H_, W_> {
    static constexpr int H = H_, W = W_, SIZE = WINDOW, STRIDE = STEP;
    static constexpr int OH = (H - SIZE) / STRIDE + 1, OW = (W - SIZE) / STRIDE + 1;

    // Spot of x that a window begins with.
    static DEVICE Spot corner(Spot window) { return Pool::spot(window.n, window.c, window.y * STRIDE, window.x * STRIDE); }
    static DEVICE Spot move(Spot at, int down, int right) {
        return {at.n, at.c, at.y + down, at.x + right, at.flat + down * W + right, at.plane};
    }

    // First and one past the last window along one side that hold position `at`, of `count`.
    static DEVICE int first_window(int at) { return at < SIZE ? 0 : (at - SIZE) / STRIDE + 1; }
    static DEVICE int end_window(int at, int count) {
        const int end = at / STRIDE + 1;
        return end < count ? end : count;
    }
};

// The largest value of a window and which of its values is the first such one; NaN over all numbers.
template <class P, int LANES, class X>
DEVICE void first_largest(const X& x, Spot window, float (&largest)[LANES], int (&first)[LANES]) {
    const Spot corner = P::corner(window);
    x.load(corner, largest);
#pragma unroll
    for (int j = 0; j < LANES; j++) first[j] = 0;
    for (int i = 1; i < P::SIZE * P::SIZE; i++) {
        float values[LANES];
        x.load(P::move(corner, i / P::SIZE, i % P::SIZE), values);
#pragma unroll
        for (int j = 0; j < LANES; j++) {
            if (values[j] > largest[j] || values[j] != values[j]) {
                largest[j] = values[j];
                first[j] = i;
            }
        }
    }
}

template <class P, class Order, class X, class Y, class Epilogue>
DEVICE void max_pool(const X& x, const Y& y, const Epilogue& epilogue) {
    each<Order>(y, epilogue, [&](Spot at, float (&values)[Order::LANES]) {
        int first[Order::LANES];
        first_largest<P>(x, at, values, first);
    });
}

// The same, which keeps which value of each window it is: `max_pool_grad` would search all windows that hold a spot.
template <class P, class Windows, class Order, class X, class Y, class Epilogue>
DEVICE void max_pool_with_positions(const X& x, unsigned short* positions, const Y& y, const Epilogue& epilogue) {
    constexpr int LANES = Order::LANES;
    each<Order>(y, epilogue, [&](Spot at, float (&values)[LANES]) {
        int first[LANES];
        first_largest<P>(x, at, values, first);
        unsigned short narrow[LANES];
#pragma unroll
        for (int j = 0; j < LANES; j++) narrow[j] = (unsigned short)first[j];
        Several<unsigned short, LANES>::store(positions + Windows::index(at), narrow);
    });
}

template <class P, class Windows, class Order, class DY, class DX, class Epilogue>
DEVICE void max_pool_grad(const unsigned short* positions, const DY& dy, const DX& dx, const Epilogue& epilogue) {
    constexpr int LANES = Order::LANES;
    each<Order>(dx, epilogue, [&](Spot at, float (&sums)[LANES]) {
        for (int oy = P::first_window(at.y); oy < P::end_window(at.y, P::OH); oy++) {
            for (int ox = P::first_window(at.x); ox < P::end_window(at.x, P::OW); ox++) {
                const Spot window = Windows::spot(at.n, at.c, oy, ox);
                const int here = (at.y - oy * P::STRIDE) * P::SIZE + at.x - ox * P::STRIDE;
                unsigned short first[LANES];
                Several<unsigned short, LANES>::load(positions + Windows::index(window), first);
                float given[LANES];
                dy.load(window, given);
#pragma unroll
                for (int j = 0; j < LANES; j++) sums[j] += (int)first[j] == here ? given[j] : 0.0f;
            }
        }
    });
}

template <class P, class Order, class X, class Y, class Epilogue>
DEVICE void average_pool(const X& x, const Y& y, const Epilogue& epilogue) {
    constexpr int LANES = Order::LANES;
    each<Order>(y, epilogue, [&](Spot at, float (&sums)[LANES]) {
        const Spot corner = P::corner(at);
        for (int i = 0; i < P::SIZE * P::SIZE; i++) {
            float values[LANES];
            x.load(P::move(corner, i / P::SIZE, i % P::SIZE), values);
#pragma unroll
            for (int j = 0; j < LANES; j++) sums[j] += values[j];
        }
#pragma unroll
        for (int j = 0; j < LANES; j++) sums[j] *= 1.0f / (P::SIZE * P::SIZE);
    });
}

template <class P, class Windows, class Order, class DY, class DX, class Epilogue>
DEVICE void average_pool_grad(const DY& dy, const DX& dx, const Epilogue& epilogue) {
    constexpr int LANES = Order::LANES;
    each<Order>(dx, epilogue, [&](Spot at, float (&sums)[LANES]) {
        for (int oy = P::first_window(at.y); oy < P::end_window(at.y, P::OH); oy++) {
            for (int ox = P::first_window(at.x); ox < P::end_window(at.x, P::OW); ox++) {
                float given[LANES];
                dy.load(Windows::spot(at.n, at.c, oy, ox), given);
#pragma unroll
                for (int j = 0; j < LANES; j++) sums[j] += given[j] * (1.0f / (P::SIZE * P::SIZE));
            }
        }
    });
}
