// Batches on the device: samples cut out of packed bytes, words that are handed out, ranks of what came out. No part of a step's program.

// Words of a sample, as `cuda/samples.rs` writes them.
enum Sample {
    IMAGE,
    TOP,
    LEFT,
    FLIP,
    BLANK_TOP,
    BLANK_BOTTOM,
    BLANK_LEFT,
    BLANK_RIGHT,
    SHARE,
    MATRIX,
    OFFSET = MATRIX + 9,
    LOW = OFFSET + 3,
    HIGH = LOW + 3,
    SAMPLE = HIGH + 3
};

// Images [M, C, H, W] of bytes, of which samples [C, h, w] are cut, each blended of PARTS images.
template <int C_, int H_, int W_, int h_, int w_, int PARTS_>
struct Cut {
    static constexpr int C = C_, H = H_, W = W_, h = h_, w = w_, PARTS = PARTS_;
};

DEVICE float word(const unsigned* words, int i) {
    return __uint_as_float(words[i]);
}

// Channel c of the pixel at (row, column) of a sample. Products and sums are rounded one by one, as the processor does.
template <class CUT>
DEVICE float pixel(const unsigned char* images, const unsigned* sample, int c, int row, int column) {
    if (row >= (int)sample[BLANK_TOP] && row < (int)sample[BLANK_BOTTOM] && column >= (int)sample[BLANK_LEFT] &&
        column < (int)sample[BLANK_RIGHT]) {
        return 0.0f;
    }
    const int y = (int)sample[TOP] + row;
    const int x = (int)sample[LEFT] + (sample[FLIP] ? CUT::w - 1 - column : column);
    float value = word(sample, OFFSET + c);
    if (y >= 0 && y < CUT::H && x >= 0 && x < CUT::W) {
        const unsigned char* source = images + (size_t)sample[IMAGE] * (CUT::C * CUT::H * CUT::W) + y * CUT::W + x;
        constexpr int PLANE = CUT::H * CUT::W;
        float sum = __fmul_rn((float)source[0], word(sample, MATRIX + 3 * c));
        for (int k = 1; k < CUT::C; k++) {
            sum = __fadd_rn(sum, __fmul_rn((float)source[k * PLANE], word(sample, MATRIX + 3 * c + k)));
        }
        value = __fadd_rn(sum, value);
    }
    const float low = word(sample, LOW + c), high = word(sample, HIGH + c);
    value = value > low ? value : low;
    return value < high ? value : high;
}

// Samples [N, C, h, w]: blockIdx.x counts them, blockIdx.y the blocks of pixels of each.
template <class CUT>
DEVICE void cut_samples(const unsigned char* images, const unsigned* samples, float* out) {
    __shared__ unsigned mine[CUT::PARTS * SAMPLE];
    samples += (size_t)blockIdx.x * (CUT::PARTS * SAMPLE);
    for (int i = threadIdx.x; i < CUT::PARTS * SAMPLE; i += THREADS) mine[i] = samples[i];
    __syncthreads();
    const int position = (int)(blockIdx.y * THREADS + threadIdx.x);
    if (position >= CUT::h * CUT::w) return;
    const int row = position / CUT::w, column = position % CUT::w;
    out += (size_t)blockIdx.x * (CUT::C * CUT::h * CUT::w) + position;
    for (int c = 0; c < CUT::C; c++) {
        float value = pixel<CUT>(images, mine, c, row, column);
        if (CUT::PARTS == 2) {
            const float other = pixel<CUT>(images, mine + SAMPLE, c, row, column);
            value = __fadd_rn(__fmul_rn(word(mine, SHARE), value), __fmul_rn(word(mine + SAMPLE, SHARE), other));
        }
        out[c * (CUT::h * CUT::w)] = value;
    }
}

// Words, one after the other, into four places.
DEVICE void hand_out(const unsigned* words, unsigned* a, int as, unsigned* b, int bs, unsigned* c, int cs, unsigned* d, int ds) {
    int i = first_index();
    const int from = i;
    if (i < as) {
        a[i] = words[from];
        return;
    }
    i -= as;
    if (i < bs) {
        b[i] = words[from];
        return;
    }
    i -= bs;
    if (i < cs) {
        c[i] = words[from];
        return;
    }
    i -= cs;
    if (i < ds) d[i] = words[from];
}

// The step's loss, then for each row how many classes score higher than its own, ties going to the lower class; a row whose own score is
// NaN is behind all. A block for each row of logits [N, K].
template <int K>
DEVICE void rank_rows(const float* logits, const unsigned* labels, const float* loss, unsigned* record) {
    __shared__ int room[THREADS];
    const float* row = logits + (size_t)blockIdx.x * K;
    const int label = (int)labels[blockIdx.x];
    const float own = row[label];
    int ahead = 0;
    for (int k = threadIdx.x; k < K; k += THREADS) ahead += row[k] > own || (row[k] == own && k < label);
    ahead = block_sum(ahead, room);
    if (threadIdx.x == 0) record[1 + blockIdx.x] = own == own ? (unsigned)ahead : 0xffffffffu;
    if (threadIdx.x == 0 && blockIdx.x == 0) record[0] = __float_as_uint(loss[0]);
}
