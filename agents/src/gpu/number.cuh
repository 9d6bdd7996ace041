// The numbers of a network: NUMBER_F32, NUMBER_BF16 or NUMBER_F16 says how they are kept. Sums are in float.
#if defined(NUMBER_BF16)
typedef unsigned short number;
__device__ __forceinline__ float widen(number x) { return __uint_as_float((unsigned int)x << 16); }
// To the nearest, ties to even; what is not a number stays one.
__device__ __forceinline__ number round_to_number(float x) {
  unsigned int bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
  return (number)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
#elif defined(NUMBER_F16)
typedef unsigned short number;
#ifdef EMULATED
__device__ __forceinline__ float widen(number x) {
  _Float16 y;
  __builtin_memcpy(&y, &x, 2);
  return (float)y;
}
__device__ __forceinline__ number round_to_number(float x) {
  _Float16 y = (_Float16)x;
  number bits;
  __builtin_memcpy(&bits, &y, 2);
  return bits;
}
#else
__device__ __forceinline__ float widen(number x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
}
__device__ __forceinline__ number round_to_number(float x) {
  number y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
#endif
#else
typedef float number;
__device__ __forceinline__ float widen(number x) { return x; }
__device__ __forceinline__ number round_to_number(float x) { return x; }
#endif

#define LANES 32
#define EVERY_LANE 0xffffffffu

// The sum over the lanes of a warp, the same in all of them, always in the same order.
__device__ __forceinline__ float sum_of_lanes(float x) {
  for (int apart = LANES / 2; apart > 0; apart /= 2) x += __shfl_xor_sync(EVERY_LANE, x, apart);
  return x;
}
