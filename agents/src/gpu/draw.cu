// Draws a token for each row of logits [rows, vocabulary], as the sampler on the CPU does it: temperature,
// then the likeliest top_k, then the fewest that reach top_p of what is left, then those at least min_p as
// likely as the likeliest. Equal logits are taken in the order of their tokens.
//
// What is kept is a threshold: all tokens above it and the first few of those at it. Thresholds are found
// bit by bit over the order of floats, so nothing is sorted.
//
// Set: THREADS.
#define ASKS 5

// Maps floats to integers of the same order.
__device__ __forceinline__ unsigned int order_of(float x) {
  unsigned int bits = __float_as_uint(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The sum over the block, in the order of the threads, the same in all of them; before: of those before.
__device__ double sum_of_block(double x, double* all, double* before) {
  __syncthreads();
  all[threadIdx.x] = x;
  __syncthreads();
  if (threadIdx.x == 0) {
    double sum = 0;
    for (int i = 0; i < THREADS; i++) {
      double own = all[i];
      all[i] = sum;
      sum += own;
    }
    all[THREADS] = sum;
  }
  __syncthreads();
  *before = all[threadIdx.x];
  return all[THREADS];
}

// Whether a logit is above the threshold or among the first `ties` at it; counts those in `tied`.
__device__ __forceinline__ bool is_kept(unsigned int order, unsigned int least, double ties, double* tied) {
  if (order != least) return order > least;
  *tied += 1;
  return *tied <= ties;
}

// asks: temperature, top_k (0 for all), top_p (1 or more for all), min_p (0 for all) and a number from 0 to 1
// for each row. Grid rows, block THREADS.
extern "C" __global__ void draw(const float* logits, int vocabulary, const double* asks, unsigned int* tokens) {
  __shared__ double all[THREADS + 1];
  __shared__ unsigned int tops[THREADS];
  __shared__ int places[THREADS];
  const float* z = logits + (size_t)blockIdx.x * vocabulary;
  const double* ask = asks + (size_t)blockIdx.x * ASKS;
  int chunk = (vocabulary + THREADS - 1) / THREADS;
  int begin = min(vocabulary, (int)threadIdx.x * chunk), end = min(vocabulary, begin + chunk);

  // The likeliest, the first of several equal ones; what is not a number is never taken.
  unsigned int top = 0;
  int best = 0;
  for (int i = begin; i < end; i++) {
    unsigned int order = z[i] == z[i] ? order_of(z[i]) : 0;
    if (order > top) {
      top = order;
      best = i;
    }
  }
  tops[threadIdx.x] = top;
  places[threadIdx.x] = best;
  __syncthreads();
  for (int apart = 1; apart < THREADS; apart *= 2) {
    if (threadIdx.x % (2 * apart) == 0 && threadIdx.x + apart < THREADS &&
        tops[threadIdx.x + apart] > tops[threadIdx.x]) {
      tops[threadIdx.x] = tops[threadIdx.x + apart];
      places[threadIdx.x] = places[threadIdx.x + apart];
    }
    __syncthreads();
  }
  top = tops[0];
  best = places[0];
  if (threadIdx.x == 0) tokens[blockIdx.x] = best;
  double temperature = ask[0], before;
  if (temperature <= 0 || top == 0) return;
  float highest = z[best], cold = (float)(1 / temperature);
#define WEIGHT(x) ((x) == (x) ? expf(((x) - highest) * cold) : 0)

  // Kept: everything above `least` and the first `ties` at it.
  unsigned int least = 0;
  double ties = vocabulary;
  double top_k = ask[1], top_p = ask[2];
  if (top_k >= 1 && top_k < vocabulary) {
    for (unsigned int bit = 0x80000000u; bit > 0; bit >>= 1) {
      double count = 0;
      for (int i = begin; i < end; i++) count += order_of(z[i]) >= (least | bit);
      if (sum_of_block(count, all, &before) >= top_k) least |= bit;
    }
    double above = 0;
    for (int i = begin; i < end; i++) above += order_of(z[i]) > least;
    ties = top_k - sum_of_block(above, all, &before);
  }
  if (top_p < 1) {
    double above = 0, equal = 0;
    for (int i = begin; i < end; i++) {
      unsigned int order = order_of(z[i]);
      if (order > least) above += WEIGHT(z[i]);
      if (order == least) equal += 1;
    }
    equal = fmin(sum_of_block(equal, all, &before), ties);
    float at = least == 0 ? 0 : __uint_as_float(least & 0x80000000u ? least & 0x7fffffffu : ~least);
    double kept = sum_of_block(above, all, &before) + (least == 0 ? 0 : equal * WEIGHT(at));
    double wanted = top_p * kept;
    unsigned int found = 0;
    for (unsigned int bit = 0x80000000u; bit > 0; bit >>= 1) {
      unsigned int next = found | bit;
      double sum = 0;
      for (int i = begin; i < end; i++) {
        if (order_of(z[i]) >= next) sum += WEIGHT(z[i]);
      }
      sum = sum_of_block(sum, all, &before);
      if ((next <= least ? kept : sum) >= wanted) found = next;
    }
    // Where the cut falls among those that top_k ends in, fewer of them may do.
    if (found >= least) {
      double over = 0, same = 0;
      for (int i = begin; i < end; i++) {
        unsigned int order = order_of(z[i]);
        if (order > found) over += WEIGHT(z[i]);
        if (order == found) same += 1;
      }
      over = sum_of_block(over, all, &before);
      same = sum_of_block(same, all, &before);
      float level = __uint_as_float(found & 0x80000000u ? found & 0x7fffffffu : ~found);
      double each = WEIGHT(level);
      if (found == least) same = fmin(same, ties);
      least = found;
      ties = each > 0 ? fmin(same, fmax(1, ceil((wanted - over) / each))) : same;
    }
  }
  double min_p = ask[3];

  // Those before this thread's at the threshold, then the weights, then the token whose share holds the draw.
  double equal = 0, first;
  for (int i = begin; i < end; i++) equal += order_of(z[i]) == least;
  sum_of_block(equal, all, &first);
  double mine = 0, tied = first;
  for (int i = begin; i < end; i++) {
    float weight = WEIGHT(z[i]);
    if (is_kept(order_of(z[i]), least, ties, &tied) && weight >= min_p) mine += weight;
  }
  double target = ask[4] * sum_of_block(mine, all, &before);
  if (!(target >= before && target < before + mine)) return;
  double sum = before;
  tied = first;
  for (int i = begin; i < end; i++) {
    float weight = WEIGHT(z[i]);
    if (!is_kept(order_of(z[i]), least, ties, &tied) || weight < min_p || weight == 0) continue;
    // The last of them stands where sums were rounded differently.
    tokens[blockIdx.x] = i;
    sum += weight;
    if (sum > target) return;
  }
}
