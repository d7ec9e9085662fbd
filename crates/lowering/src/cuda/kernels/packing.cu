// Copies of operands in reduced precision, in the order that tensor cores want: channels innermost (NHWC), so that a chunk of 16 bytes is a
// run of channels of one pixel, and threads beside each other copy chunks beside each other. Padding is packed too, and a stride of s becomes
// blocks of s × s pixels whose values are channels (space to depth): every convolution is then one of stride 1 whose windows lie wholly
// inside, and an operand's address is a sum of what its row, or column, and its step in K give. Zeros fill channels up to a multiple of 8, and
// windows up to whole blocks; where x is not finite, zeros keep it out of no output of such a block.

// From [R, GROUPS · C, H, W] to [ROWS, BH, BW, GROUPS, CP]: channel (dy · BLOCK + dx) · C + c of block (by, bx) is pixel
// (by · BLOCK − TOP + dy, bx · BLOCK − LEFT + dx). Rows come in runs: PADDED_RUN of them hold RUN of the source, the rest is zero.
template <class Precision_, int ROWS_, int RUN_, int PADDED_RUN_, int GROUPS_, int C_, int CP_, int H_, int W_, int BLOCK_, int TOP_, int LEFT_,
          int BH_, int BW_>
struct Packing {
    using Precision = Precision_;
    static constexpr int ROWS = ROWS_, RUN = RUN_, PADDED_RUN = PADDED_RUN_, GROUPS = GROUPS_, C = C_, CP = CP_, H = H_, W = W_;
    static constexpr int BLOCK = BLOCK_, TOP = TOP_, LEFT = LEFT_, BH = BH_, BW = BW_;
    static constexpr int POSITIONS = ROWS * BH * BW, CHANNELS = GROUPS * CP;
    // Positions and channels that a block turns over in shared memory; values that a thread of `pack_rows` rounds.
    static constexpr int TILE = 64, ROW_VALUES = 8;

    // The source's row; negative where it is all zeros.
    static DEVICE int source(int row) { return row % PADDED_RUN < RUN ? row / PADDED_RUN * RUN + row % PADDED_RUN : -1; }
};

// Grid: (tiles of positions, tiles of channels).
template <class P>
DEVICE void pack(const float* x, typename P::Precision::Value* y) {
    // One column more, so that columns lie in different banks.
    constexpr int TILE = P::TILE, STEP = THREADS / TILE;
    __shared__ float tile[TILE][TILE + 1];
    const int along = threadIdx.x % TILE, across = threadIdx.x / TILE;
    const int position0 = blockIdx.x * TILE, channel0 = blockIdx.y * TILE;
    const int position = position0 + along;
    const int row = position < P::POSITIONS ? P::source(position / (P::BH * P::BW)) : -1;
    const int top = position / P::BW % P::BH * P::BLOCK - P::TOP, left = position % P::BW * P::BLOCK - P::LEFT;
    for (int i = across; i < TILE; i += STEP) {
        const int channel = (channel0 + i) % P::CP, group = (channel0 + i) / P::CP;
        const int tap = channel / P::C, c = channel % P::C;
        const int py = top + tap / P::BLOCK, px = left + tap % P::BLOCK;
        const bool inside = row >= 0 && group < P::GROUPS && tap < P::BLOCK * P::BLOCK && py >= 0 && py < P::H && px >= 0 && px < P::W;
        tile[i][along] = inside ? x[((row * P::GROUPS + group) * P::C + c) * P::H * P::W + py * P::W + px] : 0.0f;
    }
    __syncthreads();
    const int channel = channel0 + along;
    for (int i = across; i < TILE; i += STEP) {
        if (position0 + i < P::POSITIONS && channel < P::CHANNELS) {
            y[(position0 + i) * P::CHANNELS + channel] = P::Precision::round(tile[along][i]);
        }
    }
}

// The same where a row has one pixel, as those of linear layers: nothing is turned over.
template <class P>
DEVICE void pack_rows(const float* x, typename P::Precision::Value* y) {
#pragma unroll
    for (int j = 0; j < P::ROW_VALUES; j++) {
        const int i = (blockIdx.x * P::ROW_VALUES + j) * THREADS + threadIdx.x;
        if (i >= P::ROWS * P::CP) continue;
        const int row = P::source(i / P::CP), c = i % P::CP;
        y[i] = P::Precision::round(row >= 0 && c < P::C ? x[row * P::C + c] : 0.0f);
    }
}
