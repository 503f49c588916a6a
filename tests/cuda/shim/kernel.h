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

inline unsigned high_bits(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a * b) >> 32); }
// As PTX's cvt.rzi.s32.f32: saturates, 0 for what is not a number.
inline int to_int(float x) {
  if (x != x) return 0;
  if (x >= 2147483648.0f) return 2147483647;
  if (x <= -2147483648.0f) return -2147483647 - 1;
  return (int)x;
}
template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return b > a ? b : a; }
