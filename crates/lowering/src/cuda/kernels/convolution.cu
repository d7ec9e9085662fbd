// Convolutions and their gradients as implicit products: no matrix of windows is ever stored, each element is looked up where it is needed.

// x [N, C, H, W], w [O, C/G, KH, KW], y [N, O, OH, OW].
template <int IMAGES, int CHANNELS, int HEIGHT, int WIDTH, int OUTPUTS, int OUT_HEIGHT, int OUT_WIDTH, int KERNEL_HEIGHT, int KERNEL_WIDTH,
          int STEP, int PADDING, int TOWERS>
struct Windows {
    static constexpr int N = IMAGES, C = CHANNELS, H = HEIGHT, W = WIDTH, O = OUTPUTS, OH = OUT_HEIGHT, OW = OUT_WIDTH;
    static constexpr int KH = KERNEL_HEIGHT, KW = KERNEL_WIDTH, STRIDE = STEP, PAD = PADDING, G = TOWERS;
    // Channels of a group, pixels of a plane, taps of a window.
    static constexpr int CG = C / G, OG = O / G, P = OH * OW, TAPS = KH * KW;
};

// A place in an image: where its first channel begins, and a pixel that may lie outside.
struct Pixel {
    int base, y, x;
};

// A channel's offset and a tap of the window.
struct Tap {
    int offset, y, x;
};

// M: output channels of a group; N: output pixels of all images; K: taps of all input channels of the group.
template <class S, int PARTS>
struct ConvolutionForward {
    static constexpr int M = S::OG, N = S::N * S::P, K = S::CG * S::TAPS, GROUPS = S::G, SPLITS = PARTS;
    static constexpr bool A_ALONG_K = true, B_ALONG_K = false;
    using Row = int;
    using Step = Tap;
    using Column = Pixel;
    const float* x;
    const float* w;
    const float* bias;
    float* y;

    DEVICE Row row(int group, int m) const { return (group * M + m) * K; }
    DEVICE Column column(int group, int n) const {
        const int image = n / S::P, pixel = n % S::P;
        const int iy = pixel / S::OW * S::STRIDE - S::PAD, ix = pixel % S::OW * S::STRIDE - S::PAD;
        return {(image * S::C + group * S::CG) * S::H * S::W, iy, ix};
    }
    DEVICE Step step(int k) const {
        const int c = k / S::TAPS, tap = k % S::TAPS;
        return {c, tap / S::KW, tap % S::KW};
    }
    DEVICE float a(Row row, Step k) const { return w[row + k.offset * S::TAPS + k.y * S::KW + k.x]; }
    DEVICE float b(Step k, Column column) const {
        const int iy = column.y + k.y, ix = column.x + k.x;
        const bool inside = iy >= 0 && iy < S::H && ix >= 0 && ix < S::W;
        return inside ? x[column.base + (k.offset * S::H + iy) * S::W + ix] : 0.0f;
    }
    template <class Epilogue>
    DEVICE void write(int group, int m, int n, float sum, const Epilogue& epilogue) const {
        const int o = group * M + m, image = n / S::P, pixel = n % S::P;
        const int at = (image * S::O + o) * S::P + pixel;
        put(y, at, sum + bias[o], epilogue);
    }
};

// M: input channels of a group; N: input pixels of all images; K: taps of all output channels of the group.
template <class S, int PARTS>
struct ConvolutionInputGrad {
    static constexpr int M = S::CG, N = S::N * S::H * S::W, K = S::OG * S::TAPS, GROUPS = S::G, SPLITS = PARTS;
    static constexpr bool A_ALONG_K = true, B_ALONG_K = false;
    using Row = int;
    using Step = Tap;
    using Column = Pixel;
    const float* w;
    const float* dy;
    float* dx;

    DEVICE Row row(int group, int m) const { return (group * S::OG * S::CG + m) * S::TAPS; }
    DEVICE Column column(int group, int n) const {
        const int image = n / (S::H * S::W), pixel = n % (S::H * S::W);
        return {(image * S::O + group * S::OG) * S::P, pixel / S::W + S::PAD, pixel % S::W + S::PAD};
    }
    DEVICE Step step(int k) const {
        const int o = k / S::TAPS, tap = k % S::TAPS;
        return {o, tap / S::KW, tap % S::KW};
    }
    DEVICE float a(Row row, Step k) const { return w[row + k.offset * S::CG * S::TAPS + k.y * S::KW + k.x]; }
    DEVICE float b(Step k, Column column) const {
        const int py = column.y - k.y, px = column.x - k.x;
        if (py < 0 || px < 0 || py % S::STRIDE != 0 || px % S::STRIDE != 0) return 0.0f;
        const int oy = py / S::STRIDE, ox = px / S::STRIDE;
        return oy < S::OH && ox < S::OW ? dy[column.base + (k.offset * S::OH + oy) * S::OW + ox] : 0.0f;
    }
    template <class Epilogue>
    DEVICE void write(int group, int m, int n, float sum, const Epilogue& epilogue) const {
        const int image = n / (S::H * S::W), pixel = n % (S::H * S::W);
        const int at = (image * S::C + group * M + m) * S::H * S::W + pixel;
        put(dx, at, sum, epilogue);
    }
};

// M: output channels of a group; N: taps of all input channels of the group; K: output pixels of all images.
template <class S, int PARTS>
struct ConvolutionWeightGrad {
    static constexpr int M = S::OG, N = S::CG * S::TAPS, K = S::N * S::P, GROUPS = S::G, SPLITS = PARTS;
    static constexpr bool A_ALONG_K = true, B_ALONG_K = true;
    using Row = int;
    // Of an image and a pixel of dy: image, and the corner of the pixel's window.
    struct Step {
        int image, pixel, y, x;
    };
    using Column = Tap;
    const float* x;
    const float* dy;
    float* dw;

    DEVICE Row row(int group, int m) const { return (group * M + m) * S::P; }
    DEVICE Column column(int group, int n) const {
        const int c = n / S::TAPS, tap = n % S::TAPS;
        return {(group * S::CG + c) * S::H * S::W, tap / S::KW, tap % S::KW};
    }
    DEVICE Step step(int k) const {
        const int image = k / S::P, pixel = k % S::P;
        return {image, pixel, pixel / S::OW * S::STRIDE - S::PAD, pixel % S::OW * S::STRIDE - S::PAD};
    }
    DEVICE float a(Row row, Step k) const { return dy[k.image * S::O * S::P + row + k.pixel]; }
    DEVICE float b(Step k, Column column) const {
        const int iy = k.y + column.y, ix = k.x + column.x;
        const bool inside = iy >= 0 && iy < S::H && ix >= 0 && ix < S::W;
        return inside ? x[k.image * S::C * S::H * S::W + column.offset + iy * S::W + ix] : 0.0f;
    }
    template <class Epilogue>
    DEVICE void write(int group, int m, int n, float sum, const Epilogue& epilogue) const {
        const int at = (group * M + m) * N + n;
        put(dw, at, sum, epilogue);
    }
};
