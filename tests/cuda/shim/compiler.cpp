// libnvrtc.so.13 where there is no GPU: g++ makes a shared library of the kernels, which driver.cpp loads as an image.
// Built with SHIM_FOLDER, where kernel.h lies and the driver beside which the kernels are linked.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <unistd.h>

struct Program {
  std::string source, image, log;
};

static std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

extern "C" {
int nvrtcVersion(int* major, int* minor) {
  *major = 13, *minor = 0;
  return 0;
}
const char* nvrtcGetErrorString(int status) { return status == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR"; }
int nvrtcGetNumSupportedArchs(int* count) {
  *count = 3;
  return 0;
}
int nvrtcGetSupportedArchs(int* numbers) {
  numbers[0] = 80, numbers[1] = 90, numbers[2] = 100;
  return 0;
}
int nvrtcCreateProgram(void** program, const char* source, const char*, int, const char* const*, const char* const*) {
  *program = new Program{source, "", ""};
  return 0;
}
int nvrtcDestroyProgram(void** program) {
  delete (Program*)*program;
  *program = nullptr;
  return 0;
}
int nvrtcCompileProgram(void* handle, int, const char* const*) {
  Program& program = *(Program*)handle;
  // One text serves all architectures.
  static std::map<std::string, std::string> made;
  static std::mutex guard;
  const std::lock_guard<std::mutex> lock(guard);
  if (auto known = made.find(program.source); known != made.end()) {
    program.image = known->second;
    return 0;
  }
  char folder[] = "/tmp/shim-XXXXXX";
  if (!mkdtemp(folder)) return 1;
  const std::string base = folder, source = base + "/kernels.cpp", image = base + "/kernels.so", log = base + "/log";
  std::ofstream(source) << program.source;
  // Where nobody looks for races no access is looked at.
  const char* races = getenv("SHIM_RACES");
  const std::string speed = races && !strcmp(races, "0") ? "-O3 -march=native -DSHIM_FAST" : "-O1";
  const std::string call = "g++ -std=c++17 " + speed + " -fPIC -shared -ffp-contract=off -fno-strict-aliasing -w -include " SHIM_FOLDER
      "/kernel.h -o " + image + " " + source + " -L" SHIM_FOLDER " -l:libcuda.so.1 > " + log + " 2>&1";
  const int status = system(call.c_str());
  program.log = read(log);
  program.image = status ? "" : read(image);
  for (const std::string& path : {source, image, log}) unlink(path.c_str());
  rmdir(folder);
  if (!status) made[program.source] = program.image;
  return status ? 6 : 0;
}
int nvrtcGetProgramLogSize(void* program, size_t* bytes) {
  *bytes = ((Program*)program)->log.size() + 1;
  return 0;
}
int nvrtcGetProgramLog(void* program, char* log) {
  memcpy(log, ((Program*)program)->log.c_str(), ((Program*)program)->log.size() + 1);
  return 0;
}
int nvrtcGetCUBINSize(void* program, size_t* bytes) {
  *bytes = ((Program*)program)->image.size();
  return 0;
}
int nvrtcGetCUBIN(void* program, char* image) {
  memcpy(image, ((Program*)program)->image.data(), ((Program*)program)->image.size());
  return 0;
}
int nvrtcGetPTXSize(void* program, size_t* bytes) { return nvrtcGetCUBINSize(program, bytes); }
int nvrtcGetPTX(void* program, char* image) { return nvrtcGetCUBIN(program, image); }
}
