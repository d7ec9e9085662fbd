// Layers as products of operands in reduced precision (`tensor.cu`): images as they lie (`forms.cu`), all else in copies (`packing.cu`), each made
// once in a step: x and w serve the forward pass and a gradient, dy serves both gradients.

// y [ROWS, OUT] from x [ROWS, IN_P], w [OUT_P, IN_P], b [OUT]; IN_P and OUT_P are IN and OUT with zeros up to a multiple of 8.
template <class Precision, int ROWS, int IN, int IN_P, int OUT, int OUT_P, int PARTS>
struct PackedLinearForward {
    static constexpr int M = ROWS, N = OUT, K = IN_P, GROUPS = 1, SPLITS = PARTS, M_READ = M, N_READ = N;
    static constexpr bool A_ALONG_K = true, B_ALONG_K = true, PAIRS = false;
    const typename Precision::Value* a;
    const typename Precision::Value* b;
    const float* bias;
    PlanesOut y;

    DEVICE int a_row(int, int m) const { return m * IN_P; }
    DEVICE int a_step(int k) const { return k; }
    DEVICE int b_column(int, int n) const { return n * IN_P; }
    DEVICE int b_step(int k) const { return k; }
    template <class Epilogue>
    DEVICE void write(int, int m, int n, float sum, const Epilogue& epilogue) const {
        const int at = m * OUT + n;
        put(y.values, at, sum + bias[n], epilogue);
    }
};

// dx [ROWS, IN] = dy [ROWS, OUT_P] w [OUT_P, IN_P].
template <class Precision, int ROWS, int IN, int IN_P, int OUT, int OUT_P, int PARTS>
struct PackedLinearInputGrad {
    static constexpr int M = ROWS, N = IN, K = OUT_P, GROUPS = 1, SPLITS = PARTS, M_READ = M, N_READ = IN_P;
    static constexpr bool A_ALONG_K = true, B_ALONG_K = false, PAIRS = false;
    const typename Precision::Value* b;
    const typename Precision::Value* a;
    PlanesOut dx;

    DEVICE int a_row(int, int m) const { return m * OUT_P; }
    DEVICE int a_step(int k) const { return k; }
    DEVICE int b_column(int, int n) const { return n; }
    DEVICE int b_step(int k) const { return k * IN_P; }
    template <class Epilogue>
    DEVICE void write(int, int m, int n, float sum, const Epilogue& epilogue) const {
        const int at = m * IN + n;
        put(dx.values, at, sum, epilogue);
    }
};

// dw [OUT, IN] = dyᵀ x.
template <class Precision, int ROWS, int IN, int IN_P, int OUT, int OUT_P, int PARTS>
struct PackedLinearWeightGrad {
    static constexpr int M = OUT, N = IN, K = ROWS, GROUPS = 1, SPLITS = PARTS, M_READ = OUT_P, N_READ = IN_P;
    static constexpr bool A_ALONG_K = false, B_ALONG_K = false, PAIRS = false;
    const typename Precision::Value* b;
    const typename Precision::Value* a;
    PlanesOut dw;

    DEVICE int a_row(int, int m) const { return m; }
    DEVICE int a_step(int k) const { return k * OUT_P; }
    DEVICE int b_column(int, int n) const { return n; }
    DEVICE int b_step(int k) const { return k * IN_P; }
    template <class Epilogue>
    DEVICE void write(int, int m, int n, float sum, const Epilogue& epilogue) const {
        const int at = m * IN + n;
        put(dw.values, at, sum, epilogue);
    }
};

// Where rows and columns of images lie in memory: ROWS × COLUMNS of them, the first of which are TOP and LEFT further on than the number tells.
template <int TOP_, int LEFT_, int ROWS_, int COLUMNS_>
struct Frame {
    static constexpr int TOP = TOP_, LEFT = LEFT_, ROWS = ROWS_, COLUMNS = COLUMNS_;

    static DEVICE int pixel(int image, int y, int x) { return (image * ROWS + y + TOP) * COLUMNS + x + LEFT; }
};

// A convolution over blocks of a whole stride each: x [N, block rows, block columns, G, CP] in frame X, w [G · OP, TH, TW, CP], y or
// dy [N, rows, columns, G, OP] in frame Y, with zeros around. Its windows have TH × TW blocks. dx is wanted for IH × IW blocks from (FIRST_Y, FIRST_X) on.
template <class S_, class X_, class Y_, int CHANNELS, int OUTPUTS, int TAPS_HEIGHT, int TAPS_WIDTH, int FIRST_ROW, int FIRST_COLUMN, int ROWS,
          int COLUMNS>
struct Blocks {
    using S = S_;
    using X = X_;
    using Y = Y_;
    static constexpr int CP = CHANNELS, OP = OUTPUTS, TH = TAPS_HEIGHT, TW = TAPS_WIDTH;
    static constexpr int FIRST_Y = FIRST_ROW, FIRST_X = FIRST_COLUMN, IH = ROWS, IW = COLUMNS;
    // Channels of a block, without the zeros.
    static constexpr int USED = S::STRIDE * S::STRIDE * S::CG;

    static DEVICE int x(int image, int by, int bx) { return X::pixel(image, by, bx) * S::G * CP; }
    static DEVICE int dy(int image, int oy, int ox) { return Y::pixel(image, oy, ox) * S::G * OP; }
    static DEVICE int x_step(int tap) { return (tap / TW * X::COLUMNS + tap % TW) * S::G * CP; }
    static DEVICE int dy_step(int tap) { return (tap / TW * Y::COLUMNS + tap % TW) * S::G * OP; }
};

// M: output pixels of all images; N: output channels of a group; K: channels of all taps. Neighbours in N are neighbours in y's pixels.
template <class Precision, class L, class Y, int PARTS>
struct PackedConvolutionForward {
    using S = typename L::S;
    static constexpr int M = S::N * S::P, N = S::OG, K = L::TH * L::TW * L::CP, GROUPS = S::G, SPLITS = PARTS, M_READ = M, N_READ = N;
    static constexpr bool A_ALONG_K = true, B_ALONG_K = true, PAIRS = S::OG % 2 == 0;
    const typename Precision::Value* a;
    const typename Precision::Value* b;
    const float* bias;
    Y y;

    DEVICE int a_row(int group, int m) const {
        const int image = m / S::P, pixel = m % S::P;
        return L::x(image, pixel / S::OW, pixel % S::OW) + group * L::CP;
    }
    DEVICE int a_step(int k) const { return L::x_step(k / L::CP) + k % L::CP; }
    DEVICE int b_column(int group, int n) const { return (group * L::OP + n) * K; }
    DEVICE int b_step(int k) const { return k; }
    template <int LANES, class Epilogue>
    DEVICE void write_lanes(int group, int m, int n, float (&sums)[LANES], const Epilogue& epilogue) const {
        const int image = m / S::P, pixel = m % S::P;
        const Spot at = Extents<S::N, S::O, S::OH, S::OW>::spot(image, group * N + n, pixel / S::OW, pixel % S::OW);
#pragma unroll
        for (int j = 0; j < LANES; j++) sums[j] += bias[at.c + j];
        epilogue(sums, at);
        y.store(at, sums);
    }
    template <class Epilogue>
    DEVICE void write(int group, int m, int n, float sum, const Epilogue& epilogue) const {
        float sums[1] = {sum};
        write_lanes(group, m, n, sums, epilogue);
    }
};

// M: blocks of all images that hold pixels of x; N: channels of a block; K: output channels of all taps.
template <class Precision, class L, class DX, int PARTS>
struct PackedConvolutionInputGrad {
    using S = typename L::S;
    static constexpr int M = S::N * L::IH * L::IW, N = L::USED, K = L::TH * L::TW * L::OP, GROUPS = S::G, SPLITS = PARTS;
    static constexpr int M_READ = M, N_READ = L::CP, TAPS = L::TH * L::TW;
    static constexpr bool A_ALONG_K = true, B_ALONG_K = false, PAIRS = S::CG % 2 == 0;
    const typename Precision::Value* b;
    const typename Precision::Value* a;
    DX dx;

    DEVICE int a_row(int group, int m) const {
        const int image = m / (L::IH * L::IW), block = m % (L::IH * L::IW);
        return L::dy(image, block / L::IW + L::FIRST_Y, block % L::IW + L::FIRST_X) + group * L::OP;
    }
    DEVICE int a_step(int k) const { return k % L::OP - L::dy_step(k / L::OP); }
    DEVICE int b_column(int group, int n) const { return group * L::OP * TAPS * L::CP + n; }
    DEVICE int b_step(int k) const {
        const int tap = k / L::OP, o = k % L::OP;
        return (o * TAPS + tap) * L::CP;
    }
    template <int LANES, class Epilogue>
    DEVICE void write_lanes(int group, int m, int n, float (&sums)[LANES], const Epilogue& epilogue) const {
        const int image = m / (L::IH * L::IW), block = m % (L::IH * L::IW), tap = n / S::CG, c = n % S::CG;
        const int iy = (block / L::IW + L::FIRST_Y) * S::STRIDE - S::PAD + tap / S::STRIDE;
        const int ix = (block % L::IW + L::FIRST_X) * S::STRIDE - S::PAD + tap % S::STRIDE;
        if (iy < 0 || iy >= S::H || ix < 0 || ix >= S::W) return;
        const Spot at = Extents<S::N, S::C, S::H, S::W>::spot(image, group * S::CG + c, iy, ix);
        epilogue(sums, at);
        dx.store(at, sums);
    }
    template <class Epilogue>
    DEVICE void write(int group, int m, int n, float sum, const Epilogue& epilogue) const {
        float sums[1] = {sum};
        write_lanes(group, m, n, sums, epilogue);
    }
};

// M: output channels of a group; N: channels of all taps; K: output pixels of all images.
template <class Precision, class L, int PARTS>
struct PackedConvolutionWeightGrad {
    using S = typename L::S;
    static constexpr int M = S::OG, N = L::TH * L::TW * L::CP, K = S::N * S::P, GROUPS = S::G, SPLITS = PARTS, M_READ = L::OP, N_READ = N;
    static constexpr bool A_ALONG_K = false, B_ALONG_K = false, PAIRS = false;
    const typename Precision::Value* b;
    const typename Precision::Value* a;
    PlanesOut dw;

    DEVICE int a_row(int group, int m) const { return group * L::OP + m; }
    DEVICE int a_step(int k) const {
        const int image = k / S::P, pixel = k % S::P;
        return L::dy(image, pixel / S::OW, pixel % S::OW);
    }
    DEVICE int b_column(int group, int n) const { return L::x_step(n / L::CP) + group * L::CP + n % L::CP; }
    DEVICE int b_step(int k) const {
        const int image = k / S::P, pixel = k % S::P;
        return L::x(image, pixel / S::OW, pixel % S::OW);
    }
    template <class Epilogue>
    DEVICE void write(int group, int m, int n, float sum, const Epilogue& epilogue) const {
        const int tap = n / L::CP, channel = n % L::CP, within = channel / S::CG, c = channel % S::CG;
        const int ky = tap / L::TW * S::STRIDE + within / S::STRIDE, kx = tap % L::TW * S::STRIDE + within % S::STRIDE;
        if (channel >= L::USED || ky >= S::KH || kx >= S::KW) return;
        const int at = ((group * M + m) * S::CG + c) * S::TAPS + ky * S::KW + kx;
        put(dw.values, at, sum, epilogue);
    }
};
