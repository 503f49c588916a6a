// What every kernel is written with. Sizes are 32 bits, addresses 64; no header is needed.
typedef unsigned int u32;
typedef unsigned long long u64;

// What differs from step to step: the arguments of a kernel are the same in all of them.
struct Run {
  u64 seed;
  u64 step;
  // Not 0 once something lasting became infinite or not a number.
  u32 suspect;
};

#define DEVICE __device__ __forceinline__
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)

#ifdef __CUDACC_RTC__
#define INFINITE __int_as_float(0x7f800000)
#define NOT_A_NUMBER __int_as_float(0x7fffffff)

// The shared memory of a block.
extern __shared__ __align__(16) unsigned char shared[];

template <class T> DEVICE T load(const T* from) { return *from; }
template <class T> DEVICE void store(T* to, T value) { *to = value; }
template <class T> DEVICE T get(const T* from) { return *from; }
template <class T> DEVICE void put(T* to, T value) { *to = value; }
DEVICE void raise(Run* run) { run->suspect = 1; }
DEVICE void barrier() { __syncthreads(); }
DEVICE void barrier_warp() { __syncwarp(); }
DEVICE u32 shuffle_xor(u32 value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
DEVICE u32 ballot(bool x) { return __ballot_sync(0xffffffffu, x); }
DEVICE int lowest(u32 bits) { return __ffs((int)bits) - 1; }
DEVICE u32 high_bits(u32 a, u32 b) { return __umulhi(a, b); }
DEVICE int to_int(float x) { return __float2int_rz(x); }

// Tensor cores: products of a warp, in the fragments of the PTX ISA.
DEVICE u32 round_tf32(float x) {
  u32 rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
  return rounded;
}
DEVICE u32 pack_bf16(float low, float high) {
  u32 packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
DEVICE void mma_bf16(float* c, const u32* a, const u32* b) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE void mma_tf32(float* c, const u32* a, const u32* b) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

#define NOWHERE 0x7fffffff

DEVICE int to_int(bool x) { return x; }
DEVICE int to_int(int x) { return x; }
DEVICE int add_int(int a, int b) { return (int)((u32)a + (u32)b); }
DEVICE int sub_int(int a, int b) { return (int)((u32)a - (u32)b); }
DEVICE int mul_int(int a, int b) { return (int)((u32)a * (u32)b); }
DEVICE int abs_int(int x) { return x < 0 ? sub_int(0, x) : x; }
// Rounds down; 0 for a zero divisor.
DEVICE int div_int(int a, int b) {
  if (b == 0) return 0;
  if (b == -1) return sub_int(0, a);
  const int quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}
DEVICE int rem_int(int a, int b) { return b == 0 ? 0 : sub_int(a, mul_int(div_int(a, b), b)); }

DEVICE bool exceeds(float b, float a) { return b > a || (b != b && a == a); }
DEVICE bool exceeds(int b, int a) { return b > a; }
DEVICE float max_of(float a, float b) { return exceeds(b, a) ? b : a; }
DEVICE float min_of(float a, float b) { return exceeds(-b, -a) ? b : a; }

// Stores what lives longer than the step, and notes where that is not finite.
DEVICE void store_watched(Run* run, float* to, float value) {
  if (!(fabsf(value) < INFINITE)) raise(run);
  store(to, value);
}

// Philox-4x32-10 (Salmon and others, SC 2011): the upper 24 bits of word 0.
DEVICE float uniform(Run* run, u32 stream, u64 element) {
  const u64 seed = load(&run->seed), step = load(&run->step);
  u32 c0 = (u32)element, c1 = (u32)(element >> 32), c2 = (u32)step, c3 = stream;
  u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const u32 low0 = 0xD2511F53u * c0, high0 = high_bits(0xD2511F53u, c0);
    const u32 low1 = 0xCD9E8D57u * c2, high1 = high_bits(0xCD9E8D57u, c2);
    c0 = high1 ^ c1 ^ k0, c1 = low1, c2 = high0 ^ c3 ^ k1, c3 = low0;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return (float)(c0 >> 8) * (1.0f / 16777216.0f);
}

// Reductions: take a value, join with another thread's.
struct Sum {
  float all;
  DEVICE void take(float x) { all += x; }
  DEVICE void join(Sum other) { all += other.all; }
  DEVICE float result() { return all; }
};
template <class T> struct Max {
  T most;
  DEVICE void take(T x) { if (exceeds(x, most)) most = x; }
  DEVICE void join(Max other) { take(other.most); }
  DEVICE T result() { return most; }
};
template <class T> struct ArgMax {
  T most;
  int at;
  DEVICE void take(T x, int place) { if (exceeds(x, most)) most = x, at = place; }
  DEVICE void join(ArgMax other) {
    const bool tie = !exceeds(other.most, most) && !exceeds(most, other.most);
    if (exceeds(other.most, most) || (tie && other.at < at)) *this = other;
  }
  DEVICE int result() { return at == NOWHERE ? 0 : at; }
};

template <class F> DEVICE F shuffled(F fold, int mask) {
  union { F fold; u32 words[sizeof(F) / 4]; } mine, other;
  mine.fold = fold;
#pragma unroll
  for (int word = 0; word < (int)(sizeof(F) / 4); ++word) other.words[word] = shuffle_xor(mine.words[word], mask);
  return other.fold;
}

// All members of a team, a power of two of neighbouring lanes, hold the whole afterwards.
template <int members, class F> DEVICE void join_warp(F& fold) {
#pragma unroll
  for (int mask = members / 2; mask > 0; mask /= 2) fold.join(shuffled(fold, mask));
}
// The same for all threads of a block.
template <int members, class F> DEVICE void join_block(F& fold) {
  F* slots = (F*)shared;
  join_warp<32>(fold);
  barrier();
  if (threadIdx.x % 32 == 0) put(slots + threadIdx.x / 32, fold);
  barrier();
  fold = get(slots);
#pragma unroll
  for (int warp = 1; warp < members / 32; ++warp) fold.join(get(slots + warp));
}
// The same for teams side by side.
template <int members, int teams, class F> DEVICE void join_columns(F& fold, int member, int row) {
  F* slots = (F*)shared;
  barrier();
  put(slots + member * teams + row, fold);
  barrier();
  fold = get(slots + row);
#pragma unroll
  for (int other = 1; other < members; ++other) fold.join(get(slots + other * teams + row));
}
// The value of the team's first member.
template <class T> DEVICE T from_first(T value, int member, int row) {
  T* slots = (T*)shared;
  barrier();
  if (member == 0) put(slots + row, value);
  barrier();
  return get(slots + row);
}
