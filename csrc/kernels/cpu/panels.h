// SPDX-License-Identifier: MIT
// Products of activation rows with weight rows that lie packed in panels, for decoding: lanes are
// outputs, and activations are broadcast. Weights are packed once per model.
//
// An output is summed as micro.h sums it, in chains of kChain<T> terms by ascending k, whatever the
// tile: a row's result depends neither on the other rows nor on how they are grouped, and is the
// sequence kernels' to the bit.
#pragma once

#include "cpu/micro.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

// What one step of k broadcasts: a value, or a pair of bf16.
template <class T>
using Term = std::conditional_t<std::is_same_v<T, BFloat16>, uint32_t, AccOf<T>>;

template <class T>
constexpr int64_t terms(int64_t K) {
  return padded_k<T>(K) / kKStep<T>;
}

// Rows of activations in groups of kGroup (the last may be smaller), a group's terms side by side:
// (groups, terms, rows of the group).
template <class T, int kGroup>
class GroupedRows {
 public:
  GroupedRows(int64_t most, int64_t K) : terms_(terms<T>(K)), K_(K), data_(most * terms_) {}

  // Row b of `count`. Which rows there are decides where they lie, so all are packed for a count.
  void pack(const T* row, int64_t b, int64_t count) const {
    const int64_t first = b / kGroup * kGroup, size = std::min<int64_t>(kGroup, count - first);
    Term<T>* to = data_.data() + first * terms_ + (b - first);
    if constexpr (kKStep<T> == 1) {
      if (size == 1) {
        std::copy_n(row, K_, to);
      } else {
        for (int64_t k = 0; k < K_; ++k) to[k * size] = row[k];
      }
    } else {
      for (int64_t k = 0; k < K_ / 2; ++k) to[k * size] = load_pair(row + 2 * k, false);
      if (K_ % 2 != 0) to[K_ / 2 * size] = load_pair(row + K_ - 1, true);
    }
  }

  const Term<T>* group(int64_t first) const { return data_.data() + first * terms_; }

 private:
  const int64_t terms_, K_;
  ScratchArray<Term<T>> data_;
};

// out[m][v] = init[v] + sum over k, for kPanels panels of NV vectors (panel_stride elements apart)
// and MR rows; with kFetch, so many vectors of `ahead` a step of k are fetched into the
// second-level cache for later.
template <class T, int NV, int kPanels, int MR, int kFetch = 0>
void grouped_tile(const T* panels, int64_t panel_stride, int64_t count, const Term<T>* a,
                  const AccOf<T>* init, AccOf<T>* out, int64_t out_stride,
                  [[maybe_unused]] const char* ahead = nullptr) {
  using V = Vec<AccOf<T>>;
  using W = std::conditional_t<kKStep<T> == 1, V, PairVec>;
  constexpr int kLanes = V::kLanes, kVectors = kPanels * NV;
  constexpr int64_t kTerms = kChain<T> / kKStep<T>;
  // Totals of many stay in memory.
  constexpr bool kInRegisters = MR * kVectors <= kMaxTileRows<NV> * NV / 2;
  V total[kInRegisters ? MR : 1][kVectors];
  for (int64_t k = 0; k < count;) {
    const int64_t end = std::min(k + kTerms, count);
    const bool first = k == 0;
    V acc[MR][kVectors];
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 12
      for (int v = 0; v < kVectors; ++v) {
        acc[m][v] = first && init != nullptr ? load(init + v * kLanes) : V(AccOf<T>(0));
      }
    }
    for (; k < end; ++k) {
      W w[kVectors];
#pragma GCC unroll 12
      for (int v = 0; v < kVectors; ++v) {
        const T* from =
            panels + v / NV * panel_stride + (k * NV + v % NV) * int64_t{kLanes * kKStep<T>};
        if constexpr (kKStep<T> == 1) {
          w[v] = load(from);
        } else {
          w[v] = load_pairs(from);
        }
      }
#pragma GCC unroll 4
      for (int v = 0; v < kFetch; ++v) __builtin_prefetch(ahead + v * kVectorBytes, 0, 2);
      ahead += kFetch * kVectorBytes;
#pragma GCC unroll 8
      for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 12
        for (int v = 0; v < kVectors; ++v) {
          if constexpr (kKStep<T> == 1) {
            acc[m][v] = fma(V(a[k * MR + m]), w[v], acc[m][v]);
          } else {
            acc[m][v] = dot_pairs(acc[m][v], broadcast_pair(a[k * MR + m]), w[v]);
          }
        }
      }
    }
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 12
      for (int v = 0; v < kVectors; ++v) {
        if constexpr (kInRegisters) {
          total[m][v] = first ? acc[m][v] : total[m][v] + acc[m][v];
        } else {
          AccOf<T>* to = out + m * out_stride + v * kLanes;
          store(to, first ? acc[m][v] : load(to) + acc[m][v]);
        }
      }
    }
  }
  if constexpr (kInRegisters) {
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 12
      for (int v = 0; v < kVectors; ++v) store(out + m * out_stride + v * kLanes, total[m][v]);
    }
  }
}

// Which group of a pass over panels it is. The first groups fetch what lies behind those panels,
// each a part of it; where they are too few for that, the first fetches what it is about to read.
struct GroupOf {
  int64_t index, count;
};

// A group's rows times `panels` panels, which lie and whose outputs stand one after the other.
// Where rows are few, panels go in twos, for enough sums at a time, and the processor alone fetches
// what comes.
template <class T, int NV, int MR>
SEQ2SEQ_EXT_INLINE void grouped_panels(const T* panel, int64_t panels, int64_t K, const Term<T>* a,
                                       const AccOf<T>* init, [[maybe_unused]] GroupOf group,
                                       AccOf<T>* out, int64_t out_stride) {
  constexpr int kColumns = NV * kLanesOf<T>;
  const int64_t size = panel_size<T, NV>(K), count = terms<T>(K);
  int64_t p = 0;
  const auto tile = [&](auto together, auto fetch, const char* ahead) SEQ2SEQ_EXT_LAMBDA_INLINE {
    grouped_tile<T, NV, decltype(together)::value, MR, decltype(fetch)::value>(
        panel + p * size, size, count, a, init == nullptr ? nullptr : init + p * kColumns,
        out + p * kColumns, out_stride, ahead);
  };
  constexpr std::integral_constant<int, 0> kNone;
  constexpr std::integral_constant<int, 1> kOne;
  if constexpr (2 * MR <= kMaxTileRows<NV>) {
    for (; p + 2 <= panels; p += 2) tile(std::integral_constant<int, 2>(), kNone, nullptr);
  }
  for (; p < panels; ++p) {
    if constexpr (MR == kMaxTileRows<NV>) {
      constexpr int64_t kAhead = 8192;
      const char* const here = reinterpret_cast<const char*>(panel + p * size);
      if (group.count >= NV && group.index < NV) {
        const int64_t next = panels * size * static_cast<int64_t>(sizeof(T));
        tile(kOne, kOne, here + next + group.index * count * kVectorBytes);
        continue;
      }
      if (group.count < NV && group.index == 0) {
        tile(kOne, std::integral_constant<int, NV>(), here + kAhead);
        continue;
      }
    }
    tile(kOne, kNone, nullptr);
  }
}

// The same for a number of rows known at run time only, at most kMaxTileRows<NV>.
template <class T, int NV, int MR = kMaxTileRows<NV>>
SEQ2SEQ_EXT_INLINE void grouped_product(int64_t rows, const T* panel, int64_t panels, int64_t K,
                                        const Term<T>* a, const AccOf<T>* init, GroupOf group,
                                        AccOf<T>* out, int64_t out_stride) {
  if constexpr (MR > 1) {
    if (rows < MR) {
      return grouped_product<T, NV, MR - 1>(rows, panel, panels, K, a, init, group, out,
                                            out_stride);
    }
  }
  grouped_panels<T, NV, MR>(panel, panels, K, a, init, group, out, out_stride);
}

// How the output layer's words lie: panels of kWordVectors vectors, V filled up to whole blocks.
constexpr int kWordVectors = 3;
constexpr int64_t kVocabBlock = 96;

template <class T>
constexpr int64_t kPanelWords = int64_t{kWordVectors} * kLanesOf<T>;

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
