// C [M, N] = A [M, K] B [K, N], for operands that a problem reads however they lie: linear layers, and convolutions as implicit products.
//
// A block computes a tile of C from tiles of A and B in shared memory; each thread holds a patch of TM × TN sums in registers, in vectors of
// up to four that lie apart, so that threads beside each other read banks beside each other. While a tile is multiplied the next one is on
// its way from memory to registers. Where C is small and K long, SPLITS blocks sum a part of K each, and `combine` adds the parts in order.
//
// A problem gives: M, N, K, GROUPS, and SPLITS; A_ALONG_K and B_ALONG_K, whether neighbours in k are neighbours in memory; Row, Step and
// Column, what is worked out once for an m, k or n; and `a`, `b` and `write`.

template <int TILE_M, int TILE_N, int TILE_K, int PATCH_M, int PATCH_N>
struct Tiles {
    static constexpr int BM = TILE_M, BN = TILE_N, BK = TILE_K, TM = PATCH_M, TN = PATCH_N;
    static_assert((BM / TM) * (BN / TN) == THREADS, "each thread has one patch");
    static_assert(BM * BK % THREADS == 0 && BN * BK % THREADS == 0, "each thread loads as much");
};

// Position in the tile of patch element i of thread t, of `threads` along this side.
template <int PATCH>
DEVICE int patch_at(int t, int i, int threads) {
    constexpr int VECTOR = PATCH < 4 ? PATCH : 4;
    return (i / VECTOR) * threads * VECTOR + t * VECTOR + i % VECTOR;
}

// Grid: (tiles of N, tiles of M, GROUPS × SPLITS).
template <class T, class Problem, class Epilogue>
DEVICE void multiply(const Problem problem, float* partial, const Epilogue& epilogue) {
    constexpr int LOADS_A = T::BM * T::BK / THREADS, LOADS_B = T::BN * T::BK / THREADS;
    constexpr int TX = T::BN / T::TN, TY = T::BM / T::TM;
    // One column more, against bank conflicts where neighbours in k are written.
    constexpr int STRIDE_A = T::BM + (Problem::A_ALONG_K ? 4 : 0), STRIDE_B = T::BN + (Problem::B_ALONG_K ? 4 : 0);
    __shared__ float tile_a[T::BK][STRIDE_A];
    __shared__ float tile_b[T::BK][STRIDE_B];

    const int thread = threadIdx.x, tx = thread % TX, ty = thread / TX;
    const int m0 = blockIdx.y * T::BM, n0 = blockIdx.x * T::BN;
    const int group = blockIdx.z / Problem::SPLITS, split = blockIdx.z % Problem::SPLITS;
    // Parts of K are whole tiles.
    constexpr int TILES = (Problem::K + T::BK - 1) / T::BK, SHARE = (TILES + Problem::SPLITS - 1) / Problem::SPLITS * T::BK;
    const int begin = split * SHARE, end = begin + SHARE < Problem::K ? begin + SHARE : Problem::K;

    typename Problem::Row rows[LOADS_A];
    typename Problem::Column columns[LOADS_B];
    int ma[LOADS_A], ka[LOADS_A], nb[LOADS_B], kb[LOADS_B];
#pragma unroll
    for (int i = 0; i < LOADS_A; i++) {
        const int at = thread + i * THREADS;
        ka[i] = Problem::A_ALONG_K ? at % T::BK : at / T::BM;
        ma[i] = Problem::A_ALONG_K ? at / T::BK : at % T::BM;
        rows[i] = problem.row(group, m0 + ma[i]);
    }
#pragma unroll
    for (int i = 0; i < LOADS_B; i++) {
        const int at = thread + i * THREADS;
        kb[i] = Problem::B_ALONG_K ? at % T::BK : at / T::BN;
        nb[i] = Problem::B_ALONG_K ? at / T::BK : at % T::BN;
        columns[i] = problem.column(group, n0 + nb[i]);
    }

    float next_a[LOADS_A], next_b[LOADS_B];
    float sums[T::TM][T::TN] = {};
    auto load = [&](int k0) {
#pragma unroll
        for (int i = 0; i < LOADS_A; i++) {
            const int k = k0 + ka[i];
            next_a[i] = k < end && m0 + ma[i] < Problem::M ? problem.a(rows[i], problem.step(k)) : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < LOADS_B; i++) {
            const int k = k0 + kb[i];
            next_b[i] = k < end && n0 + nb[i] < Problem::N ? problem.b(problem.step(k), columns[i]) : 0.0f;
        }
    };
    load(begin);
    for (int k0 = begin; k0 < end; k0 += T::BK) {
#pragma unroll
        for (int i = 0; i < LOADS_A; i++) tile_a[ka[i]][ma[i]] = next_a[i];
#pragma unroll
        for (int i = 0; i < LOADS_B; i++) tile_b[kb[i]][nb[i]] = next_b[i];
        __syncthreads();
        if (k0 + T::BK < end) load(k0 + T::BK);
#pragma unroll
        for (int k = 0; k < T::BK; k++) {
            float a[T::TM], b[T::TN];
#pragma unroll
            for (int i = 0; i < T::TM; i++) a[i] = tile_a[k][patch_at<T::TM>(ty, i, TY)];
#pragma unroll
            for (int j = 0; j < T::TN; j++) b[j] = tile_b[k][patch_at<T::TN>(tx, j, TX)];
#pragma unroll
            for (int i = 0; i < T::TM; i++) {
#pragma unroll
                for (int j = 0; j < T::TN; j++) sums[i][j] += a[i] * b[j];
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < T::TM; i++) {
        const int m = m0 + patch_at<T::TM>(ty, i, TY);
#pragma unroll
        for (int j = 0; j < T::TN; j++) {
            const int n = n0 + patch_at<T::TN>(tx, j, TX);
            if (m >= Problem::M || n >= Problem::N) continue;
            if (Problem::SPLITS > 1) {
                partial[(blockIdx.z * Problem::M + m) * Problem::N + n] = sums[i][j];
            } else {
                problem.write(group, m, n, sums[i][j], epilogue);
            }
        }
    }
}

// Adds the parts of K in order, one thread for each element of C.
template <class Problem, class Epilogue>
DEVICE void combine(const Problem problem, const float* partial, const Epilogue& epilogue) {
    constexpr int SIZE = Problem::M * Problem::N;
    const int i = first_index();
    if (i >= Problem::GROUPS * SIZE) return;
    const int group = i / SIZE, at = i % SIZE;
    float sum = 0.0f;
    for (int split = 0; split < Problem::SPLITS; split++) sum += partial[(group * Problem::SPLITS + split) * SIZE + at];
    problem.write(group, at / Problem::N, at % Problem::N, sum, epilogue);
}
