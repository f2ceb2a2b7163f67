// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "cuda/decode_loop.h"
#include "cuda/math.cuh"

#if defined(__CUDACC__)
#include "cuda/decode_graph.cuh"
#endif

namespace seq2seq_ext::kernels::cuda {
namespace {

int64_t pairs_of_block() {
  const char* const steps = std::getenv("SEQ2SEQ_EXT_DECODE_STEPS");
  return std::clamp<int64_t>(steps == nullptr ? 16 : std::atoll(steps), 2, 1024) / 2;
}

#if defined(__CUDACC__)

bool allowed_loop(const char* loop) {
  const char* const first = std::getenv("SEQ2SEQ_EXT_DECODE_LOOP");
  const auto place = [](const char* name) {
    return !std::strcmp(name, "queue") ? 2 : !std::strcmp(name, "replay") ? 1 : 0;
  };
  return first == nullptr || place(loop) >= place(first);
}

#else

// A launch is a call. What the host sees of the device is as late as on a GPU.
class Polled {
 public:
  Polled(const int* live, const Runtime&) : live_(live) {}
  Status mark() {
    seen_[marks_++ % 2] = *live_;
    return Status::ok();
  }
  Status before_last(int* live) {
    *live = marks_ < 2 ? 1 : seen_[marks_ % 2];
    return Status::ok();
  }

 private:
  const int* live_;
  int seen_[2] = {};
  int64_t marks_ = 0;
};

struct PairsGraph {
  bool capture(const QueuePair&, int64_t, const Runtime&) { return false; }
  Status launch(const Runtime&) { return Status::ok(); }
};
bool allowed_loop(const char* loop) { return !std::strcmp(loop, "queue"); }
bool loop_on_device(const QueuePair&, const int*, const Runtime&, Status*) { return false; }
Status refuse_capture(const Runtime&) { return Status::ok(); }
#endif

Status queue_pairs(const QueuePair& queue_pair, int64_t pairs, const Runtime& runtime) {
  for (int64_t i = 0; i < pairs; ++i) {
    if (const Status status = queue_pair(runtime); !status) return status;
  }
  return Status::ok();
}

}  // namespace

Status run_pairs(const QueuePair& queue_pair, int64_t pairs, const int* live,
                 const Runtime& runtime) {
  Status status = refuse_capture(runtime);
  // The first as it is: it asks for the memory, and loads the kernels, that a capture could not.
  if (status) status = queue_pair(runtime);
  if (!status || pairs == 1) return status;
  if (allowed_loop("while") && loop_on_device(queue_pair, live, runtime, &status)) return status;
  const int64_t block = std::min(pairs_of_block(), pairs - 1);
  PairsGraph graph;
  const bool replayed = allowed_loop("replay") && graph.capture(queue_pair, block, runtime);
  Polled polled(live, runtime);
  for (int64_t done = 1; done < pairs; done += block) {
    status = replayed ? graph.launch(runtime) : queue_pairs(queue_pair, block, runtime);
    if (status) status = polled.mark();
    int left = 1;
    if (status) status = polled.before_last(&left);
    if (!status || left == 0) return status;
  }
  return status;
}

#if defined(__CUDACC__)
Status read_back(void* host, const void* device, int64_t bytes, const Runtime& runtime) {
  cudaError_t error =
      cudaMemcpyAsync(host, device, size_t(bytes), cudaMemcpyDeviceToHost, stream_of(runtime));
  if (error == cudaSuccess) error = cudaStreamSynchronize(stream_of(runtime));
  return graph_status(error);
}
#else
Status read_back(void* host, const void* device, int64_t bytes, const Runtime&) {
  std::memcpy(host, device, static_cast<size_t>(bytes));
  return Status::ok();
}
#endif

}  // namespace seq2seq_ext::kernels::cuda
