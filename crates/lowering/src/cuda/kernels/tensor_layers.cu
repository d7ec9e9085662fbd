// Layers as products of packed operands (`packing.cu`, `tensor.cu`). Each operand is packed once in a step: x and w serve the forward pass and a
// gradient, dy serves both gradients.

// y [ROWS, OUT] from x [ROWS, IN_P], w [OUT_P, IN_P], b [OUT]; IN_P and OUT_P are IN and OUT with zeros up to a multiple of 8.
template <class Precision, int ROWS, int IN, int IN_P, int OUT, int OUT_P, int PARTS>
struct PackedLinearForward {
    static constexpr int M = ROWS, N = OUT, K = IN_P, GROUPS = 1, SPLITS = PARTS, M_READ = M, N_READ = N;
    static constexpr bool A_ALONG_K = true, B_ALONG_K = true;
    const typename Precision::Value* a;
    const typename Precision::Value* b;
    const float* bias;
    float* y;

    DEVICE int a_row(int, int m) const { return m * IN_P; }
    DEVICE int a_step(int k) const { return k; }
    DEVICE int b_column(int, int n) const { return n * IN_P; }
    DEVICE int b_step(int k) const { return k; }
    template <class Epilogue>
    DEVICE void write(int, int m, int n, float sum, Epilogue epilogue) const {
        const int at = m * OUT + n;
        y[at] = epilogue(sum + bias[n], at);
    }
};

// dx [ROWS, IN] = dy [ROWS, OUT_P] w [OUT_P, IN_P].
template <class Precision, int ROWS, int IN, int IN_P, int OUT, int OUT_P, int PARTS>
struct PackedLinearInputGrad {
    static constexpr int M = ROWS, N = IN, K = OUT_P, GROUPS = 1, SPLITS = PARTS, M_READ = M, N_READ = IN_P;
    static constexpr bool A_ALONG_K = true, B_ALONG_K = false;
    const typename Precision::Value* b;
    const typename Precision::Value* a;
    float* dx;

    DEVICE int a_row(int, int m) const { return m * OUT_P; }
    DEVICE int a_step(int k) const { return k; }
    DEVICE int b_column(int, int n) const { return n; }
    DEVICE int b_step(int k) const { return k * IN_P; }
    template <class Epilogue>
    DEVICE void write(int, int m, int n, float sum, Epilogue epilogue) const {
        const int at = m * IN + n;
        dx[at] = epilogue(sum, at);
    }
};

// dw [OUT, IN] = dyᵀ x.
template <class Precision, int ROWS, int IN, int IN_P, int OUT, int OUT_P, int PARTS>
struct PackedLinearWeightGrad {
    static constexpr int M = OUT, N = IN, K = ROWS, GROUPS = 1, SPLITS = PARTS, M_READ = OUT_P, N_READ = IN_P;
    static constexpr bool A_ALONG_K = false, B_ALONG_K = false;
    const typename Precision::Value* b;
    const typename Precision::Value* a;
    float* dw;

    DEVICE int a_row(int, int m) const { return m; }
    DEVICE int a_step(int k) const { return k * OUT_P; }
    DEVICE int b_column(int, int n) const { return n; }
    DEVICE int b_step(int k) const { return k * IN_P; }
    template <class Epilogue>
    DEVICE void write(int, int m, int n, float sum, Epilogue epilogue) const {
        const int at = m * IN + n;
        dw[at] = epilogue(sum, at);
    }
};

// A convolution over blocks: x [N, BH, BW, G, CP], w [G · OP, TH, TW, CP], y or dy [N, DH, DW, G, OP] with margins of zeros, so that
// (MARGIN_Y, MARGIN_X) is the first output. Its windows have TH × TW blocks. dx is wanted for IH × IW blocks from (FIRST_Y, FIRST_X) on.
template <class S_, int CHANNELS, int OUTPUTS, int TAPS_HEIGHT, int TAPS_WIDTH, int HEIGHT, int WIDTH, int OUT_HEIGHT, int OUT_WIDTH,
          int MARGIN_TOP, int MARGIN_LEFT, int FIRST_ROW, int FIRST_COLUMN, int ROWS, int COLUMNS>
struct Blocks {
    using S = S_;
    static constexpr int CP = CHANNELS, OP = OUTPUTS, TH = TAPS_HEIGHT, TW = TAPS_WIDTH, BH = HEIGHT, BW = WIDTH, DH = OUT_HEIGHT, DW = OUT_WIDTH;
    static constexpr int MARGIN_Y = MARGIN_TOP, MARGIN_X = MARGIN_LEFT, FIRST_Y = FIRST_ROW, FIRST_X = FIRST_COLUMN, IH = ROWS, IW = COLUMNS;
    // Channels of a block, without the zeros.
    static constexpr int USED = S::STRIDE * S::STRIDE * S::CG;

    static DEVICE int x(int image, int by, int bx) { return ((image * BH + by) * BW + bx) * S::G * CP; }
    static DEVICE int dy(int image, int oy, int ox) { return ((image * DH + oy + MARGIN_Y) * DW + ox + MARGIN_X) * S::G * OP; }
};

// M: output channels of a group; N: output pixels of all images; K: channels of all taps.
template <class Precision, class L, int PARTS>
struct PackedConvolutionForward {
    using S = typename L::S;
    static constexpr int M = S::OG, N = S::N * S::P, K = L::TH * L::TW * L::CP, GROUPS = S::G, SPLITS = PARTS, M_READ = M, N_READ = N;
    static constexpr bool A_ALONG_K = true, B_ALONG_K = true;
    const typename Precision::Value* b;
    const typename Precision::Value* a;
    const float* bias;
    float* y;

    DEVICE int a_row(int group, int m) const { return (group * L::OP + m) * K; }
    DEVICE int a_step(int k) const { return k; }
    DEVICE int b_column(int group, int n) const {
        const int image = n / S::P, pixel = n % S::P;
        return L::x(image, pixel / S::OW, pixel % S::OW) + group * L::CP;
    }
    DEVICE int b_step(int k) const {
        const int tap = k / L::CP, channel = k % L::CP;
        return L::x(0, tap / L::TW, tap % L::TW) + channel;
    }
    template <class Epilogue>
    DEVICE void write(int group, int m, int n, float sum, Epilogue epilogue) const {
        const int o = group * M + m, image = n / S::P, pixel = n % S::P;
        const int at = (image * S::O + o) * S::P + pixel;
        y[at] = epilogue(sum + bias[o], at);
    }
};

// M: channels of a block; N: blocks of all images that hold pixels of x; K: output channels of all taps.
template <class Precision, class L, int PARTS>
struct PackedConvolutionInputGrad {
    using S = typename L::S;
    static constexpr int M = L::USED, N = S::N * L::IH * L::IW, K = L::TH * L::TW * L::OP, GROUPS = S::G, SPLITS = PARTS;
    static constexpr int M_READ = L::CP, N_READ = N, TAPS = L::TH * L::TW;
    static constexpr bool A_ALONG_K = false, B_ALONG_K = true;
    const typename Precision::Value* a;
    const typename Precision::Value* b;
    float* dx;

    DEVICE int a_row(int group, int m) const { return group * L::OP * TAPS * L::CP + m; }
    DEVICE int a_step(int k) const {
        const int tap = k / L::OP, o = k % L::OP;
        return (o * TAPS + tap) * L::CP;
    }
    DEVICE int b_column(int group, int n) const {
        const int image = n / (L::IH * L::IW), block = n % (L::IH * L::IW);
        return L::dy(image, block / L::IW + L::FIRST_Y, block % L::IW + L::FIRST_X) + group * L::OP;
    }
    DEVICE int b_step(int k) const {
        const int tap = k / L::OP, o = k % L::OP;
        return o - (tap / L::TW * L::DW + tap % L::TW) * S::G * L::OP;
    }
    template <class Epilogue>
    DEVICE void write(int group, int m, int n, float sum, Epilogue epilogue) const {
        const int image = n / (L::IH * L::IW), block = n % (L::IH * L::IW), tap = m / S::CG, c = m % S::CG;
        const int iy = (block / L::IW + L::FIRST_Y) * S::STRIDE - S::PAD + tap / S::STRIDE;
        const int ix = (block % L::IW + L::FIRST_X) * S::STRIDE - S::PAD + tap % S::STRIDE;
        if (iy < 0 || iy >= S::H || ix < 0 || ix >= S::W) return;
        const int at = ((image * S::C + group * S::CG + c) * S::H + iy) * S::W + ix;
        dx[at] = epilogue(sum, at);
    }
};

// M: output channels of a group; N: channels of all taps; K: output pixels of all images.
template <class Precision, class L, int PARTS>
struct PackedConvolutionWeightGrad {
    using S = typename L::S;
    static constexpr int M = S::OG, N = L::TH * L::TW * L::CP, K = S::N * S::P, GROUPS = S::G, SPLITS = PARTS, M_READ = L::OP, N_READ = N;
    static constexpr bool A_ALONG_K = false, B_ALONG_K = false;
    const typename Precision::Value* b;
    const typename Precision::Value* a;
    float* dw;

    DEVICE int a_row(int group, int m) const { return group * L::OP + m; }
    DEVICE int a_step(int k) const {
        const int image = k / S::P, pixel = k % S::P;
        return L::dy(image, pixel / S::OW, pixel % S::OW);
    }
    DEVICE int b_column(int group, int n) const {
        const int tap = n / L::CP, channel = n % L::CP;
        return L::x(0, tap / L::TW, tap % L::TW) + group * L::CP + channel;
    }
    DEVICE int b_step(int k) const {
        const int image = k / S::P, pixel = k % S::P;
        return L::x(image, pixel / S::OW, pixel % S::OW);
    }
    template <class Epilogue>
    DEVICE void write(int group, int m, int n, float sum, Epilogue epilogue) const {
        const int tap = n / L::CP, channel = n % L::CP, within = channel / S::CG, c = channel % S::CG;
        const int ky = tap / L::TW * S::STRIDE + within / S::STRIDE, kx = tap % L::TW * S::STRIDE + within % S::STRIDE;
        if (channel >= L::USED || ky >= S::KH || kx >= S::KW) return;
        const int at = ((group * M + m) * S::CG + c) * S::TAPS + ky * S::KW + kx;
        dw[at] = epilogue(sum, at);
    }
};
