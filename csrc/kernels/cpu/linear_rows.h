// SPDX-License-Identifier: MIT
// Linear map of rows for one ISA. Included by linear_rows_<isa>.cpp only.
//
// Threads share out blocks of kRowBlock rows by kOutputBlock outputs; a block's rows stay in the
// first-level cache while its weights pass.
#pragma once

#include "cpu/math.h"
#include "cpu/row_products.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {
namespace {

constexpr int64_t kRowBlock = 4 * kTileRows, kOutputBlock = 64;

template <class S>
class LinearRows {
 public:
  using T = AccOf<S>;
  using P = Product<S>;
  static constexpr int kLanes = Vec<T>::kLanes;

  explicit LinearRows(const LinearRowsParams& p)
      : p_(p), stride_(padded_length<P>(p.K)), packed_(p.N * stride_) {}

  void run(const Member& member) {
    const int64_t begin = member.begin(p_.N), rows = member.end(p_.N) - begin;
    pack_activations<P>(static_cast<const S*>(p_.x) + begin * p_.K, rows, p_.K,
                        packed_.data() + begin * stride_);
    member.barrier->wait();
    const int64_t across = (p_.M + kOutputBlock - 1) / kOutputBlock;
    const int64_t blocks = (p_.N + kRowBlock - 1) / kRowBlock * across;
    for (int64_t i = member.begin(blocks); i < member.end(blocks); ++i) {
      block(i / across * kRowBlock, i % across * kOutputBlock);
    }
  }

 private:
  void block(int64_t n, int64_t m) const {
    constexpr int64_t kStride = kOutputBlock + kLanes;  // room for the tiles' overhang
    const int64_t rows = std::min(kRowBlock, p_.N - n), count = std::min(kOutputBlock, p_.M - m);
    alignas(64) T sums[kRowBlock * kStride];
    row_products<P>(static_cast<const S*>(p_.weight) + m * p_.K, p_.K, count, p_.K,
                    packed_.data() + n * stride_, stride_, rows, sums, kStride, false);
    for (int64_t r = 0; r < rows; ++r) {
      S* to = static_cast<S*>(p_.y) + (n + r) * p_.M + m;
      for (int64_t j = 0; j < count; j += kLanes) {
        const int rest = static_cast<int>(std::min<int64_t>(kLanes, count - j));
        Vec<T> y = load(sums + r * kStride + j, rest);
        if (p_.bias != nullptr) y = y + load(static_cast<const S*>(p_.bias) + m + j, rest);
        store(to + j, p_.tanh ? tanh(y) : y, rest);
      }
    }
  }

  const LinearRowsParams& p_;
  const int64_t stride_;
  ScratchArray<typename P::Activation> packed_;  // (N, stride)
};

template <class S>
Status linear_rows_as(const LinearRowsParams& p, const Runtime& runtime) {
  constexpr int64_t kMinWorkPerThread = 128 << 10;  // multiply-adds, about 5 us
  const int64_t useful = p.N * p.M * p.K / kMinWorkPerThread;
  const int threads = static_cast<int>(std::clamp<int64_t>(useful, 1, runtime.num_threads));
  LinearRows<S> rows(p);
  run_team(runtime, threads, [&](const Member& member) { rows.run(member); });
  return Status::ok();
}

}  // namespace

Status linear_rows(const LinearRowsParams& p, const Runtime& runtime) {
  switch (p.dtype) {
    case DType::kFloat32:
      return linear_rows_as<float>(p, runtime);
    case DType::kFloat64:
      return linear_rows_as<double>(p, runtime);
    case DType::kBFloat16:
      return linear_rows_as<BFloat16>(p, runtime);
    default:
      return Status::invalid("linear_rows: expected float32, float64 or bfloat16");
  }
}

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
