// Enough of a GPU to run a kernel on a CPU: blocks one after the other, the threads of a block as fibers that
// take turns at barriers. Slow and exact: what it shows is arithmetic and indices, not races within a warp.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <functional>
#include <vector>

#define EMULATED
#define __global__
#define __device__
#define __forceinline__ inline
// One block runs at a time, so what its threads share is static.
#define __shared__ static

using std::max;
using std::min;

struct dim3 {
  unsigned int x, y, z;
};
static dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace emulation {
struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  bool done;
};
static ucontext_t home;
static std::vector<Fiber> fibers;
static std::vector<float> lanes;
static std::vector<size_t> arrived, left;
static size_t waiting, generation, current;
static std::function<void()> body;

inline void give_way() {
  size_t own = current;
  swapcontext(&fibers[own].context, &home);
  current = own;
  threadIdx = {(unsigned int)own, 0, 0};
}

inline void start() {
  body();
  fibers[current].done = true;
  swapcontext(&fibers[current].context, &home);
}

inline void barrier() {
  size_t at = generation;
  if (++waiting == fibers.size()) {
    waiting = 0;
    generation++;
  }
  while (generation == at) give_way();
}

// Everyone of a warp shows a number and takes that of another.
inline float exchange(float x, unsigned int apart) {
  size_t own = current, warp = own / 32;
  lanes[own] = x;
  size_t goal = (arrived[warp]++ / 32 + 1) * 32;
  while (arrived[warp] < goal) give_way();
  float other = lanes[own ^ apart];
  goal = (left[warp]++ / 32 + 1) * 32;
  while (left[warp] < goal) give_way();
  return other;
}

inline void launch(dim3 grid, unsigned int threads, std::function<void()> kernel) {
  gridDim = grid;
  blockDim = {threads, 1, 1};
  body = kernel;
  for (unsigned int z = 0; z < grid.z; z++)
    for (unsigned int y = 0; y < grid.y; y++)
      for (unsigned int x = 0; x < grid.x; x++) {
        blockIdx = {x, y, z};
        fibers = std::vector<Fiber>(threads);
        lanes.assign(threads, 0);
        arrived.assign(threads / 32 + 1, 0);
        left.assign(threads / 32 + 1, 0);
        waiting = generation = 0;
        for (auto& fiber : fibers) {
          fiber.stack.resize(64 << 10);
          fiber.done = false;
          getcontext(&fiber.context);
          fiber.context.uc_stack = {fiber.stack.data(), 0, fiber.stack.size()};
          fiber.context.uc_link = nullptr;
          makecontext(&fiber.context, start, 0);
        }
        bool busy = true;
        while (busy) {
          busy = false;
          for (size_t i = 0; i < fibers.size(); i++) {
            if (fibers[i].done) continue;
            busy = true;
            current = i;
            threadIdx = {(unsigned int)i, 0, 0};
            swapcontext(&home, &fibers[i].context);
          }
        }
      }
}
}  // namespace emulation

inline void __syncthreads() { emulation::barrier(); }
inline float __shfl_xor_sync(unsigned int, float x, int apart) { return emulation::exchange(x, (unsigned int)apart); }
inline unsigned int __float_as_uint(float x) {
  unsigned int bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float __uint_as_float(unsigned int bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
