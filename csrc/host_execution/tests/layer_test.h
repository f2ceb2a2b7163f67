// SPDX-License-Identifier: MIT
// Tests of the layer itself: small kernels, run by host_execution_test. A test is a function,
// registered by LAYER_TEST; tests/host_execution/test_layer.py finds them by that word.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cuda/gpu/gpu.h"

namespace hx_test {

struct Test {
  const char* name;
  void (*run)();
};
std::vector<Test>& tests();
// Kernels that do something wrong if `wrong`, for sanitizers to find; not run with the tests.
struct Fault {
  const char* name;
  void (*run)(bool wrong);
};
std::vector<Fault>& faults();

struct Register {
  Register(const char* name, void (*run)()) { tests().push_back({name, run}); }
  Register(const char* name, void (*run)(bool)) { faults().push_back({name, run}); }
};
#define LAYER_TEST(name)                                                \
  static void test_##name();                                            \
  static const ::hx_test::Register register_##name(#name, test_##name); \
  static void test_##name()
#define LAYER_FAULT(name)                                                \
  static void fault_##name(bool wrong);                                  \
  static const ::hx_test::Register register_##name(#name, fault_##name); \
  static void fault_##name([[maybe_unused]] bool wrong)

// Counts a failure and prints the line. Not for kernels.
void expect_at(bool right, const char* what, const char* file, int line);
#define EXPECT(condition) ::hx_test::expect_at(condition, #condition, __FILE__, __LINE__)

// The error of a launch, "" if there was none.
std::string error_of(const std::function<void()>& launch);
bool contains(const std::string& text, const std::string& part);
// The kernel runs when it is right and ends with this report when it is wrong.
#define EXPECT_ERROR_IF_WRONG(report, launch)                                                    \
  for (const bool wrong : {false, true}) {                                                       \
    const std::string error = ::hx_test::error_of([&] { launch; });                              \
    ::hx_test::expect_at(wrong ? ::hx_test::contains(error, report) : error.empty(),             \
                         (std::string(wrong ? "wrong: " : "right: ") + error).c_str(), __FILE__, \
                         __LINE__);                                                              \
  }

inline gpu::Config shape(dim3 grid, dim3 block, size_t smem = 0, bool cooperative = false) {
  gpu::Config config;
  config.grid = grid;
  config.block = block;
  config.smem = smem;
  config.cooperative = cooperative;
  return config;
}

// Runs `body` with the options changed by `change`.
void with_options(const std::function<void(hx::Options&)>& change,
                  const std::function<void()>& body);

}  // namespace hx_test
