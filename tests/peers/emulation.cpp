// The kernels for a GPU as functions that Python can call; compiled once for each shape by emulation.py.
#include "emulation.hpp"

#include "../../agents/src/gpu/number.cuh"

#if defined(PAGED)
#include "../../agents/src/gpu/paged.cu"

extern "C" void run_keep(const number* keys, const number* values, const address* pages, const unsigned int* first,
                         const int* positions, int layer, int rows) {
  emulation::launch({(unsigned)rows, KEY_HEADS, 1}, WIDTH < 256 ? WIDTH : 256,
                    [=] { keep(keys, values, pages, first, positions, layer); });
}

extern "C" void run_attend(const number* queries, const address* pages, const unsigned int* first, const int* positions,
                           int layer, int window, float scale, number* mixed, float* partial, int rows, int spans) {
  emulation::launch({(unsigned)rows, KEY_HEADS * PARTS, (unsigned)spans}, WARPS * LANES, [=] {
    attend(queries, pages, first, positions, layer, window, scale, mixed, partial);
  });
  if (spans > 1)
    emulation::launch({(unsigned)rows, HEADS, 1}, WIDTH < 256 ? WIDTH : 256, [=] { join(partial, spans, mixed); });
}
#elif defined(LOW_RANK)
#include "../../agents/src/gpu/low_rank.cu"

extern "C" void run_low_rank(const number* x, int in, const word* changes, int most, float* narrow, number* y, int out,
                             const number* bias, int rows) {
  emulation::launch({(unsigned)rows, 1, 1}, WARPS * LANES, [=] { shrink(x, in, changes, most, narrow); });
  emulation::launch({(unsigned)rows, (unsigned)(out + 255) / 256, 1}, 256,
                    [=] { expand(y, out, changes, most, narrow, bias); });
}
#else
#include "../../agents/src/gpu/draw.cu"

extern "C" void run_draw(const float* logits, int vocabulary, const double* asks, unsigned int* tokens, int rows) {
  emulation::launch({(unsigned)rows, 1, 1}, THREADS, [=] { draw(logits, vocabulary, asks, tokens); });
}
#endif
