// Fully connected layers, y = x wᵀ + b, and their gradients, as products of matrices.

// y [ROWS, OUT] from x [ROWS, IN], w [OUT, IN], b [OUT].
template <int ROWS, int IN, int OUT, int PARTS>
struct LinearForward {
    static constexpr int M = ROWS, N = OUT, K = IN, GROUPS = 1, SPLITS = PARTS;
    static constexpr bool A_ALONG_K = true, B_ALONG_K = true;
    using Row = int;
    using Step = int;
    using Column = int;
    const float* x;
    const float* w;
    const float* bias;
    float* y;

    DEVICE Row row(int, int m) const { return m * IN; }
    DEVICE Column column(int, int n) const { return n * IN; }
    DEVICE Step step(int k) const { return k; }
    DEVICE float a(Row row, Step k) const { return x[row + k]; }
    DEVICE float b(Step k, Column column) const { return w[column + k]; }
    template <class Epilogue>
    DEVICE void write(int, int m, int n, float sum, const Epilogue& epilogue) const {
        const int at = m * OUT + n;
        put(y, at, sum + bias[n], epilogue);
    }
};

// dx [ROWS, IN] = dy [ROWS, OUT] w [OUT, IN].
template <int ROWS, int IN, int OUT, int PARTS>
struct LinearInputGrad {
    static constexpr int M = ROWS, N = IN, K = OUT, GROUPS = 1, SPLITS = PARTS;
    static constexpr bool A_ALONG_K = true, B_ALONG_K = false;
    using Row = int;
    using Step = int;
    using Column = int;
    const float* w;
    const float* dy;
    float* dx;

    DEVICE Row row(int, int m) const { return m * OUT; }
    DEVICE Column column(int, int n) const { return n; }
    DEVICE Step step(int k) const { return k; }
    DEVICE float a(Row row, Step k) const { return dy[row + k]; }
    DEVICE float b(Step k, Column column) const { return w[k * IN + column]; }
    template <class Epilogue>
    DEVICE void write(int, int m, int n, float sum, const Epilogue& epilogue) const {
        const int at = m * IN + n;
        put(dx, at, sum, epilogue);
    }
};

// dw [OUT, IN] = dyᵀ x.
template <int ROWS, int IN, int OUT, int PARTS>
struct LinearWeightGrad {
    static constexpr int M = OUT, N = IN, K = ROWS, GROUPS = 1, SPLITS = PARTS;
    static constexpr bool A_ALONG_K = false, B_ALONG_K = false;
    using Row = int;
    using Step = int;
    using Column = int;
    const float* x;
    const float* dy;
    float* dw;

    DEVICE Row row(int, int m) const { return m; }
    DEVICE Column column(int, int n) const { return n; }
    DEVICE Step step(int k) const { return k; }
    DEVICE float a(Row row, Step k) const { return dy[k * OUT + row]; }
    DEVICE float b(Step k, Column column) const { return x[k * IN + column]; }
    template <class Epilogue>
    DEVICE void write(int, int m, int n, float sum, const Epilogue& epilogue) const {
        const int at = m * IN + n;
        put(dw, at, sum, epilogue);
    }
};
