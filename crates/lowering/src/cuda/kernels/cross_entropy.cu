// Softmax cross-entropy with class probabilities as targets: a block for each row.

template <int K>
DEVICE float log_sum_exp(const float* row, float* room) {
    float largest = row[0];
    for (int k = threadIdx.x; k < K; k += THREADS) largest = fmaxf(largest, row[k]);
    largest = block_max(largest, room);
    float sum = 0.0f;
    for (int k = threadIdx.x; k < K; k += THREADS) sum += expf(row[k] - largest);
    return largest + logf(block_sum(sum, room));
}

// Σ t·(log Σ e^l − l) of each row.
template <int K>
DEVICE void cross_entropy_rows(const float* logits, const float* targets, float* losses) {
    __shared__ float room[THREADS];
    const float* row = logits + blockIdx.x * K;
    const float* target = targets + blockIdx.x * K;
    const float norm = log_sum_exp<K>(row, room);
    float sum = 0.0f;
    for (int k = threadIdx.x; k < K; k += THREADS) sum += target[k] * (norm - row[k]);
    sum = block_sum(sum, room);
    if (threadIdx.x == 0) losses[blockIdx.x] = sum;
}

// Their mean; one block.
template <int ROWS>
DEVICE void mean_loss(const float* losses, float* loss) {
    __shared__ float room[THREADS];
    float sum = 0.0f;
    for (int i = threadIdx.x; i < ROWS; i += THREADS) sum += losses[i];
    sum = block_sum(sum, room);
    if (threadIdx.x == 0) loss[0] = sum / ROWS;
}

// dlogits = dloss/N · (softmax·Σt − t).
template <int ROWS, int K>
DEVICE void cross_entropy_grad(const float* logits, const float* targets, const float* dloss, float* dlogits) {
    __shared__ float room[THREADS];
    const float* row = logits + blockIdx.x * K;
    const float* target = targets + blockIdx.x * K;
    const float norm = log_sum_exp<K>(row, room);
    float mass = 0.0f;
    for (int k = threadIdx.x; k < K; k += THREADS) mass += target[k];
    mass = block_sum(mass, room);
    const float factor = dloss[0] / ROWS;
    for (int k = threadIdx.x; k < K; k += THREADS) {
        dlogits[blockIdx.x * K + k] = factor * (expf(row[k] - norm) * mass - target[k]);
    }
}
