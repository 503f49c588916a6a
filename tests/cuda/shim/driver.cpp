// libcuda.so.1 where there is no GPU: a driver whose device is this process, and an engine that runs kernels block by block.
//
// A CUDA thread runs until it waits for others, then the next one does; those that wait have stacks of their own. Every
// access is held against the memory that was given, and against what other threads touched since the last barrier.
//
// SHIM_DRIVER=11040 is the version that it says, SHIM_DEVICES=0 has none, SHIM_ARCH=80 is another GPU, SHIM_MEMORY=1000000
// is all its memory, SHIM_LOST=7 fails at the seventh launch and ever after, SHIM_RACES=0 looks for no races.
#include <csetjmp>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <functional>
#include <map>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <utility>
#include <vector>

struct ShimIndex { unsigned x; };
extern "C" {
ShimIndex shim_thread, shim_block;
unsigned char* shim_shared;
}

namespace {

long setting(const char* name, long otherwise) {
  const char* text = getenv(name);
  return text ? atol(text) : otherwise;
}

// ---- what went wrong

std::string failure;
bool lost = false;

// ---- shadows: who touched a word last

struct Touch {
  uint32_t run;    // the launch; of shared memory the block's own number
  uint32_t block;
  uint32_t epoch;  // barriers of the block before it
  uint16_t warp_epoch;
  uint16_t thread;
  uint16_t line;
  uint8_t byte;    // which byte of the word, for elements of one byte
  uint8_t many;    // of reads since the barrier: by several threads of a warp, of a block, by several blocks
};
enum { ONE, WARP, BLOCK, BLOCKS };
struct Shadow { Touch write, read; };

struct Region {
  uintptr_t start;
  size_t bytes;
  Shadow* shadow;
};
std::map<uintptr_t, Region> regions;
Region* last_region = nullptr;
size_t used = 0;

Shadow* shadows(size_t bytes) {
  const size_t length = (bytes / 4 + 1) * sizeof(Shadow);
  return (Shadow*)mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

// ---- the block that runs

constexpr size_t STACK = 256 << 10;
constexpr unsigned MOST_THREADS = 1024;
constexpr size_t MOST_SHARED = 48 << 10;
// What the kernel at hand has of it.
size_t shared_size = 0;

struct Fiber {
  ucontext_t context;
  jmp_buf place;
  bool begun;
};
struct Thread {
  int fiber;  // -1 not begun
  bool done;
};
struct Warp {
  unsigned count, generation;
  int line;
  unsigned values[2][32];
  uint16_t epoch;
};

typedef void (*Kernel)(...);

struct Block {
  Kernel kernel;
  uint64_t* arguments;
  size_t count;
  unsigned threads, next, current, alive;
  unsigned arrived, generation, epoch;
  int line;
  std::vector<Thread> thread;
  std::vector<Warp> warp;
  std::vector<Fiber> fibers;
  std::vector<int> spare;
  char* stacks = nullptr;
  jmp_buf engine;
} block;

uint32_t run_number = 0, shared_number = 0;
bool races = true;
Shadow* shared_shadow = nullptr;
unsigned char* shared_memory = nullptr;

[[noreturn]] void fail(const char* form, ...) {
  char text[512];
  va_list parts;
  va_start(parts, form);
  vsnprintf(text, sizeof text, form, parts);
  va_end(parts);
  if (failure.empty()) failure = text;
  fprintf(stderr, "shim: block %u, thread %u: %s\n", shim_block.x, block.current, text);
  _longjmp(block.engine, 2);
}

void yield() {
  Fiber& fiber = block.fibers[block.thread[block.current].fiber];
  if (!_setjmp(fiber.place)) _longjmp(block.engine, 1);
}

// What a GPU takes: 4 KiB.
constexpr size_t MOST_ARGUMENTS = 512;

template <size_t... place>
void call_with(Kernel kernel, const uint64_t* arguments, std::index_sequence<place...>) {
  kernel(arguments[place]...);
}

// By the C calling convention a function takes those that it has of more.
void call(Kernel kernel, const uint64_t* arguments, size_t count) {
  if (count <= 8) return call_with(kernel, arguments, std::make_index_sequence<8>());
  if (count <= 32) return call_with(kernel, arguments, std::make_index_sequence<32>());
  call_with(kernel, arguments, std::make_index_sequence<MOST_ARGUMENTS>());
}

// Runs threads on this stack as long as none waits.
void fiber_main() {
  for (;;) {
    const unsigned thread = block.current;
    call(block.kernel, block.arguments, block.count);
    block.thread[thread].done = true;
    --block.alive;
    const int fiber = block.thread[thread].fiber;
    if (block.next < block.threads) {
      block.current = block.next++;
      block.thread[block.current].fiber = fiber;
      shim_thread.x = block.current;
      continue;
    }
    block.spare.push_back(fiber);
    _longjmp(block.engine, 1);
  }
}

void resume(unsigned number) {
  block.current = number;
  shim_thread.x = number;
  Thread& thread = block.thread[number];
  if (thread.fiber < 0) {
    if (block.spare.empty()) {
      const int made = (int)block.fibers.size();
      block.fibers.emplace_back();
      block.spare.push_back(made);
    }
    thread.fiber = block.spare.back();
    block.spare.pop_back();
    Fiber& fiber = block.fibers[thread.fiber];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = block.stacks + thread.fiber * STACK;
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
    setcontext(&fiber.context);
  }
  _longjmp(block.fibers[thread.fiber].place, 1);
}

bool run_block() {
  const unsigned threads = block.threads;
  if (!block.stacks) {
    block.stacks = (char*)mmap(nullptr, MOST_THREADS * STACK, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    block.fibers.reserve(MOST_THREADS);
  }
  block.thread.assign(threads, Thread{-1, false});
  block.warp.assign((threads + 31) / 32, Warp{});
  block.fibers.clear();
  block.spare.clear();
  block.next = 0, block.alive = threads, block.arrived = 0, block.generation = 0, block.epoch = 0;
  ++shared_number;
  volatile bool stuck = false;
  while (block.alive) {
    stuck = true;
    volatile unsigned number = 0;
    for (; number < threads; number = number + 1) {
      if (block.thread[number].done) continue;
      const unsigned before = block.alive + 0, generation = block.generation, arrived = block.arrived;
      unsigned warps = block.warp[number / 32].generation * 64 + block.warp[number / 32].count;
      const bool fresh = block.thread[number].fiber < 0;
      if (fresh) block.next = number + 1;
      const int back = _setjmp(block.engine);
      if (back == 0) resume(number);
      if (back == 2) return false;
      if (fresh || block.alive != before || block.generation != generation || block.arrived != arrived ||
          block.warp[number / 32].generation * 64 + block.warp[number / 32].count != warps)
        stuck = false;
    }
    if (stuck) {
      if (!_setjmp(block.engine))
        fail("threads wait for each other, one at line %d: a barrier that not all of them meet", block.line);
      return false;
    }
  }
  return true;
}

// ---- touching memory

bool disordered(const Touch& other, uint32_t run, bool is_shared) {
  if (other.run != run) return false;
  if (!is_shared && other.block != shim_block.x) return true;
  if (other.thread == block.current) return false;
  if (other.epoch != block.epoch) return false;
  return other.thread / 32 != block.current / 32 || other.warp_epoch == block.warp[block.current / 32].epoch;
}

void touch(Shadow& shadow, uint32_t run, bool is_shared, uint8_t byte, bool writes, int line) {
  Touch& write = shadow.write;
  Touch& read = shadow.read;
  const Touch mine = {run, shim_block.x, block.epoch, block.warp[block.current / 32].epoch,
                      (uint16_t)block.current, (uint16_t)line, byte, 0};
  const char* where = is_shared ? "shared" : "global";
  if (write.run == run && write.byte == byte && disordered(write, run, is_shared))
    fail("race in %s memory: line %d touches what block %u, thread %u has written at line %d with no barrier between",
         where, line, write.block, write.thread, write.line);
  if (!writes) {
    uint8_t many = ONE;
    if (read.run == run && read.byte == byte) {
      const bool same_warp = read.thread / 32 == mine.thread / 32;
      if (!is_shared && (read.block != mine.block || read.many == BLOCKS)) many = BLOCKS;
      else if (read.epoch == mine.epoch && (read.many == BLOCK || !same_warp)) many = BLOCK;
      else if (disordered(read, run, is_shared) || (read.many == WARP && read.epoch == mine.epoch &&
               read.warp_epoch == mine.warp_epoch)) many = WARP;
    }
    read = mine;
    read.many = many;
    return;
  }
  if (read.run == run && read.byte == byte) {
    const bool since_barrier = read.epoch == mine.epoch;
    const bool since_warps = since_barrier && read.warp_epoch == mine.warp_epoch;
    if (disordered(read, run, is_shared) || read.many == BLOCKS || (read.many == BLOCK && since_barrier) ||
        (read.many == WARP && since_warps))
      fail("race in %s memory: line %d writes what block %u, thread %u has read at line %d with no barrier between",
           where, line, read.block, read.thread, read.line);
  }
  write = mine;
}

}  // namespace

extern "C" {

const char* shim_failure() { return failure.c_str(); }
void shim_forget() { failure.clear(), lost = false; }

void shim_touch(const void* place, unsigned bytes, int writes, int line) {
  const uintptr_t address = (uintptr_t)place;
  Region* region = last_region;
  if (!region || address < region->start || address + bytes > region->start + region->bytes) {
    auto next = regions.upper_bound(address);
    if (next == regions.begin()) fail("line %d touches memory that nobody gave", line);
    region = &std::prev(next)->second;
    if (address + bytes > region->start + region->bytes) fail("line %d touches memory behind its end", line);
    last_region = region;
  }
  if (address % bytes) fail("line %d touches an element across its neighbours", line);
  if (!races) return;
  const size_t offset = address - region->start;
  touch(region->shadow[offset / 4], run_number, false, offset % 4, writes, line);
  if (bytes == 8) touch(region->shadow[offset / 4 + 1], run_number, false, offset % 4, writes, line);
}

void shim_touch_shared(const void* place, unsigned bytes, int writes, int line) {
  const size_t offset = (uintptr_t)place - (uintptr_t)shim_shared;
  if (offset + bytes > shared_size || offset % 4) fail("line %d touches shared memory that is not there", line);
  if (!races) return;
  for (unsigned word = 0; word < bytes; word += 4)
    touch(shared_shadow[(offset + word) / 4], shared_number, true, 0, writes, line);
}

void shim_barrier(int line) {
  if (block.arrived == 0) block.line = line;
  else if (block.line != line)
    fail("one thread waits at the barrier of line %d, another at line %d", block.line, line);
  const unsigned generation = block.generation;
  if (++block.arrived == block.threads) {
    block.arrived = 0, ++block.generation, ++block.epoch;
    return;
  }
  while (block.generation == generation) yield();
}

static unsigned* meet(unsigned value, int line) {
  Warp& warp = block.warp[block.current / 32];
  if (warp.count == 0) warp.line = line;
  else if (warp.line != line) fail("lanes of a warp wait at line %d and at line %d", warp.line, line);
  const unsigned generation = warp.generation;
  unsigned* values = warp.values[generation & 1];
  values[block.current % 32] = value;
  if (++warp.count == 32) warp.count = 0, ++warp.generation;
  else while (warp.generation == generation) yield();
  return values;
}

void shim_barrier_warp(int line) {
  const unsigned generation = block.warp[block.current / 32].generation;
  meet(0, line);
  // The first to go on has seen all others arrive.
  Warp& warp = block.warp[block.current / 32];
  if (warp.generation == generation + 1) warp.epoch = (uint16_t)(generation + 1);
}

unsigned shim_shuffle(unsigned value, int mask, int line) { return meet(value, line)[(block.current % 32) ^ mask]; }
const unsigned* shim_gather(unsigned value, int line) { return meet(value, line); }

}

// ---- the driver

namespace {

struct Function { Kernel kernel; };
typedef std::vector<std::function<int()>> Recorded;
struct Stream {
  bool records = false;
  Recorded recorded;
};
long launches = 0;

int act(void* handle, std::function<int()> work) {
  Stream& stream = *(Stream*)handle;
  if (lost) return 719;
  if (stream.records) {
    stream.recorded.push_back(std::move(work));
    return 0;
  }
  return work();
}

int launch(Kernel kernel, unsigned blocks, unsigned threads, unsigned shared_bytes, std::vector<uint64_t>& arguments,
           size_t count) {
  const long fatal = setting("SHIM_LOST", 0);
  if (++launches == fatal) lost = true;
  if (lost) return 719;
  races = setting("SHIM_RACES", 1);
  if (!shared_memory) {
    shared_memory = (unsigned char*)aligned_alloc(256, MOST_SHARED);
    shared_shadow = shadows(MOST_SHARED);
  }
  ++run_number;
  block.kernel = kernel, block.arguments = arguments.data(), block.count = count, block.threads = threads;
  shim_shared = shared_memory, shared_size = shared_bytes;
  for (unsigned number = 0; number < blocks; ++number) {
    shim_block.x = number;
    memset(shared_memory, 0xff, shared_bytes);
    if (!run_block()) {
      lost = true;
      return 719;
    }
  }
  return 0;
}

}  // namespace

extern "C" {
int cuInit(unsigned) { return setting("SHIM_DEVICES", 1) ? 0 : 100; }
int cuDriverGetVersion(int* version) { return *version = (int)setting("SHIM_DRIVER", 13000), 0; }
int cuDeviceGetCount(int* count) { return *count = (int)setting("SHIM_DEVICES", 1), 0; }
int cuDeviceGet(int* device, int number) { return *device = number, 0; }
int cuDeviceGetName(char* name, int length, int) { return snprintf(name, length, "shim"), 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = setting("SHIM_MEMORY", 8L << 30), 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  const int arch = (int)setting("SHIM_ARCH", 90);
  *value = attribute == 75 ? arch / 10 : attribute == 76 ? arch % 10 : 132;
  return 0;
}
int cuDevicePrimaryCtxRetain(void** context, int) { return *context = (void*)16, 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuCtxSetCurrent(void*) { return 0; }
int cuGetErrorName(int status, const char** name) {
  *name = status == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : status == 719 ? "CUDA_ERROR_LAUNCH_FAILED" : "CUDA_ERROR_UNKNOWN";
  return 0;
}
int cuGetErrorString(int status, const char** words) {
  *words = status == 2 ? "out of memory" : status == 719 ? "unspecified launch failure" : "unknown error";
  return 0;
}
int cuMemGetInfo_v2(size_t* free, size_t* total) {
  *total = setting("SHIM_MEMORY", 8L << 30);
  *free = *total - used;
  return 0;
}
int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
  if (lost) return 719;
  if (used + bytes > (size_t)setting("SHIM_MEMORY", 8L << 30)) return 2;
  used += bytes;
  void* memory = aligned_alloc(256, (bytes + 511) / 256 * 256);
  memset(memory, 0xff, bytes);
  *address = (uint64_t)memory;
  regions[*address] = Region{*address, bytes, shadows(bytes)};
  last_region = nullptr;
  return 0;
}
int cuMemFree_v2(uint64_t address) {
  Region& region = regions[address];
  used -= region.bytes;
  munmap(region.shadow, (region.bytes / 4 + 1) * sizeof(Shadow));
  regions.erase(address);
  last_region = nullptr;
  free((void*)address);
  return 0;
}
int cuMemHostAlloc(void** memory, size_t bytes, unsigned) { return *memory = malloc(bytes), 0; }
int cuMemFreeHost(void* memory) { return free(memory), 0; }
int cuMemsetD8Async(uint64_t at, unsigned char value, size_t bytes, void* stream) {
  return act(stream, [=] { return memset((void*)at, value, bytes), 0; });
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
  return act(stream, [=] { return memcpy((void*)to, from, bytes), 0; });
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
  return act(stream, [=] { return memcpy(to, (const void*)from, bytes), 0; });
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
  return act(stream, [=] { return memcpy((void*)to, (const void*)from, bytes), 0; });
}
int cuModuleLoadData(void** module, const void* image) {
  // The length of an ELF file of ours: the end of its section headers.
  const unsigned char* bytes = (const unsigned char*)image;
  if (memcmp(bytes, "\177ELF", 4)) return 200;
  uint64_t headers;
  uint16_t size, count;
  memcpy(&headers, bytes + 40, 8), memcpy(&size, bytes + 58, 2), memcpy(&count, bytes + 60, 2);
  char path[] = "/tmp/shim-XXXXXX";
  const int file = mkstemp(path);
  const size_t length = headers + (size_t)size * count;
  if (file < 0 || write(file, bytes, length) != (ssize_t)length) return 2;
  *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!*module) fprintf(stderr, "shim: %s\n", dlerror());
  close(file);
  unlink(path);
  return *module ? 0 : 200;
}
int cuModuleUnload(void* module) { return dlclose(module), 0; }
int cuModuleGetFunction(void** function, void* module, const char* name) {
  *function = dlsym(module, name);
  return *function ? 0 : 500;
}
int cuLaunchKernel(void* function, unsigned blocks, unsigned y, unsigned z, unsigned threads, unsigned ty, unsigned tz,
                   unsigned shared_bytes, void* stream, void**, void** extra) {
  if (!blocks || y * z * ty * tz != 1 || !threads || threads > MOST_THREADS || shared_bytes > (48u << 10)) return 1;
  const size_t bytes = *(size_t*)extra[3];
  if (bytes > MOST_ARGUMENTS * 8 || bytes % 8) return 1;
  std::vector<uint64_t> arguments(MOST_ARGUMENTS);
  memcpy(arguments.data(), extra[1], bytes);
  const Kernel kernel = (Kernel)function;
  return act(stream, [=]() mutable { return launch(kernel, blocks, threads, shared_bytes, arguments, bytes / 8); });
}
int cuStreamCreate(void** stream, unsigned) { return *stream = new Stream, 0; }
int cuStreamDestroy_v2(void* stream) { return delete (Stream*)stream, 0; }
int cuStreamSynchronize(void*) { return lost ? 719 : 0; }
int cuStreamBeginCapture_v2(void* stream, int) {
  ((Stream*)stream)->records = true;
  ((Stream*)stream)->recorded.clear();
  return 0;
}
int cuStreamEndCapture(void* stream, void** graph) {
  ((Stream*)stream)->records = false;
  *graph = new Recorded(std::move(((Stream*)stream)->recorded));
  return 0;
}
int cuGraphInstantiateWithFlags(void** exec, void* graph, unsigned long long) {
  return *exec = new Recorded(*(Recorded*)graph), 0;
}
int cuGraphLaunch(void* exec, void*) {
  for (auto& work : *(Recorded*)exec)
    if (int status = work()) return status;
  return 0;
}
int cuGraphDestroy(void* graph) { return delete (Recorded*)graph, 0; }
int cuGraphExecDestroy(void* exec) { return delete (Recorded*)exec, 0; }
int cuEventCreate(void** event, unsigned) { return *event = malloc(8), 0; }
int cuEventDestroy_v2(void* event) { return free(event), 0; }
int cuEventRecord(void*, void*) { return 0; }
int cuEventElapsedTime(float* milliseconds, void*, void*) { return *milliseconds = 0.001f, 0; }
}
