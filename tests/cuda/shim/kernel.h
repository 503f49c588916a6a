// What kernels are compiled with where there is no GPU: CUDA's words for g++, and every access told to the engine of driver.cpp.
#pragma once
#include <cmath>
#include <cstring>

struct ShimIndex { unsigned x; };
extern "C" {
extern ShimIndex shim_thread, shim_block;
extern unsigned char* shim_shared;
void shim_touch(const void* place, unsigned bytes, int writes, int line);
void shim_touch_shared(const void* place, unsigned bytes, int writes, int line);
void shim_barrier(int line);
void shim_barrier_warp(int line);
unsigned shim_shuffle(unsigned value, int mask, int line);
const unsigned* shim_gather(unsigned value, int line);
}

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define threadIdx shim_thread
#define blockIdx shim_block
#define shared shim_shared
#define INFINITE __builtin_inff()
#define NOT_A_NUMBER __builtin_nanf("")

#ifdef SHIM_FAST
#define shim_touch(...)
#define shim_touch_shared(...)
#endif

template <class T> inline T shim_load(const T* from, int line) {
  shim_touch(from, sizeof(T), 0, line);
  return *from;
}
template <class T> inline void shim_store(T* to, T value, int line) {
  shim_touch(to, sizeof(T), 1, line);
  *to = value;
}
template <class T> inline T shim_get(const T* from, int line) {
  shim_touch_shared(from, sizeof(T), 0, line);
  T value;
  memcpy(&value, from, sizeof(T));
  return value;
}
template <class T> inline void shim_put(T* to, T value, int line) {
  shim_touch_shared(to, sizeof(T), 1, line);
  memcpy(to, &value, sizeof(T));
}
#define load(from) shim_load(from, __LINE__)
#define store(to, ...) shim_store(to, __VA_ARGS__, __LINE__)
#define get(from) shim_get(from, __LINE__)
#define put(to, ...) shim_put(to, __VA_ARGS__, __LINE__)
#define raise(run) ((run)->suspect = 1)
#define barrier() shim_barrier(__LINE__)
#define barrier_warp() shim_barrier_warp(__LINE__)
#define shuffle_xor(value, mask) shim_shuffle(value, mask, __LINE__)

inline unsigned shim_ballot(bool x, int line) {
  const unsigned* all = shim_gather(x, line);
  unsigned bits = 0;
  for (int lane = 0; lane < 32; ++lane) bits |= all[lane] << lane;
  return bits;
}
#define ballot(x) shim_ballot(x, __LINE__)
inline int lowest(unsigned bits) { return __builtin_ctz(bits); }
inline unsigned high_bits(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a * b) >> 32); }
// As PTX's cvt.rzi.s32.f32: saturates, 0 for what is not a number.
inline int to_int(float x) {
  if (x != x) return 0;
  if (x >= 2147483648.0f) return 2147483647;
  if (x <= -2147483648.0f) return -2147483647 - 1;
  return (int)x;
}
// Tensor cores: the warp's fragments are brought together, each lane computes its own results.
inline unsigned round_tf32(float x) {
  unsigned bits;
  memcpy(&bits, &x, 4);
  if ((bits & 0x7f800000u) == 0x7f800000u) return bits;
  return (bits + 0x1000u) & ~0x1fffu;  // To nearest, ties away from zero.
}
inline unsigned round_bf16(float x) {
  unsigned bits;
  memcpy(&bits, &x, 4);
  if (x != x) return 0x7fff;
  return (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;  // To nearest, ties to even.
}
inline unsigned pack_bf16(float low, float high) { return round_bf16(low) | round_bf16(high) << 16; }
inline float shim_float(unsigned bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
// A word of a fragment, as the factors that it holds.
inline float shim_factor(unsigned word, int number, int each) {
  return each == 1 ? shim_float(word) : shim_float(number ? word & 0xffff0000u : word << 16);
}
// c += a b of 16 x 8 results, summed over 8 words of `each` factors.
inline void shim_mma(float* c, const unsigned* a, const unsigned* b, int each, int line) {
  unsigned words[6][32];
  const unsigned own[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  for (int word = 0; word < 6; ++word) {
    const unsigned* all = shim_gather(own[word], line);
    memcpy(words[word], all, sizeof words[word]);
  }
  const int lane = (int)(threadIdx.x % 32);
  for (int part = 0; part < 4; ++part) {
    const int row = lane / 4 + part / 2 * 8, column = lane % 4 * 2 + part % 2;
    float sum = c[part];
    for (int word = 0; word < 8; ++word)
      for (int number = 0; number < each; ++number)
        sum += shim_factor(words[row / 8 + word / 4 * 2][row % 8 * 4 + word % 4], number, each) *
               shim_factor(words[4 + word / 4][column * 4 + word % 4], number, each);
    c[part] = sum;
  }
}
#define mma_bf16(c, a, b) shim_mma(c, a, b, 2, __LINE__)
#define mma_tf32(c, a, b) shim_mma(c, a, b, 1, __LINE__)

template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return b > a ? b : a; }
