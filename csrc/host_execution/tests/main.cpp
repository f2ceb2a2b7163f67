// SPDX-License-Identifier: MIT
// host_execution_test [--schedules] [test ...]         all tests without names
// host_execution_test --fault name right|wrong
// --schedules: each test in first-in and last-in order and in ten random ones; otherwise as the
// environment says.
#include <cstdio>
#include <cstring>

#include "layer_test.h"

namespace hx_test {

namespace {
int failures = 0;
}

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}
std::vector<Fault>& faults() {
  static std::vector<Fault> all;
  return all;
}

void expect_at(bool right, const char* what, const char* file, int line) {
  if (right) return;
  ++failures;
  std::printf("  %s:%d: %s\n", hx::name_of({file, line}), line, what);
}

std::string error_of(const std::function<void()>& launch) {
  try {
    launch();
  } catch (const hx::Error& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

void with_options(const std::function<void(hx::Options&)>& change,
                  const std::function<void()>& body) {
  const hx::Options before = hx::options();
  change(hx::options());
  body();
  hx::options() = before;
}

namespace {

void run(const Test& test, const char* schedule) {
  const int before = failures;
  try {
    test.run();
  } catch (const std::exception& error) {
    ++failures;
    std::printf("  %s\n", error.what());
  }
  if (failures > before) std::printf("FAIL %s (%s)\n", test.name, schedule);
}

void run_in_schedules(const Test& test) {
  hx::options().schedule = hx::Schedule::kFifo;
  run(test, "fifo");
  hx::options().schedule = hx::Schedule::kLifo;
  run(test, "lifo");
  hx::options().schedule = hx::Schedule::kRandom;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    hx::options().seed = seed;
    run(test, ("random, seed " + std::to_string(seed)).c_str());
  }
}

}  // namespace
}  // namespace hx_test

int main(int argc, char** argv) {
  using namespace hx_test;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (argc == 4 && std::strcmp(argv[1], "--fault") == 0) {
    for (const Fault& fault : faults()) {
      if (std::strcmp(argv[2], fault.name)) continue;
      const std::string error = error_of([&] { fault.run(std::strcmp(argv[3], "wrong") == 0); });
      std::printf("%s\n", error.c_str());
      if (hx::options().list_sites) hx::print_sites();
      return error.empty() && failures == 0 ? 0 : 1;
    }
    std::printf("no fault %s\n", argv[2]);
    return 2;
  }
  const bool schedules = argc > 1 && std::strcmp(argv[1], "--schedules") == 0;
  const int first = schedules ? 2 : 1;
  int found = 0;
  for (const Test& test : tests()) {
    bool wanted = first == argc;
    for (int i = first; i < argc; ++i) wanted |= std::strcmp(argv[i], test.name) == 0;
    if (!wanted) continue;
    ++found;
    if (schedules) {
      run_in_schedules(test);
    } else {
      run(test, "as given");
    }
  }
  std::printf("%d tests, %d failures\n", found, failures);
  return failures == 0 && found > 0 ? 0 : 1;
}
