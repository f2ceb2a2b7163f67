// SPDX-License-Identifier: MIT
// Linear + cross-entropy: what is queued, and the small kernels around the logits' tiles.
#include "cuda/cross_entropy.cuh"
#include "cuda/sequence_queue.h"

namespace seq2seq_ext::kernels::cuda {
namespace {

constexpr int kReduceThreads = 1024, kRowThreads = 256;

// The sum over the block, in thread 0; in a fixed order.
__device__ double block_sum(double x) {
  constexpr int kWarps = kReduceThreads / 32;
  GPU_SHARED(double, sums, [kWarps]);
  const auto add = [](double a, double b) { return a + b; };
  x = across_lanes<1, 16>(x, add);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
  __syncthreads();
  if (threadIdx.x >= 32) return 0;
  return across_lanes<1, 16>(sums[threadIdx.x], add);
}

// sums[1]: the sum of all class weights.
template <class A>
__global__ void __launch_bounds__(kReduceThreads) class_weight_sum(CrossEntropyInputs in, A* sums) {
  double sum = 0;
  for (int64_t v = threadIdx.x; v < in.V; v += kReduceThreads) sum += class_weight<A>(in, v);
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[1] = A(sum);
}

// A warp puts the slices of one row together: its lse, and its loss.
template <class A>
__global__ void __launch_bounds__(kRowThreads)
    row_losses(LogitSums args, const A* sums, A* lse, A* losses) {
  const int64_t row = int64_t(blockIdx.x) * (kRowThreads / 32) + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const CrossEntropyInputs& in = args.in;
  if (row >= in.N) return;
  const int64_t target = in.target[row];
  if (target == in.ignore_index) {
    if (lane == 0) lse[row] = losses[row] = 0;
    return;
  }
  const auto add = [](A a, A b) { return a + b; };
  const A* const maxima = static_cast<const A*>(args.largest) + row * args.slices;
  A largest = -A(INFINITY), sum = 0, weighted = 0;
  for (int64_t s = lane; s < args.slices; s += 32) largest = larger(largest, maxima[s]);
  largest = across_lanes<1, 16>(largest, [](A a, A b) { return larger(a, b); });
  const A shift = shift_of(largest);
  for (int64_t s = lane; s < args.slices; s += 32) {
    const int64_t at = row * args.slices + s;
    sum += static_cast<const A*>(args.sum)[at] * exp(maxima[s] - shift);
    if (args.weighted != nullptr) weighted += static_cast<const A*>(args.weighted)[at];
  }
  sum = across_lanes<1, 16>(sum, add);
  weighted = across_lanes<1, 16>(weighted, add);
  if (lane != 0) return;
  // Not so with a NaN, a +inf, or nothing but -inf.
  const A row_lse = sum > A(0) ? largest + log(sum) : A(NAN);
  lse[row] = row_lse;
  const A weight = A(1 - in.label_smoothing) * target_weight<A>(in, target);
  const bool exists = target >= 0 && target < in.V;
  A loss = weight * (row_lse - (exists ? static_cast<const A*>(args.target_logit)[row] : A(NAN)));
  if (args.weighted != nullptr) {
    loss += A(in.label_smoothing) / A(in.V) * (sums[1] * row_lse - weighted);
  }
  losses[row] = loss;
}

// sums[0], the divisor; and the loss, unless it is the rows' own.
template <class A>
__global__ void __launch_bounds__(kReduceThreads)
    reduce_losses(CrossEntropyInputs in, const A* losses, A* sums, A* loss) {
  double sum = 0, divisor = 0;
  for (int64_t n = threadIdx.x; n < in.N; n += kReduceThreads) {
    const int64_t target = in.target[n];
    if (target == in.ignore_index) continue;
    sum += losses[n];
    divisor += target_weight<A>(in, target);
  }
  sum = block_sum(sum);
  __syncthreads();  // block_sum's memory
  divisor = block_sum(divisor);
  if (threadIdx.x != 0) return;
  sums[0] = A(divisor);
  if (in.reduction == Reduction::kSum) loss[0] = A(sum);
  if (in.reduction == Reduction::kMean) loss[0] = divisor == 0 ? A(0) : A(sum / divisor);
}

template <class T>
__global__ void __launch_bounds__(kRowThreads)
    finish_bias(const AccOf<T>* parts, int64_t tiles, int64_t words, T* d_bias) {
  const int64_t word = int64_t(blockIdx.x) * kRowThreads + threadIdx.x;
  if (word >= words) return;
  AccOf<T> sum = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) sum += parts[tile * words + word];
  d_bias[word] = from_acc<T>(sum);
}

// to = from, rounded; null: zeros.
template <class T>
__global__ void __launch_bounds__(kRowThreads) narrow(const AccOf<T>* from, int64_t count, T* to) {
  const int64_t i = int64_t(blockIdx.x) * kRowThreads + threadIdx.x;
  if (i < count) to[i] = from_acc<T>(from == nullptr ? AccOf<T>(0) : from[i]);
}

template <class T>
Status forward(const CrossEntropyForwardParams& p, const Runtime& runtime) {
  using A = AccOf<T>;
  const CrossEntropyInputs& in = p.in;
  const DType state = sum_type(in.dtype);
  A* const sums = static_cast<A*>(p.sums);
  Queue queue(runtime);
  queue.launch("class_weight_sum", class_weight_sum<A>, dim3(1), kReduceThreads, in, sums);
  A* losses = static_cast<A*>(p.loss);
  if (in.reduction != Reduction::kNone) losses = static_cast<A*>(queue.allocate(in.N, state));
  if (in.N > 0) {
    LogitSums args{in, cross_entropy_slices(in.dtype, in.V), nullptr, nullptr, nullptr, nullptr};
    args.largest = queue.allocate(in.N * args.slices, state);
    args.sum = queue.allocate(in.N * args.slices, state);
    if (in.label_smoothing > 0) args.weighted = queue.allocate(in.N * args.slices, state);
    args.target_logit = queue.allocate(in.N, state);
    queue.run([&] { return logit_sums<T>(args, runtime); });
    queue.launch("row_losses", row_losses<A>, dim3(blocks_of(in.N, kRowThreads / 32)), kRowThreads,
                 args, sums, static_cast<A*>(p.lse), losses);
  }
  queue.launch("reduce_losses", reduce_losses<A>, dim3(1), kReduceThreads, in, losses, sums,
               static_cast<A*>(p.loss));
  return queue.status();
}

// Words whose gradients are made at a time: as many as keep within work_bytes, in whole tiles.
int64_t chunk_words(const CrossEntropyBackwardParams& p, int64_t dz_stride) {
  constexpr int64_t kMaxTiles = 32768;  // of a grid's second dimension
  const int64_t tile = logit_tile(p.in.dtype).words;
  const int64_t tiles = p.work_bytes / (tile * dz_stride * size_of(p.in.dtype));
  return tile * (tiles < 1 ? 1 : tiles > kMaxTiles ? kMaxTiles : tiles);
}

template <class T>
class Backward {
 public:
  using A = AccOf<T>;

  Backward(const CrossEntropyBackwardParams& p, const Runtime& runtime)
      : p_(p), in_(p.in), queue_(runtime), state_(sum_type(in_.dtype)) {}

  Status run() {
    if (in_.N == 0) {
      finish(nullptr, in_.V * in_.H, p_.d_weight);
      finish(nullptr, in_.V, p_.d_bias);
      return queue_.status();
    }
    constexpr int64_t kAlign = 16 / sizeof(T);
    const int64_t stride = (in_.N + kAlign - 1) / kAlign * kAlign;
    int64_t words = chunk_words(p_, stride);
    if (words > in_.V) words = in_.V;
    const int64_t row_tiles = blocks_of(in_.N, logit_tile(in_.dtype).rows);
    LogitGradients args{in_, p_.lse, p_.sums, p_.d_loss, 0, 0, nullptr, stride, nullptr};
    args.dz = queue_.allocate(words * stride, in_.dtype);
    if (p_.d_bias != nullptr) args.bias_parts = queue_.allocate(row_tiles * words, state_);
    // With more than one chunk d_hidden is summed up in the wider type.
    const bool summed = in_.dtype != state_ && words < in_.V && p_.d_hidden != nullptr;
    void* const d_hidden = summed ? queue_.allocate(in_.N * in_.H, state_) : p_.d_hidden;
    for (args.v = 0; args.v < in_.V; args.v += words) {
      args.words = words < in_.V - args.v ? words : in_.V - args.v;
      queue_.run([&] { return logit_gradients<T>(args, queue_.runtime()); });
      products(args, d_hidden, summed);
      if (p_.d_bias == nullptr) continue;
      queue_.launch("finish_bias", finish_bias<T>, dim3(blocks_of(args.words, kRowThreads)),
                    kRowThreads, static_cast<const A*>(args.bias_parts), row_tiles, args.words,
                    static_cast<T*>(p_.d_bias) + args.v);
    }
    if (summed) finish(static_cast<const A*>(d_hidden), in_.N * in_.H, p_.d_hidden);
    return queue_.status();
  }

 private:
  // dW of the chunk is complete; dx grows by it.
  void products(const LogitGradients& args, void* d_hidden, bool summed) {
    const Matrix dz{args.dz, args.dz_stride, 1}, hidden{in_.hidden, in_.H, 1};
    if (p_.d_weight != nullptr) {
      queue_.product(in_.dtype, args.words, in_.H, in_.N, dz, hidden,
                     at(p_.d_weight, in_.dtype, args.v * in_.H), in_.H, false, false);
    }
    if (d_hidden != nullptr) {
      const Matrix weight{at(in_.weight, in_.dtype, args.v * in_.H), in_.H, 1};
      queue_.product(in_.dtype, in_.N, in_.H, args.words, dz.transposed(), weight, d_hidden, in_.H,
                     args.v > 0, summed);
    }
  }

  void finish(const A* from, int64_t count, void* to) {
    if (to == nullptr) return;
    queue_.launch("narrow", narrow<T>, dim3(blocks_of(count, kRowThreads)), kRowThreads, from,
                  count, static_cast<T*>(to));
  }

  const CrossEntropyBackwardParams& p_;
  const CrossEntropyInputs& in_;
  Queue queue_;
  const DType state_;
};

}  // namespace

Status cross_entropy_forward(const CrossEntropyForwardParams& params, const Runtime& runtime) {
  if (params.kept != 0) return Status::invalid("cross_entropy_forward: keeps no logits");
  return dispatch_dtype(params.in.dtype,
                        [&](auto tag) { return forward<decltype(tag)>(params, runtime); });
}

Status cross_entropy_backward(const CrossEntropyBackwardParams& params, const Runtime& runtime) {
  if (params.kept != 0) return Status::invalid("cross_entropy_backward: keeps no logits");
  return dispatch_dtype(params.in.dtype,
                        [&](auto tag) { return Backward<decltype(tag)>(params, runtime).run(); });
}

}  // namespace seq2seq_ext::kernels::cuda
