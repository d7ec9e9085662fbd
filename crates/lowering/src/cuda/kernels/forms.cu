// How values lie in memory, and the order in which threads take them.
//
// Planes are f32, [N, C, H, W] or of any other shape. Pixels are images as tensor cores want them, [N, ROWS, COLUMNS, C] in reduced precision,
// with a margin of zeros that convolutions see as their padding. Kernels are written once over both: a thread takes LANES channels of a spot,
// one value after the other along planes, or 16 bytes and more of each pixel.

// Where a value is: in [N, C, H, W], and as a position in planes, where the next channel is `plane` away.
struct Spot {
    int n, c, y, x, flat, plane;

    // Of a value that is known by its position alone.
    static DEVICE Spot only(int flat) { return {0, 0, 0, 0, flat, 1}; }
};

template <int N_, int C_, int H_, int W_>
struct Extents {
    static constexpr int N = N_, C = C_, H = H_, W = W_;

    static DEVICE Spot spot(int n, int c, int y, int x) { return {n, c, y, x, ((n * C + c) * H + y) * W + x, H * W}; }
};

// Each value of an image once, plane by plane.
template <int N, int C, int H, int W>
struct PlaneOrder : Extents<N, C, H, W> {
    static constexpr int LANES = 1, COUNT = N * C * H * W, RUN = 1, RUNS = COUNT;

    static DEVICE Spot first(int i) { return {i / W / H / C, i / W / H % C, i / W % H, i % W, i, H * W}; }
    static DEVICE bool inside(Spot) { return true; }
    // Of a run of values of one channel: the first, and how far apart they are.
    static DEVICE int run(int i) { return i; }
    static constexpr int RUN_STEP = 1;
    // Position in this order.
    static DEVICE int index(Spot at) { return at.flat; }
};

// Pixel by pixel, with those of a margin, which are not inside.
template <int N, int C, int H, int W, int LANES_, int TOP, int LEFT, int ROWS, int COLUMNS>
struct PixelOrder : Extents<N, C, H, W> {
    static constexpr int LANES = LANES_, CHUNKS = C / LANES, PIXELS = N * ROWS * COLUMNS, COUNT = PIXELS * CHUNKS;
    static constexpr int RUN = 4, RUN_STEP = CHUNKS, RUNS = (PIXELS + RUN - 1) / RUN * CHUNKS;

    static DEVICE Spot first(int i) {
        const int pixel = i / CHUNKS;
        return PixelOrder::spot(pixel / COLUMNS / ROWS, i % CHUNKS * LANES, pixel / COLUMNS % ROWS - TOP, pixel % COLUMNS - LEFT);
    }
    static DEVICE bool inside(Spot at) { return at.y >= 0 && at.y < H && at.x >= 0 && at.x < W; }
    static DEVICE int run(int i) { return i / CHUNKS * RUN * CHUNKS + i % CHUNKS; }
    static DEVICE int index(Spot at) { return ((at.n * ROWS + at.y + TOP) * COLUMNS + at.x + LEFT) * C + at.c; }
};

#ifndef EMULATED
// Hardware checks addresses by itself.
#define CHECK_ALIGNED(address, bytes)
#endif

// Values of 16 or 32 bits side by side, loaded and stored as whole words: the fewest instructions that there are.
template <class Value, int LANES>
struct Several {
    static constexpr int BYTES = sizeof(Value) * LANES, WORDS = BYTES / 4, HALVES = 4 / sizeof(Value);
    struct alignas(BYTES < 16 ? BYTES : 16) Words {
        unsigned words[WORDS];
    };

    static DEVICE void load(const Value* from, Value (&to)[LANES]) {
        CHECK_ALIGNED(from, BYTES < 16 ? BYTES : 16);
        if constexpr (BYTES < 4) {
            to[0] = *from;
        } else {
            const Words all = *reinterpret_cast<const Words*>(from);
#pragma unroll
            for (int j = 0; j < LANES; j++) to[j] = (Value)(all.words[j / HALVES] >> (j % HALVES * 16));
        }
    }
    static DEVICE void store(Value* to, const Value (&from)[LANES]) {
        CHECK_ALIGNED(to, BYTES < 16 ? BYTES : 16);
        if constexpr (BYTES < 4) {
            *to = from[0];
        } else {
            Words all;
#pragma unroll
            for (int i = 0; i < WORDS; i++) {
                all.words[i] = (unsigned)from[i * HALVES];
                if (HALVES == 2) all.words[i] |= (unsigned)from[i * HALVES + HALVES - 1] << 16;
            }
            *reinterpret_cast<Words*>(to) = all;
        }
    }
};

// A number of each of LANES channels, the first of which is a multiple of LANES.
template <int LANES>
DEVICE void load_channels(const float* from, float (&to)[LANES]) {
    unsigned words[LANES];
    Several<unsigned, LANES>::load(reinterpret_cast<const unsigned*>(from), words);
#pragma unroll
    for (int j = 0; j < LANES; j++) to[j] = __uint_as_float(words[j]);
}

struct Planes {
    const float* values;

    template <int LANES>
    DEVICE void load(Spot at, float (&to)[LANES]) const {
#pragma unroll
        for (int j = 0; j < LANES; j++) to[j] = values[at.flat + j * at.plane];
    }
};

struct PlanesOut {
    float* values;

    template <int LANES>
    DEVICE void store(Spot at, const float (&from)[LANES]) const {
#pragma unroll
        for (int j = 0; j < LANES; j++) values[at.flat + j * at.plane] = from[j];
    }
};

template <class Precision, int C, int TOP, int LEFT, int ROWS, int COLUMNS>
struct Pixels {
    using Value = typename Precision::Value;
    const Value* values;

    static DEVICE int place(Spot at) { return ((at.n * ROWS + at.y + TOP) * COLUMNS + at.x + LEFT) * C + at.c; }
    template <int LANES>
    DEVICE void load(Spot at, float (&to)[LANES]) const {
        Value loaded[LANES];
        Several<Value, LANES>::load(values + place(at), loaded);
#pragma unroll
        for (int j = 0; j < LANES; j++) to[j] = Precision::widen(loaded[j]);
    }
};

template <class Precision, int C, int TOP, int LEFT, int ROWS, int COLUMNS>
struct PixelsOut {
    using Value = typename Precision::Value;
    Value* values;

    template <int LANES>
    DEVICE void store(Spot at, const float (&from)[LANES]) const {
        Value rounded[LANES];
#pragma unroll
        for (int j = 0; j < LANES; j++) rounded[j] = Precision::round(from[j]);
        Several<Value, LANES>::store(values + Pixels<Precision, C, TOP, LEFT, ROWS, COLUMNS>::place(at), rounded);
    }
};

// Pixels of 32 bits, for values that are kept between two kernels of one operator.
struct Exact {
    using Value = unsigned;

    static DEVICE Value round(float value) { return __float_as_uint(value); }
    static DEVICE float widen(Value value) { return __uint_as_float(value); }
};

// No epilogue: the values go as they are. What an epilogue does to values before they are stored, it does here.
struct Keep {
    template <int LANES>
    DEVICE void operator()(float (&)[LANES], Spot) const {}
};

// y[at] = epilogue(value), for kernels whose positions are those of planes.
template <class Epilogue>
DEVICE void put(float* y, int at, float value, const Epilogue& epilogue) {
    float values[1] = {value};
    epilogue(values, Spot::only(at));
    y[at] = values[0];
}

// A kernel over all values of y: `make(at, values)` gives those of a spot. The margin becomes zeros.
template <class Order, class Y, class Epilogue, class Make>
DEVICE void each(const Y& y, const Epilogue& epilogue, const Make& make) {
    const int i = first_index();
    if (i >= Order::COUNT) return;
    const Spot at = Order::first(i);
    float values[Order::LANES] = {};
    if (Order::inside(at)) {
        make(at, values);
        epilogue(values, at);
    }
    y.store(at, values);
}

// The same where values depend on numbers of their channel: `prepare(c)` loads them, once for a run of pixels, and `make(at, values, prepared)`
// takes them.
template <class Order, class Y, class Epilogue, class Prepare, class Make>
DEVICE void each_of_channel(const Y& y, const Epilogue& epilogue, const Prepare& prepare, const Make& make) {
    const int i = first_index();
    if (i >= Order::RUNS) return;
    const int start = Order::run(i);
    const auto prepared = prepare(Order::first(start).c);
#pragma unroll
    for (int r = 0; r < Order::RUN; r++) {
        if (start + r * Order::RUN_STEP >= Order::COUNT) return;
        const Spot at = Order::first(start + r * Order::RUN_STEP);
        float values[Order::LANES] = {};
        if (Order::inside(at)) {
            make(at, values, prepared);
            epilogue(values, at);
        }
        y.store(at, values);
    }
}

// Zeros around images whose values another kernel writes.
template <class Order, class Y>
DEVICE void zero_margin(const Y& y) {
    const int i = first_index();
    if (i >= Order::COUNT) return;
    const Spot at = Order::first(i);
    const float zeros[Order::LANES] = {};
    if (!Order::inside(at)) y.store(at, zeros);
}
