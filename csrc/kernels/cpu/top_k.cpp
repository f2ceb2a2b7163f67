// SPDX-License-Identifier: MIT
#include "cpu/top_k.h"

#include <algorithm>

namespace seq2seq_ext::kernels::cpu {
namespace {

struct Better {
  template <class T>
  bool operator()(const Candidate<T>& a, const Candidate<T>& b) const {
    return a.value > b.value || (a.value == b.value && a.index < b.index);
  }
};

}  // namespace

template <class T>
TopK<T>::TopK(int64_t rows, int64_t K) : K_(K), size_(rows), worst_(rows), kept_(rows * K) {
  reset(rows);
}

template <class T>
void TopK<T>::reset(int64_t rows) {
  std::fill_n(size_.data(), rows, int64_t{0});
}

template <class T>
void TopK<T>::offer(int64_t row, T value, int64_t index) {
  Candidate<T>* heap = kept_.data() + row * K_;
  const Candidate<T> candidate{value, index};
  if (size_[row] == K_) {
    if (!Better()(candidate, heap[0])) return;
    std::pop_heap(heap, heap + K_, Better());
    heap[K_ - 1] = candidate;
  } else {
    heap[size_[row]++] = candidate;
  }
  std::push_heap(heap, heap + size_[row], Better());
  worst_[row] = heap[0].value;
}

template <class T>
int64_t TopK<T>::merge(TopK* const* streams, int64_t num_streams, int64_t row, Candidate<T>* all,
                       T* values, int64_t* indices) {
  const int64_t K = streams[0]->K_;
  Candidate<T>* end = all;
  for (int64_t i = 0; i < num_streams; ++i) {
    end = std::copy_n(streams[i]->kept_.data() + row * K, streams[i]->size_[row], end);
  }
  const int64_t count = std::min<int64_t>(K, end - all);
  std::partial_sort(all, all + count, end, Better());
  for (int64_t k = 0; k < count; ++k) {
    values[k] = all[k].value;
    indices[k] = all[k].index;
  }
  return count;
}

template class TopK<float>;
template class TopK<double>;

}  // namespace seq2seq_ext::kernels::cpu
