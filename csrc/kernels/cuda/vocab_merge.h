// SPDX-License-Identifier: MIT
// The second half of the vocabulary pick: from the slices' results to the row's (vocab.cuh: the
// first half, and what is what).
#pragma once

#include "common/params.h"
#include "common/status.h"
#include "cuda/runtime.h"

namespace seq2seq_ext::kernels::cuda {

template <class A>
struct VocabWork;

// For p.B rows; A is float or double, as p.dtype's sums.
template <class A>
Status merge_best(const VocabPickParams& p, const VocabWork<A>& work, const Runtime& runtime);
template <class A>
Status merge_lists(const VocabPickParams& p, const VocabWork<A>& work, const Runtime& runtime);

// Any K, from all logits.
template <class A>
Status sort_logits(const VocabPickParams& p, const VocabWork<A>& work, const Runtime& runtime);
template <class A>
int64_t sort_bytes_per_row(const VocabPickParams& p);  // of VocabWork::sort

// Each dtype's first half and choice of the second (vocab_<dtype>.cu).
template <class T>
Status vocab_pick_as(const VocabPickParams& p, const Runtime& runtime);

}  // namespace seq2seq_ext::kernels::cuda
