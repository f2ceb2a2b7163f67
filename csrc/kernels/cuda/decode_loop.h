// SPDX-License-Identifier: MIT
// How the steps of decoding follow each other without the host waiting for any of them.
#pragma once

#include <functional>

#include "common/status.h"
#include "cuda/runtime.h"

namespace seq2seq_ext::kernels::cuda {

// Queues pairs of steps on a runtime's stream; every pair the same launches on the same memory.
using QueuePair = std::function<Status(const Runtime& runtime)>;

// Runs pairs until *live, which each step leaves behind in device memory, is 0, or `pairs` of them
// have run; a pair or more that has nothing left to do may follow. On a GPU
//
//   while    one graph, whose WHILE node repeats the pair on the device (CUDA and driver >= 12.4)
//   replay   a graph of a block of pairs, launched again and again
//   queue    the block's launches, again and again
//
// the first that works; SEQ2SEQ_EXT_DECODE_LOOP names one to begin with. The last two copy *live to
// the host behind each block, and look at it when the next block has been queued.
// SEQ2SEQ_EXT_DECODE_STEPS: of a block, 16 unless told.
Status run_pairs(const QueuePair& queue_pair, int64_t pairs, const int* live,
                 const Runtime& runtime);

// Waits for all that is queued, and copies.
Status read_back(void* host, const void* device, int64_t bytes, const Runtime& runtime);

}  // namespace seq2seq_ext::kernels::cuda
