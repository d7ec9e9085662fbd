// C [M, N] = A [M, K] B [K, N] on tensor cores, for operands in reduced precision.
//
// A block of 4 warps computes a tile of C: each warp reads its rows of A and columns of B from shared memory, which gives 128 bytes a cycle, so that
// parts of 64 × 64 keep tensor cores busy where 8 warps' parts of 64 × 32 would wait for it. STAGES tiles of A and B are in shared memory: while one is multiplied, others are on their way
// from memory, without passing through registers. Chunks of a tile are swapped within their lines, so that the eight rows which
// `load_matrices` reads at once lie in different banks. As in `matrix.cu`, SPLITS blocks may sum a part of K each; `combine` adds them in order.
//
// A problem gives: M, N, K, GROUPS, SPLITS; M_READ and N_READ, how far A and B may be read; A_ALONG_K and B_ALONG_K, which way chunks lie; `a`
// and `b`; a_row, a_step, b_column and b_step, whose sums are positions in them; `write`; and PAIRS, whether neighbours in N, the first of which
// is even, are neighbours in the output too: then `write_lanes` takes both.

template <class Precision_, int TILE_M, int TILE_N, int WARPS_M_>
struct TensorTiles {
    using Precision = Precision_;
    // A line along K is 64 bytes, whatever the precision.
    static constexpr int BM = TILE_M, BN = TILE_N, BK = 4 * Precision::CHUNK, STAGES = 3, WARP = 32, THREADS = 128;
    static constexpr int WARPS_M = WARPS_M_, WARPS_N = THREADS / WARP / WARPS_M;
    // Fragments of a warp: 16 rows of A, 8 columns of B, which are loaded by twos.
    static constexpr int FRAGMENTS_M = BM / WARPS_M / 16, FRAGMENTS_N = BN / WARPS_N / 8;
    static_assert(FRAGMENTS_M * 16 * WARPS_M == BM && FRAGMENTS_N * 8 * WARPS_N == BN && FRAGMENTS_N % 2 == 0, "warps share a tile evenly");
};

// A tile of one operand in shared memory: EXTENT along M or N, in lines along K or across it.
template <class T, int EXTENT, bool ALONG_K>
struct Operand {
    using Precision = typename T::Precision;
    static constexpr int LINES = ALONG_K ? EXTENT : T::BK, LINE = (ALONG_K ? T::BK : EXTENT) / Precision::CHUNK;
    static constexpr int CHUNKS = LINES * LINE, LOADS = (CHUNKS + T::THREADS - 1) / T::THREADS;

    static DEVICE int place(int line, int chunk) {
        if (!ALONG_K && Precision::CHUNK == 4) return line * LINE + (chunk ^ (line % 4 * 2) % LINE);
        // Within so many chunks, which a line has a multiple of.
        constexpr int SWAPPED = LINE % 8 == 0 ? 8 : LINE % 4 == 0 ? 4 : 2;
        return line * LINE + (chunk ^ line / (8 / SWAPPED) % SWAPPED);
    }

    // Word of a tile of 32-bit values across K.
    static DEVICE unsigned word(const Chunk* tile, int k, int at) { return tile[place(k, at / 4)].words[at % 4]; }

    // Fragments of A: rows `at` to `at` + 16, from step `k` of the tile.
    static DEVICE void rows(unsigned (&to)[4], const Chunk* tile, int lane, int at, int k) {
        if constexpr (ALONG_K) {
            load_matrices(to, tile + place(at + lane % 16, k / Precision::CHUNK + lane / 16));
        } else if constexpr (Precision::CHUNK == 8) {
            load_transposed(to, tile + place(k + lane % 8 + lane / 16 * 8, at / 8 + lane / 8 % 2));
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++) to[i] = word(tile, k + lane % 4 + i / 2 * 4, at + lane / 4 + i % 2 * 8);
        }
    }

    // Fragments of B: columns `at` to `at` + 16, the first eight of them in the first two words.
    static DEVICE void columns(unsigned (&to)[4], const Chunk* tile, int lane, int at, int k) {
        if constexpr (ALONG_K) {
            load_matrices(to, tile + place(at + lane % 8 + lane / 16 * 8, k / Precision::CHUNK + lane / 8 % 2));
        } else if constexpr (Precision::CHUNK == 8) {
            load_transposed(to, tile + place(k + lane % 16, at / 8 + lane / 16));
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++) to[i] = word(tile, k + lane % 4 + i % 2 * 4, at + lane / 4 + i / 2 * 8);
        }
    }
};

// Grid: (tiles of M and N, those of the shorter side first, so that blocks beside each other read the same part of the longer one's operand;
// GROUPS × SPLITS).
template <class T, class Problem, class Epilogue>
DEVICE void multiply_packed(const Problem problem, float* partial, const Epilogue& epilogue) {
    using Precision = typename T::Precision;
    using A = Operand<T, T::BM, Problem::A_ALONG_K>;
    using B = Operand<T, T::BN, Problem::B_ALONG_K>;
    __shared__ Chunk tile_a[T::STAGES][A::CHUNKS];
    __shared__ Chunk tile_b[T::STAGES][B::CHUNKS];

    constexpr int TILES_M = (Problem::M + T::BM - 1) / T::BM, TILES_N = (Problem::N + T::BN - 1) / T::BN, TILES_K = (Problem::K + T::BK - 1) / T::BK;
    constexpr int SHARE = (TILES_K + Problem::SPLITS - 1) / Problem::SPLITS * T::BK;
    const int thread = threadIdx.x, lane = thread % T::WARP, warp = thread / T::WARP;
    constexpr bool M_FIRST = TILES_M <= TILES_N;
    const int m0 = (int)(M_FIRST ? blockIdx.x % TILES_M : blockIdx.x / TILES_N) * T::BM;
    const int n0 = (int)(M_FIRST ? blockIdx.x / TILES_M : blockIdx.x % TILES_N) * T::BN;
    const int group = blockIdx.y / Problem::SPLITS, split = blockIdx.y % Problem::SPLITS;
    const int begin = split * SHARE, end = begin + SHARE < Problem::K ? begin + SHARE : Problem::K;
    const int tiles = (end - begin + T::BK - 1) / T::BK;

    // What this thread copies of each tile: where along M and N, and where along K.
    int a_at[A::LOADS], a_k[A::LOADS], b_at[B::LOADS], b_k[B::LOADS];
    bool a_in[A::LOADS], b_in[B::LOADS];
#pragma unroll
    for (int i = 0; i < A::LOADS; i++) {
        const int at = thread + i * T::THREADS, line = at / A::LINE, chunk = at % A::LINE * Precision::CHUNK;
        const int m = m0 + (Problem::A_ALONG_K ? line : chunk);
        a_k[i] = Problem::A_ALONG_K ? chunk : line;
        a_in[i] = at < A::CHUNKS && m < Problem::M_READ;
        a_at[i] = a_in[i] ? problem.a_row(group, m) : 0;
    }
#pragma unroll
    for (int i = 0; i < B::LOADS; i++) {
        const int at = thread + i * T::THREADS, line = at / B::LINE, chunk = at % B::LINE * Precision::CHUNK;
        const int n = n0 + (Problem::B_ALONG_K ? line : chunk);
        b_k[i] = Problem::B_ALONG_K ? chunk : line;
        b_in[i] = at < B::CHUNKS && n < Problem::N_READ;
        b_at[i] = b_in[i] ? problem.b_column(group, n) : 0;
    }
    auto load = [&](int tile) {
        const int stage = tile % T::STAGES;
#pragma unroll
        for (int i = 0; i < A::LOADS; i++) {
            const int at = thread + i * T::THREADS, k = begin + tile * T::BK + a_k[i];
            const bool valid = a_in[i] && k < end;
            const int from = valid ? a_at[i] + problem.a_step(k) : 0;
            if (at < A::CHUNKS) copy_chunk(&tile_a[stage][A::place(at / A::LINE, at % A::LINE)], problem.a + from, valid);
        }
#pragma unroll
        for (int i = 0; i < B::LOADS; i++) {
            const int at = thread + i * T::THREADS, k = begin + tile * T::BK + b_k[i];
            const bool valid = b_in[i] && k < end;
            const int from = valid ? b_at[i] + problem.b_step(k) : 0;
            if (at < B::CHUNKS) copy_chunk(&tile_b[stage][B::place(at / B::LINE, at % B::LINE)], problem.b + from, valid);
        }
    };

    const int warp_m = warp / T::WARPS_N * (T::FRAGMENTS_M * 16), warp_n = warp % T::WARPS_N * (T::FRAGMENTS_N * 8);
    float sums[T::FRAGMENTS_M][T::FRAGMENTS_N][4] = {};
#pragma unroll
    for (int tile = 0; tile < T::STAGES - 1; tile++) {
        if (tile < tiles) load(tile);
        end_copies();
    }
    for (int tile = 0; tile < tiles; tile++) {
        // Groups are counted by tiles: this one's has arrived when all but the STAGES − 2 after it have.
        wait_copies<T::STAGES - 2>();
        // All threads' chunks are there, and all are done with the tile that the next one replaces.
        __syncthreads();
        if (tile + T::STAGES - 1 < tiles) load(tile + T::STAGES - 1);
        end_copies();
        const Chunk *here_a = tile_a[tile % T::STAGES], *here_b = tile_b[tile % T::STAGES];
#pragma unroll
        for (int k = 0; k < T::BK; k += Precision::DEPTH) {
            unsigned a[T::FRAGMENTS_M][4], b[T::FRAGMENTS_N][2];
#pragma unroll
            for (int i = 0; i < T::FRAGMENTS_M; i++) A::rows(a[i], here_a, lane, warp_m + i * 16, k);
#pragma unroll
            for (int j = 0; j < T::FRAGMENTS_N; j += 2) {
                unsigned two[4];
                B::columns(two, here_b, lane, warp_n + j * 8, k);
                b[j][0] = two[0], b[j][1] = two[1], b[j + 1][0] = two[2], b[j + 1][1] = two[3];
            }
#pragma unroll
            for (int i = 0; i < T::FRAGMENTS_M; i++) {
#pragma unroll
                for (int j = 0; j < T::FRAGMENTS_N; j++) multiply_fragments(Precision{}, sums[i][j], a[i], b[j]);
            }
        }
    }
    wait_copies<0>();
#pragma unroll
    for (int i = 0; i < T::FRAGMENTS_M; i++) {
#pragma unroll
        for (int j = 0; j < T::FRAGMENTS_N; j++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int m = m0 + warp_m + i * 16 + lane / 4 + half * 8, n = n0 + warp_n + j * 8 + lane % 4 * 2;
                if (m >= Problem::M) continue;
                float two[2] = {sums[i][j][2 * half], sums[i][j][2 * half + 1]};
                if constexpr (Problem::PAIRS && Problem::SPLITS == 1) {
                    if (n < Problem::N) problem.write_lanes(group, m, n, two, epilogue);
                } else {
#pragma unroll
                    for (int value = 0; value < 2; value++) {
                        if (n + value >= Problem::N) continue;
                        if (Problem::SPLITS > 1) {
                            partial[(blockIdx.y * Problem::M + m) * Problem::N + n + value] = two[value];
                        } else {
                            problem.write(group, m, n + value, two[value], epilogue);
                        }
                    }
                }
            }
        }
    }
}
