// Attention over keys and values in pages. A page holds PAGE tokens of one sequence in all layers,
// [layers, keys and values, heads, PAGE, WIDTH]; a row is one token of a sequence at a position of its own.
//
// Set for each network: WIDTH, HEADS, KEY_HEADS, PAGE, SPAN (positions that one block looks at), QUERIES
// (queries of one key head that one block has).
#define GROUP (HEADS / KEY_HEADS)
#define PARTS ((GROUP + QUERIES - 1) / QUERIES)
#define WARPS 4
#define PER ((WIDTH + LANES - 1) / LANES)
// Less than any score: minus infinity.
#define NOTHING __uint_as_float(0xff800000u)

typedef unsigned long long address;

// Where the numbers of a position begin in its page, after those of `layer`, keys or values, and head.
__device__ __forceinline__ const number* at(const address* pages, int position, size_t offset) {
  const number* page = (const number*)pages[position / PAGE];
  return page + offset + (size_t)(position % PAGE) * WIDTH;
}

__device__ __forceinline__ size_t offset_of(int layer, int which, int head) {
  return (size_t)((layer * 2 + which) * KEY_HEADS + head) * PAGE * WIDTH;
}

// Keeps the keys and values [rows, KEY_HEADS, WIDTH] of rows. Grid (rows, KEY_HEADS), block WIDTH or less.
// first: where the pages of a row's sequence begin in `pages`; positions: below 0 where a row is of nobody.
extern "C" __global__ void keep(const number* keys, const number* values, const address* pages,
                                const unsigned int* first, const int* positions, int layer) {
  int row = blockIdx.x, head = blockIdx.y, position = positions[row];
  if (position < 0) return;
  const address* own = pages + first[row];
  number* to_keys = (number*)at(own, position, offset_of(layer, 0, head));
  number* to_values = (number*)at(own, position, offset_of(layer, 1, head));
  size_t from = (size_t)(row * KEY_HEADS + head) * WIDTH;
  for (int i = threadIdx.x; i < WIDTH; i += blockDim.x) {
    to_keys[i] = keys[from + i];
    to_values[i] = values[from + i];
  }
}

// Softmax over one span of positions for some queries of a key head, as running maximum, sum and weighted
// values (Milakov and Gimelshein 2018, arXiv 1805.02867). Grid (rows, KEY_HEADS * PARTS, spans), block
// WARPS * LANES. With one span the result is `mixed` [rows, HEADS, WIDTH], else what `join` needs:
// [rows, HEADS, spans, WIDTH + 2]. window: how many positions a query looks back, itself included; 0 for all.
extern "C" __global__ void attend(const number* queries, const address* pages, const unsigned int* first,
                                  const int* positions, int layer, int window, float scale, number* mixed,
                                  float* partial) {
  __shared__ float largest[WARPS][QUERIES];
  __shared__ float total[WARPS][QUERIES];
  __shared__ float weighted[WARPS][QUERIES][WIDTH];
  int row = blockIdx.x, head = blockIdx.y / PARTS, query = (blockIdx.y % PARTS) * QUERIES;
  int count = min(QUERIES, GROUP - query);
  int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
  int position = positions[row];
  int from = window > 0 ? max(0, position + 1 - window) : 0;
  from = max(from, (int)blockIdx.z * SPAN);
  int to = min(position + 1, ((int)blockIdx.z + 1) * SPAN);
  const address* own = pages + (position < 0 ? 0 : first[row]);
  size_t keys = offset_of(layer, 0, head), values = offset_of(layer, 1, head);

  float q[QUERIES][PER], sum[QUERIES][PER], most[QUERIES], weight[QUERIES];
  size_t base = (size_t)(row * HEADS + head * GROUP + query) * WIDTH;
#pragma unroll
  for (int g = 0; g < QUERIES; g++) {
    most[g] = NOTHING;
    weight[g] = 0;
#pragma unroll
    for (int i = 0; i < PER; i++) {
      int column = lane * PER + i;
      q[g][i] = g < count && column < WIDTH ? widen(queries[base + (size_t)g * WIDTH + column]) : 0;
      sum[g][i] = 0;
    }
  }
  for (int p = from + warp; p < to; p += WARPS) {
    const number* key = at(own, p, keys);
    const number* value = at(own, p, values);
    float k[PER], v[PER];
#pragma unroll
    for (int i = 0; i < PER; i++) {
      int column = lane * PER + i;
      k[i] = column < WIDTH ? widen(key[column]) : 0;
      v[i] = column < WIDTH ? widen(value[column]) : 0;
    }
#pragma unroll
    for (int g = 0; g < QUERIES; g++) {
      float score = 0;
#pragma unroll
      for (int i = 0; i < PER; i++) score += q[g][i] * k[i];
      score = sum_of_lanes(score) * scale;
      float next = fmaxf(most[g], score);
      float fade = expf(most[g] - next), fresh = expf(score - next);
      weight[g] = weight[g] * fade + fresh;
#pragma unroll
      for (int i = 0; i < PER; i++) sum[g][i] = sum[g][i] * fade + fresh * v[i];
      most[g] = next;
    }
  }
#pragma unroll
  for (int g = 0; g < QUERIES; g++) {
    if (lane == 0) {
      largest[warp][g] = most[g];
      total[warp][g] = weight[g];
    }
#pragma unroll
    for (int i = 0; i < PER; i++) {
      int column = lane * PER + i;
      if (column < WIDTH) weighted[warp][g][column] = sum[g][i];
    }
  }
  __syncthreads();
  int spans = gridDim.z;
  for (int item = threadIdx.x; item < count * WIDTH; item += blockDim.x) {
    int g = item / WIDTH, column = item % WIDTH;
    float top = NOTHING, all = 0, x = 0;
    for (int w = 0; w < WARPS; w++) top = fmaxf(top, largest[w][g]);
    // A span without positions has no largest score and counts as nothing.
    if (top > NOTHING) {
      for (int w = 0; w < WARPS; w++) {
        float share = expf(largest[w][g] - top);
        all += total[w][g] * share;
        x += weighted[w][g][column] * share;
      }
    }
    size_t place = (size_t)(row * HEADS + head * GROUP + query + g);
    if (spans == 1) {
      mixed[place * WIDTH + column] = round_to_number(all > 0 ? x / all : 0);
    } else {
      float* out = partial + (place * spans + blockIdx.z) * (WIDTH + 2);
      out[column] = x;
      if (column == 0) {
        out[WIDTH] = top;
        out[WIDTH + 1] = all;
      }
    }
  }
}

// Joins spans. Grid (rows, HEADS), block WIDTH or less. A span of nothing changes no bit, so how many there
// are for the longest row of a step does not matter to the others.
extern "C" __global__ void join(const float* partial, int spans, number* mixed) {
  size_t place = (size_t)blockIdx.x * HEADS + blockIdx.y;
  const float* own = partial + place * spans * (WIDTH + 2);
  float top = NOTHING;
  for (int s = 0; s < spans; s++) top = fmaxf(top, own[s * (WIDTH + 2) + WIDTH]);
  for (int column = threadIdx.x; column < WIDTH; column += blockDim.x) {
    float all = 0, x = 0;
    for (int s = 0; s < spans && top > NOTHING; s++) {
      const float* span = own + s * (WIDTH + 2);
      float share = expf(span[WIDTH] - top);
      all += span[WIDTH + 1] * share;
      x += span[column] * share;
    }
    mixed[place * WIDTH + column] = round_to_number(all > 0 ? x / all : 0);
  }
}
