// SPDX-License-Identifier: MIT
// Attention step for one ISA: query projection, scores, masked softmax and context. Included by
// attention_<isa>.cpp only.
//
// The source is cut into parts of kPart positions, whatever the batch or the threads. A part is
// worked off while it is in the cache: its scores, their softmax relative to the part's own
// maximum, its share of the context. Parts are put together in order. Nothing past a row's length
// is read, be it what it may.
#pragma once

#include <string>

#include "cpu/decode/parts.h"
// This comes before what is compiled for the ISA (target.h).
#include "cpu/row_products.h"
#include "cpu/softmax.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {
namespace {

constexpr int64_t kPart = 256;
constexpr int64_t kProjectionBlock = 64;

template <class S>
class AttentionStep {
 public:
  using T = AccOf<S>;
  static constexpr int kLanes = Vec<T>::kLanes;

  // p: kept; B is the most rows there will be, and may change between runs, as pointers may.
  explicit AttentionStep(const AttentionStepParams& p)
      : p_(p),
        parts_((p.S + kPart - 1) / kPart),
        packed_stride_(padded_length<Product<S>>(p.Q)),
        query_stride_(padded_length<Widened<S>>(p.A) + kLanes),
        packed_(p.w_query != nullptr ? p.B * packed_stride_ : 0),
        query_(p.B * query_stride_),
        v_(query_stride_),
        scores_(p.B * parts_ * kPart),
        maxima_(p.B * padded_parts()),
        sums_(p.B * padded_parts()),
        contexts_(p.B * parts_ * p.C) {
    if (p.score == AttentionScore::kAdditive) {
      pack_activations<Widened<S>>(static_cast<const S*>(p.v), 1, p.A, v_.data());
    }
  }

  // A row's result is written by the member whose share the row is.
  void run(const Member& member) {
    if (p_.w_query == nullptr && parts_ == 1) {
      // Every row is worked off by itself: nobody waits for anyone.
      for (int64_t b = member.begin(p_.B); b < member.end(p_.B); ++b) {
        take_query(b);
        if (length(b) > 0) attend(b, 0, length(b));
        finish_row(b);
      }
      return;
    }
    if (p_.w_query != nullptr) {
      const int64_t begin = member.begin(p_.B), rows = member.end(p_.B) - begin;
      pack_activations<Product<S>>(static_cast<const S*>(p_.query) + begin * p_.Q, rows, p_.Q,
                                   packed_.data() + begin * packed_stride_);
      member.barrier->wait();
    }
    if (p_.w_query != nullptr) {
      project(member);
    } else {
      for (int64_t b = member.begin(p_.B); b < member.end(p_.B); ++b) take_query(b);
    }
    member.barrier->wait();
    const int64_t items = p_.B * parts_;
    for (int64_t i = member.begin(items); i < member.end(items); ++i) {
      const int64_t b = i / parts_, part = i % parts_;
      const int64_t n = std::min(kPart, length(b) - part * kPart);
      if (n > 0) attend(b, part, n);
    }
    member.barrier->wait();
    for (int64_t b = member.begin(p_.B); b < member.end(p_.B); ++b) finish_row(b);
  }

 private:
  int64_t source(int64_t b) const { return p_.source == nullptr ? b : p_.source[b]; }
  int64_t length(int64_t b) const { return p_.lengths == nullptr ? p_.S : p_.lengths[source(b)]; }
  int64_t padded_parts() const { return (parts_ + kLanes - 1) / kLanes * kLanes; }

  // query_ = query, filled up with zeros.
  void take_query(int64_t b) {
    const S* source = static_cast<const S*>(p_.query) + b * p_.Q;
    T* const to = query_.data() + b * query_stride_;
    int64_t a = 0;
    for (; a < p_.A; a += kLanes) {
      store<T>(to + a, load(source + a, static_cast<int>(std::min<int64_t>(kLanes, p_.A - a))));
    }
    for (; a < query_stride_; ++a) to[a] = T(0);
  }

  // query_ = w_query @ query, filled up with zeros. Members share out the rows of w_query, so that
  // it is read once.
  void project(const Member& member) {
    const int64_t blocks = (p_.A + kProjectionBlock - 1) / kProjectionBlock;
    for (int64_t i = member.begin(blocks); i < member.end(blocks); ++i) {
      const int64_t a = i * kProjectionBlock, count = std::min(kProjectionBlock, p_.A - a);
      alignas(64) T block[kTileRows * (kProjectionBlock + 16)];
      for (int64_t b = 0; b < p_.B; b += kTileRows) {
        const int64_t rows = std::min<int64_t>(kTileRows, p_.B - b);
        row_products<Product<S>, kTileRows, false>(
            static_cast<const S*>(p_.w_query) + a * p_.Q, p_.Q, count, p_.Q,
            packed_.data() + b * packed_stride_, packed_stride_, rows, block, kProjectionBlock + 16,
            false);
        for (int64_t r = 0; r < rows; ++r) {
          std::copy_n(block + r * (kProjectionBlock + 16), count,
                      query_.data() + (b + r) * query_stride_ + a);
        }
      }
      if (i == blocks - 1) {
        for (int64_t b = 0; b < p_.B; ++b) {
          std::fill_n(query_.data() + b * query_stride_ + p_.A, query_stride_ - p_.A, T(0));
        }
      }
    }
  }

  void attend(int64_t b, int64_t part, int64_t n) {
    const int64_t s = part * kPart;
    const S* keys =
        static_cast<const S*>(p_.keys) + source(b) * p_.keys_stride_b + s * p_.keys_stride_s;
    const S* values =
        static_cast<const S*>(p_.values) + source(b) * p_.values_stride_b + s * p_.values_stride_s;
    const T* query = query_.data() + b * query_stride_;
    alignas(64) T scores[kPart + kLanes];
    if (p_.score == AttentionScore::kDot) {
      row_products<Widened<S>, 1>(keys, p_.keys_stride_s, n, p_.A, query, query_stride_, 1, scores,
                                  0, true);
      for (int64_t i = 0; i < n; ++i) scores[i] *= static_cast<T>(p_.scale);
    } else {
      additive_scores(keys, n, query, scores);
    }
    const int64_t padded = (n + kLanes - 1) / kLanes * kLanes;
    std::fill(scores + n, scores + padded, -std::numeric_limits<T>::infinity());
    const T top = max_of(scores, padded);
    const Vec<T> shift(top == -std::numeric_limits<T>::infinity() ? T(0) : top);
    T* weights = scores_.data() + (b * parts_ + part) * kPart;
    Vec<T> sum(T(0));
    for (int64_t i = 0; i < padded; i += kLanes) {
      const Vec<T> e = exp_of_negative(load(scores + i) - shift);
      store<T>(weights + i, e);
      sum = sum + e;
    }
    maxima_[b * padded_parts() + part] = top;
    sums_[b * padded_parts() + part] = reduce_add(sum);
    weighted_sum(values, n, weights, contexts_.data() + (b * parts_ + part) * p_.C);
  }

  // v . tanh(query + keys[i]); fill-up zeros add tanh(0) * 0.
  void additive_scores(const S* keys, int64_t n, const T* query, T* scores) const {
    constexpr int kTogether = detail::kPiece<T>;
    for (int64_t i = 0; i < n; i += kTogether) {
      Vec<T> acc[kTogether];
#pragma GCC unroll 4
      for (int r = 0; r < kTogether; ++r) acc[r] = Vec<T>(T(0));
      for (int64_t a = 0; a < p_.A; a += kLanes) {
        const int rest = static_cast<int>(std::min<int64_t>(kLanes, p_.A - a));
        const Vec<T> q = load(query + a), v = load(v_.data() + a);
#pragma GCC unroll 4
        for (int r = 0; r < kTogether; ++r) {
          const S* key = keys + std::min(i + r, n - 1) * p_.keys_stride_s + a;
          acc[r] = fma(v, tanh(q + load(key, rest)), acc[r]);
        }
      }
      reduce_row(acc, scores + i);
    }
  }

  // context = sum over i of weights[i] * values[i], in the order of i.
  void weighted_sum(const S* values, int64_t n, const T* weights, T* context) const {
    constexpr int kVecs = kVectorBytes == 64 ? 8 : 4;
    for (int64_t c = 0; c < p_.C; c += kVecs * kLanes) {
      Vec<T> acc[kVecs];
#pragma GCC unroll 8
      for (int j = 0; j < kVecs; ++j) acc[j] = Vec<T>(T(0));
      const int64_t columns = p_.C - c;
      if (columns >= kVecs * kLanes) {
        for (int64_t i = 0; i < n; ++i) {
          const Vec<T> weight(weights[i]);
          const S* row = values + i * p_.values_stride_s + c;
#pragma GCC unroll 8
          for (int j = 0; j < kVecs; ++j) acc[j] = fma(weight, load(row + j * kLanes), acc[j]);
        }
#pragma GCC unroll 8
        for (int j = 0; j < kVecs; ++j) store<T>(context + c + j * kLanes, acc[j]);
        continue;
      }
      for (int64_t j = 0; j < columns; j += kLanes) {
        const int rest = static_cast<int>(std::min<int64_t>(kLanes, columns - j));
        Vec<T> tail(T(0));
        for (int64_t i = 0; i < n; ++i) {
          tail = fma(Vec<T>(weights[i]), load(values + i * p_.values_stride_s + c + j, rest), tail);
        }
        store<T>(context + c + j, tail, rest);
      }
    }
  }

  void finish_row(int64_t b) {
    S* context = static_cast<S*>(p_.context) + b * p_.C;
    S* weights = static_cast<S*>(p_.weights) + b * p_.S;
    const int64_t n = length(b), used = (n + kPart - 1) / kPart, parts = padded_parts();
    std::fill(weights + n, weights + p_.S, from_acc<S>(T(0)));
    if (n <= 0) {
      std::fill_n(context, p_.C, from_acc<S>(T(0)));
      return;
    }
    T* maxima = maxima_.data() + b * parts;
    T* sums = sums_.data() + b * parts;
    for (int64_t j = used; j < parts; ++j) {
      maxima[j] = -std::numeric_limits<T>::infinity();
      sums[j] = T(0);
    }
    const SoftmaxPart<T> all = merge_parts(maxima, sums, parts);
    // A row of nothing but -inf has no softmax: exp(-inf + inf) makes it NaN.
    const auto factor = [&](int64_t j) {
      T e[kLanes];
      store<T>(e, exp_of_negative(Vec<T>(maxima[j] - all.max)));
      return e[0] / all.sum;
    };
    T* total = contexts_.data() + b * parts_ * p_.C;
    for (int64_t j = 0; j < used; ++j) {
      const T scale = factor(j);
      const T* part = total + j * p_.C;
      if (used == 1) {
        for (int64_t c = 0; c < p_.C; c += kLanes) {
          const int rest = static_cast<int>(std::min<int64_t>(kLanes, p_.C - c));
          store(context + c, load(part + c, rest) * Vec<T>(scale), rest);
        }
      } else {
        for (int64_t c = 0; c < p_.C; ++c)
          total[c] = j == 0 ? part[c] * scale : total[c] + part[c] * scale;
      }
      const T* e = scores_.data() + (b * parts_ + j) * kPart;
      const int64_t count = std::min(kPart, n - j * kPart);
      for (int64_t i = 0; i < count; ++i) weights[j * kPart + i] = from_acc<S>(e[i] * scale);
    }
    for (int64_t c = 0; used > 1 && c < p_.C; ++c) context[c] = from_acc<S>(total[c]);
  }

  const AttentionStepParams& p_;
  const int64_t parts_, packed_stride_, query_stride_;
  ScratchArray<typename Product<S>::Activation>
      packed_;             // (B, packed_stride): query, for the projection
  ScratchArray<T> query_;  // (B, query_stride): projected
  ScratchArray<T> v_;
  ScratchArray<T> scores_;         // (B, parts, kPart): exp(score - part's maximum)
  ScratchArray<T> maxima_, sums_;  // (B, padded_parts)
  ScratchArray<T> contexts_;       // (B, parts, C), not yet divided by the sum
};

// Attention whose work memory stays from run to run.
template <class S>
class AttentionPart final : public decode::AttentionPart {
 public:
  explicit AttentionPart(const AttentionStepParams& most)
      : decode::AttentionPart(most), step_(params) {}
  void run(const Member& member) override { step_.run(member); }

 private:
  AttentionStep<S> step_;
};

template <class S>
Status attention_step_as(const AttentionStepParams& p, const Runtime& runtime) {
  constexpr int64_t kMinWorkPerThread = 64 << 10;  // multiply-adds, about 5 us
  const int64_t projection = p.w_query != nullptr ? p.A * p.Q : 0;
  const int64_t per_position = (p.score == AttentionScore::kAdditive ? 8 * p.A : p.A) + p.C;
  const int64_t useful = p.B * (projection + p.S * per_position) / kMinWorkPerThread;
  const int threads = static_cast<int>(std::clamp<int64_t>(useful, 1, runtime.num_threads));
  AttentionStep<S> step(p);
  run_team(runtime, threads, [&](const Member& member) { step.run(member); });
  return Status::ok();
}

}  // namespace

Status attention_step(const AttentionStepParams& p, const Runtime& runtime) {
  if (p.w_query == nullptr && p.Q != p.A) {
    return Status::invalid("attention_step: without w_query expected Q = A = " +
                           std::to_string(p.A) + ", got Q = " + std::to_string(p.Q));
  }
  switch (p.dtype) {
    case DType::kFloat32:
      return attention_step_as<float>(p, runtime);
    case DType::kFloat64:
      return attention_step_as<double>(p, runtime);
    case DType::kBFloat16:
      return attention_step_as<BFloat16>(p, runtime);
    default:
      return Status::invalid("attention_step: expected float32, float64 or bfloat16");
  }
}

decode::AttentionPart* make_attention_part(const AttentionStepParams& most) {
  switch (most.dtype) {
    case DType::kFloat32:
      return new AttentionPart<float>(most);
    case DType::kFloat64:
      return new AttentionPart<double>(most);
    case DType::kBFloat16:
      return new AttentionPart<BFloat16>(most);
    default:
      return nullptr;
  }
}

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
