// SPDX-License-Identifier: MIT
// What decode_loop.cu wants of a GPU: graphs, and a look at the device that does not stop it. The
// only code here that host execution cannot run.
#pragma once

#include <cuda_runtime.h>

#include <mutex>
#include <vector>

#include "cuda/decode_loop.h"
#include "cuda/gpu/gpu.h"

namespace seq2seq_ext::kernels::cuda {

inline Status graph_status(cudaError_t error) {
  if (error == cudaSuccess) return Status::ok();
  cudaGetLastError();
  return Status::invalid(std::string("decode: ") + cudaGetErrorString(error));
}

inline cudaStream_t stream_of(const Runtime& runtime) {
  return static_cast<cudaStream_t>(runtime.stream);
}

namespace {

// The host waits for results, which a graph that is being captured will never bring.
Status refuse_capture(const Runtime& runtime) {
  cudaStreamCaptureStatus capturing;
  const cudaError_t error = cudaStreamIsCapturing(stream_of(runtime), &capturing);
  if (error != cudaSuccess) return graph_status(error);
  if (capturing == cudaStreamCaptureStatusNone) return Status::ok();
  return Status::invalid("decode: cannot be captured in a CUDA graph, it makes its own");
}

// Two numbers in memory that the device writes to while the host runs. Kept for the next call:
// asking for such memory stops the device.
class PinnedPair {
 public:
  PinnedPair() {
    const std::lock_guard<std::mutex> lock(mutex());
    if (!kept().empty()) {
      data_ = kept().back();
      kept().pop_back();
    } else if (cudaHostAlloc(reinterpret_cast<void**>(&data_), 2 * sizeof(int),
                             cudaHostAllocPortable) != cudaSuccess) {
      cudaGetLastError();
      data_ = nullptr;
    }
  }
  ~PinnedPair() {
    const std::lock_guard<std::mutex> lock(mutex());
    if (data_ != nullptr) kept().push_back(data_);
  }
  int* data() const { return data_; }

 private:
  static std::mutex& mutex() {
    static std::mutex one_at_a_time;
    return one_at_a_time;
  }
  static std::vector<int*>& kept() {  // never given back: the driver may be gone before it
    static auto* const all = new std::vector<int*>;
    return *all;
  }
  int* data_ = nullptr;
};

// *live behind each block, seen by the host one block later.
class Polled {
 public:
  Polled(const int* live, const Runtime& runtime) : live_(live), stream_(stream_of(runtime)) {
    for (cudaEvent_t& event : events_) {
      if (error_ == cudaSuccess) error_ = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    }
    if (seen_.data() == nullptr) error_ = cudaErrorMemoryAllocation;
  }
  ~Polled() {
    // What is copied last arrives before someone else has the memory.
    if (marks_ > 0) cudaEventSynchronize(events_[(marks_ - 1) % 2]);
    for (cudaEvent_t event : events_) {
      if (event != nullptr) cudaEventDestroy(event);
    }
  }

  Status mark() {
    if (error_ != cudaSuccess) return graph_status(error_);
    const int64_t i = marks_ % 2;
    cudaError_t error =
        cudaMemcpyAsync(seen_.data() + i, live_, sizeof(int), cudaMemcpyDeviceToHost, stream_);
    if (error == cudaSuccess) error = cudaEventRecord(events_[i], stream_);
    if (error == cudaSuccess) ++marks_;
    return graph_status(error);
  }

  Status before_last(int* live) {
    *live = 1;
    if (marks_ < 2) return Status::ok();
    const Status status = graph_status(cudaEventSynchronize(events_[marks_ % 2]));
    if (status) *live = seen_.data()[marks_ % 2];
    return status;
  }

 private:
  const int* live_;
  cudaStream_t stream_;
  PinnedPair seen_;
  cudaEvent_t events_[2] = {};
  int64_t marks_ = 0;
  cudaError_t error_ = cudaSuccess;
};

// A stream to capture on; nothing runs there. The legacy stream, on which torch works unless told
// otherwise, cannot be captured.
class CaptureStream {
 public:
  CaptureStream() {
    if (cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking) != cudaSuccess) {
      cudaGetLastError();
      stream_ = nullptr;
    }
  }
  ~CaptureStream() {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// A graph and what is launched of it; goes when the device is through with it.
class Graph {
 public:
  ~Graph() {
    if (exec_ != nullptr) cudaGraphExecDestroy(exec_);
    if (graph_ != nullptr) cudaGraphDestroy(graph_);
    cudaGetLastError();
  }
  bool instantiate() { return cudaGraphInstantiate(&exec_, graph_, 0) == cudaSuccess; }
  Status launch(const Runtime& runtime) {
    return graph_status(cudaGraphLaunch(exec_, stream_of(runtime)));
  }
  cudaGraph_t graph_ = nullptr;

 private:
  cudaGraphExec_t exec_ = nullptr;
};

// Queues `pairs` on the capturing stream; false: the capture is lost.
bool queue_captured(const QueuePair& queue_pair, int64_t pairs, const Runtime& runtime,
                    cudaStream_t stream) {
  Runtime captured = runtime;
  captured.stream = stream;
  for (int64_t i = 0; i < pairs; ++i) {
    if (!queue_pair(captured)) return false;
  }
  return true;
}

// A block of pairs.
class PairsGraph {
 public:
  bool capture(const QueuePair& queue_pair, int64_t pairs, const Runtime& runtime) {
    const CaptureStream stream;
    if (stream.get() == nullptr ||
        cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
      cudaGetLastError();
      return false;
    }
    bool done = queue_captured(queue_pair, pairs, runtime, stream.get());
    done = cudaStreamEndCapture(stream.get(), &graph_.graph_) == cudaSuccess && done;
    done = done && graph_.instantiate();
    cudaGetLastError();
    return done;
  }
  Status launch(const Runtime& runtime) { return graph_.launch(runtime); }

 private:
  Graph graph_;
};

#if CUDART_VERSION >= 12040

__global__ void decode_condition_kernel(cudaGraphConditionalHandle handle, const int* live) {
  cudaGraphSetConditional(handle, *live != 0 ? 1 : 0);
}

// An empty WHILE node, and its body.
bool add_while(cudaGraph_t graph, cudaGraphConditionalHandle* handle, cudaGraph_t* body) {
  if (cudaGraphConditionalHandleCreate(handle, graph, 1, cudaGraphCondAssignDefault) !=
      cudaSuccess) {
    return false;
  }
  cudaGraphNodeParams params{};
  params.type = cudaGraphNodeTypeConditional;
  params.conditional.handle = *handle;
  params.conditional.type = cudaGraphCondTypeWhile;
  params.conditional.size = 1;
  cudaGraphNode_t node;
#if CUDART_VERSION >= 13000
  const cudaError_t error = cudaGraphAddNode(&node, graph, nullptr, nullptr, 0, &params);
#else
  const cudaError_t error = cudaGraphAddNode(&node, graph, nullptr, 0, &params);
#endif
  if (error != cudaSuccess) return false;
  *body = params.conditional.phGraph_out[0];
  return true;
}

// The pair and the question whether it is to be repeated, into the body.
bool capture_body(const QueuePair& queue_pair, const int* live, const Runtime& runtime,
                  cudaGraph_t body, cudaGraphConditionalHandle handle) {
  const CaptureStream stream;
  cudaFuncAttributes loaded;  // loads the kernel: under capture that may be refused
  if (stream.get() == nullptr ||
      cudaFuncGetAttributes(&loaded, decode_condition_kernel) != cudaSuccess ||
      cudaStreamBeginCaptureToGraph(stream.get(), body, nullptr, nullptr, 0,
                                    cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
    return false;
  }
  bool done = queue_captured(queue_pair, 1, runtime, stream.get());
  gpu::Config config;
  config.stream = stream.get();
  done = done && GPU_LAUNCH(config, decode_condition_kernel, handle, live) == cudaSuccess;
  cudaGraph_t same;
  return cudaStreamEndCapture(stream.get(), &same) == cudaSuccess && done;
}

// Whether the whole loop has been launched; then *status says how that went.
bool loop_on_device(const QueuePair& queue_pair, const int* live, const Runtime& runtime,
                    Status* status) {
  int driver = 0;
  Graph graph;
  cudaGraphConditionalHandle handle;
  cudaGraph_t body;
  const bool made = cudaDriverGetVersion(&driver) == cudaSuccess && driver >= 12040 &&
                    cudaGraphCreate(&graph.graph_, 0) == cudaSuccess &&
                    add_while(graph.graph_, &handle, &body) &&
                    capture_body(queue_pair, live, runtime, body, handle) && graph.instantiate();
  cudaGetLastError();
  if (!made) return false;
  *status = graph.launch(runtime);
  // Results are waited for in any case, and the graph has to last so long.
  if (*status) *status = graph_status(cudaStreamSynchronize(stream_of(runtime)));
  return true;
}

#else

bool loop_on_device(const QueuePair&, const int*, const Runtime&, Status*) { return false; }

#endif

}  // namespace

}  // namespace seq2seq_ext::kernels::cuda
