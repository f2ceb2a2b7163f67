// SPDX-License-Identifier: MIT
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "bench.h"

namespace seq2seq_ext::kernel_bench {
namespace {

uint16_t half_bits(double value) {
  // Round to nearest even by hand: no CUDA header in this file's CUDA build.
  if (std::isnan(value)) return 0x7e00;
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double x = std::fabs(value);
  if (x >= 65520) return sign | 0x7c00;
  if (x < std::ldexp(1.0, -14))
    return sign | static_cast<uint16_t>(std::nearbyint(std::ldexp(x, 24)));
  int exponent;
  const double mantissa = std::frexp(x, &exponent);  // [0.5, 1)
  auto scaled = static_cast<int64_t>(std::nearbyint(std::ldexp(mantissa, 11)));
  if (scaled == 2048) scaled = 1024, ++exponent;
  return sign | static_cast<uint16_t>(((exponent + 14) << 10) | (scaled - 1024));
}

double half_value(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double x = exponent == 31  ? (mantissa ? NAN : INFINITY)
                   : exponent == 0 ? std::ldexp(mantissa, -24)
                                   : std::ldexp(mantissa + 1024, exponent - 25);
  return bits & 0x8000 ? -x : x;
}

std::vector<char> encode(DType dtype, const std::vector<double>& values) {
  std::vector<char> bytes(values.size() * kernels::size_of(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    const double value = values[i];
    switch (dtype) {
      case DType::kFloat64:
        std::memcpy(bytes.data() + 8 * i, &value, 8);
        break;
      case DType::kFloat32: {
        const float narrow = static_cast<float>(value);
        std::memcpy(bytes.data() + 4 * i, &narrow, 4);
        break;
      }
      case DType::kBFloat16: {
        const auto narrow = kernels::to_bfloat16(static_cast<float>(value));
        std::memcpy(bytes.data() + 2 * i, &narrow, 2);
        break;
      }
      default: {
        const uint16_t narrow = half_bits(value);
        std::memcpy(bytes.data() + 2 * i, &narrow, 2);
      }
    }
  }
  return bytes;
}

std::vector<double> decode(DType dtype, const std::vector<char>& bytes) {
  std::vector<double> values(bytes.size() / kernels::size_of(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    switch (dtype) {
      case DType::kFloat64:
        std::memcpy(&values[i], bytes.data() + 8 * i, 8);
        break;
      case DType::kFloat32: {
        float wide;
        std::memcpy(&wide, bytes.data() + 4 * i, 4);
        values[i] = wide;
        break;
      }
      default: {
        uint16_t bits;
        std::memcpy(&bits, bytes.data() + 2 * i, 2);
        values[i] = dtype == DType::kBFloat16 ? kernels::to_float(kernels::BFloat16{bits})
                                              : half_value(bits);
      }
    }
  }
  return values;
}

}  // namespace

double epsilon(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return std::ldexp(1.0, -52);
    case DType::kFloat32:
      return std::ldexp(1.0, -23);
    case DType::kBFloat16:
      return std::ldexp(1.0, -7);
    default:
      return std::ldexp(1.0, -10);
  }
}

Arguments::Arguments(const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    const size_t at = word.find('=');
    if (at == std::string::npos) throw std::invalid_argument("expected name=value, got " + word);
    values_[word.substr(0, at)] = word.substr(at + 1);
  }
}

std::string Arguments::text(const std::string& name, const std::string& otherwise) {
  asked_[name] = true;
  const auto found = values_.find(name);
  return found == values_.end() ? otherwise : found->second;
}

int64_t Arguments::size(const std::string& name, int64_t otherwise) {
  const std::string value = text(name, std::to_string(otherwise));
  size_t used = 0;
  const long long number = std::stoll(value, &used);
  if (used != value.size()) throw std::invalid_argument(name + ": expected a number, got " + value);
  return number;
}

DType Arguments::dtype(DType otherwise) {
  const std::string name = text("dtype", "");
  if (name.empty()) return otherwise;
  if (name == "float32") return DType::kFloat32;
  if (name == "float64") return DType::kFloat64;
  if (name == "bfloat16") return DType::kBFloat16;
  if (name == "float16") return DType::kFloat16;
  throw std::invalid_argument("dtype: expected float32, float64, bfloat16 or float16, got " + name);
}

std::string Arguments::unused() const {
  std::string names;
  for (const auto& [name, value] : values_) {
    if (!asked_.count(name)) names += " " + name;
  }
  return names;
}

Array::Array(DType dtype, int64_t count)
    : dtype_(dtype), count_(count), memory_(allocate(count * kernels::size_of(dtype)), release) {}

Array::Array(DType dtype, std::vector<double> values)
    : dtype_(dtype), count_(static_cast<int64_t>(values.size())), memory_(nullptr, release) {
  const std::vector<char> bytes = encode(dtype, values);
  values_ = decode(dtype, bytes);
  memory_.reset(allocate(static_cast<int64_t>(bytes.size())));
  to_device(memory_.get(), bytes.data(), static_cast<int64_t>(bytes.size()));
}

std::vector<double> Array::download() const {
  std::vector<char> bytes(count_ * kernels::size_of(dtype_));
  to_host(bytes.data(), memory_.get(), static_cast<int64_t>(bytes.size()));
  return decode(dtype_, bytes);
}

Array Bench::normal(DType dtype, int64_t count, double scale) {
  std::normal_distribution<double> distribution(0.0, scale);
  std::vector<double> values(count);
  for (double& value : values) value = distribution(random);
  return Array(dtype, std::move(values));
}

void Bench::check(const std::string& name, const std::vector<double>& got,
                  const std::vector<double>& expected, DType dtype, double units) {
  if (got.size() != expected.size()) throw std::logic_error(name + ": sizes differ");
  double largest = 1, worst = 0;
  for (double x : expected) {
    if (std::isfinite(x)) largest = std::max(largest, std::fabs(x));
  }
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(expected[i]) ? std::isnan(got[i]) : got[i] == expected[i]) continue;
    const double error = std::fabs(got[i] - expected[i]);
    worst = std::isnan(error) ? INFINITY : std::max(worst, error);
  }
  worst /= epsilon(dtype) * largest;
  const bool right = worst <= units;
  failed |= !right;
  std::printf("%-4s %-24s error %9.3g eps, allowed %g\n", right ? "ok" : "FAIL", name.c_str(),
              worst, units);
}

void Bench::check_true(const std::string& name, bool right) {
  failed |= !right;
  std::printf("%-4s %s\n", right ? "ok" : "FAIL", name.c_str());
}

void Bench::launch(const std::function<kernels::Status()>& launcher) {
  const kernels::Status status = launcher();
  if (!status) throw std::runtime_error(status.message());
  synchronize();
}

void Bench::time(const std::function<kernels::Status()>& launcher, double bytes, double flops) {
  if (!timed) return;
  const double t =
      seconds([](void* f) { (*static_cast<const std::function<kernels::Status()>*>(f))(); },
              const_cast<std::function<kernels::Status()>*>(&launcher), 100);
  if (t > 0) {
    std::printf("time %.2f us  %.0f GB/s  %.2f TFLOP/s\n", t * 1e6, bytes / t * 1e-9,
                flops / t * 1e-12);
  }
}

std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

namespace {

int64_t shared_of(int arch) {
  return (arch == 80 ? 163 : arch == 86 || arch == 89 || arch == 120 ? 99 : 227) << 10;
}

int run(const std::vector<std::string>& words) {
  for (const Case& c : cases()) {
    if (words[0] != c.name) continue;
    Arguments args({words.begin() + 1, words.end()});
    kernels::cuda::Device d = device();
    d.sms = static_cast<int>(args.size("sms", d.sms));
    const int arch = static_cast<int>(args.size("arch", d.arch));
    if (arch != d.arch) d.shared_per_block = shared_of(arch);
    d.arch = arch;
    d.shared_per_block = args.size("shared", d.shared_per_block);
    const bool own_gemm = args.text("gemm", "host") == "own";
    set_schedule(args.text("sched", ""), args.text("sched_seed", ""));
    const auto seed = static_cast<uint64_t>(args.size("seed", 1));
    const bool timed = args.size("time", 1) != 0;
    Bench bench{std::move(args), std::mt19937_64(seed), runtime(d, own_gemm), false, timed};
    c.run(bench);
    release_work_memory();
    if (const std::string unused = bench.args.unused(); !unused.empty()) {
      throw std::invalid_argument(std::string(c.name) + " takes " + c.usage + "; got" + unused);
    }
    return bench.failed ? 1 : 0;
  }
  throw std::invalid_argument("no kernel " + words[0]);
}

int usage() {
  std::printf("kernel_bench KERNEL [name=value ...] [, KERNEL ...]   on %s\n",
              device_name().c_str());
  for (const Case& c : cases()) std::printf("  %-24s %s\n", c.name, c.usage);
  std::printf("  all of them: dtype seed sms arch shared gemm=host|own time=1 (0: checks alone)\n");
  std::printf("  host execution: sched=fifo|lifo|random sched_seed\n");
  return 2;
}

}  // namespace
}  // namespace seq2seq_ext::kernel_bench

// Several kernels in one run are separated by a lone comma.
int main(int argc, char** argv) {
  using namespace seq2seq_ext::kernel_bench;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // sanitizers write between the lines
  std::vector<std::vector<std::string>> runs(1);
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], ",") == 0) {
      runs.emplace_back();
    } else {
      runs.back().push_back(argv[i]);
    }
  }
  if (runs[0].empty()) return usage();
  int result = 0;
  for (const auto& words : runs) {
    if (words.empty()) continue;
    for (const std::string& word : words) std::printf("%s ", word.c_str());
    std::printf("\n");
    const auto from = std::chrono::steady_clock::now();
    try {
      result = std::max(result, run(words));
    } catch (const std::invalid_argument& error) {
      std::printf("%s\n", error.what());
      return 2;
    } catch (const std::exception& error) {
      std::printf("FAIL %s\n", error.what());
      result = 3;
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - from;
    end_of_run(took.count());
  }
  return result;
}
