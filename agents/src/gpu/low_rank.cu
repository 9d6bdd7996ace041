// What adapters change in a linear map, each row under its own: y = output ∘ (stretch ∘ (w·x + outer ∘
// B(scale · inner ∘ A·x)) + bias), the parts of it that an adapter has (Punica, Chen et al. 2023, arXiv
// 2310.18547, calls the two halves shrink and expand).
//
// A row's change is eight words: the addresses of A [rank, in], B [out, rank], inner [rank], outer [out],
// stretch [out] and output [out], 0 where there is none, then the rank, then the scale (as the bits of a
// float). Parts are kept as the network's numbers are; sums are in float.
typedef unsigned long long word;
#define WORDS 8
#define WARPS 4

// The narrow products `narrow` [rows, most] of the inputs `x` [rows, in]. Grid rows, block WARPS * LANES.
extern "C" __global__ void shrink(const number* x, int in, const word* changes, int most, float* narrow) {
  int row = blockIdx.x, warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
  const word* own = changes + (size_t)row * WORDS;
  const number* a = (const number*)own[0];
  if (a == 0) return;
  const number* inner = (const number*)own[2];
  int rank = (int)own[6];
  float scale = __uint_as_float((unsigned int)own[7]);
  const number* from = x + (size_t)row * in;
  for (int r = warp; r < rank; r += WARPS) {
    const number* line = a + (size_t)r * in;
    float sum = 0;
    for (int i = lane; i < in; i += LANES) sum += widen(line[i]) * widen(from[i]);
    sum = sum_of_lanes(sum) * scale;
    if (lane == 0) narrow[(size_t)row * most + r] = inner ? sum * widen(inner[r]) : sum;
  }
}

// Adds what the narrow products give to `y` [rows, out]. `bias` is [out] or 0; `y` has it already. Grid
// (rows, parts of the outputs), any block.
extern "C" __global__ void expand(number* y, int out, const word* changes, int most, const float* narrow,
                                  const number* bias) {
  int row = blockIdx.x, o = blockIdx.y * blockDim.x + threadIdx.x;
  const word* own = changes + (size_t)row * WORDS;
  const number* b = (const number*)own[1];
  const number* outer = (const number*)own[3];
  const number* stretch = (const number*)own[4];
  const number* output = (const number*)own[5];
  if (o >= out || (b == 0 && output == 0)) return;
  size_t place = (size_t)row * out + o;
  float value = widen(y[place]);
  if (b) {
    int rank = (int)own[6];
    const number* line = b + (size_t)o * rank;
    const float* u = narrow + (size_t)row * most;
    float change = 0;
    for (int r = 0; r < rank; r++) change += widen(line[r]) * u[r];
    if (outer) change *= widen(outer[o]);
    if (stretch) {
      float shift = bias ? widen(bias[o]) : 0;
      value = widen(stretch[o]) * (value - shift + change) + shift;
    } else {
      value += change;
    }
  }
  if (output) value *= widen(output[o]);
  y[place] = round_to_number(value);
}
