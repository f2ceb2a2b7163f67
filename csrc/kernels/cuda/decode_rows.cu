// SPDX-License-Identifier: MIT
// Where decoding begins, and where each of its steps does.
#include <algorithm>
#include <initializer_list>

#include "cuda/decode_launch.cuh"

namespace seq2seq_ext::kernels::cuda {
namespace {

__global__ void __launch_bounds__(kDecodeThreads)
    decode_begin_kernel(const __grid_constant__ DecodeBegin begin) {
  const DecodeState& s = begin.state;
  const int64_t row = thread_of_grid();
  if (row == 0) {
    *s.step = -1;
    *s.live = int(s.rows);
    *s.summary = {0, ~uint64_t{0}};
    if (s.seed != nullptr) *s.seed = int64_t(begin.seed);
  }
  if (row >= s.rows) return;
  const int64_t source = row / s.K, slot = row % s.K;
  s.tokens[row] = begin.start_token;
  s.undefined[row] = -1;
  s.source[row] = source;
  if (s.alive != nullptr) {
    s.alive[row] = s.given_lengths == nullptr || s.given_lengths[row] > 0;
    s.lengths[row] = 0;
  }
  if (s.row_ids != nullptr) {
    s.row_ids[row] = (begin.row_ids == nullptr ? source : begin.row_ids[source]) + (slot << 32);
  }
  if (s.from == nullptr) return;
  // A group begins with one beam: its others would say the same.
  const double score = slot % s.width == 0 ? 0 : minus_infinity<double>();
  s.from[row] = row;
  s.scores[row] = score;
  s.running[row] = {score, 0, 0, 0, 0};
  s.finished[row] = {minus_infinity<double>(), 0, 0, 0, 0};
  if (slot == 0) s.done[source] = false;
  if (slot % s.width == 0) s.group_done[source * s.groups + slot / s.width] = false;
}

// The largest unit in which all of some addresses and widths can be copied.
struct alignas(16) Bytes16 {
  uint64_t low, high;
};
int unit_of(std::initializer_list<const void*> pointers, std::initializer_list<int64_t> widths) {
  uint64_t bits = 16;
  for (const void* pointer : pointers) bits |= reinterpret_cast<uintptr_t>(pointer);
  for (const int64_t width : widths) bits |= uint64_t(width);
  return bits % 16 == 0 ? 16 : bits % 8 == 0 ? 8 : bits % 4 == 0 ? 4 : 2;
}
template <class F>
Status dispatch_unit(int unit, const F& f) {
  return unit == 16  ? f(Bytes16{})
         : unit == 8 ? f(uint64_t{})
         : unit == 4 ? f(uint32_t{})
                     : f(uint16_t{});
}

// A block a row.
template <class Unit>
__device__ void copy_row(void* to, const void* from, int64_t width) {
  for (int64_t i = threadIdx.x; i < width / int64_t(sizeof(Unit)); i += kDecodeThreads) {
    static_cast<Unit*>(to)[i] = from == nullptr ? Unit{} : static_cast<const Unit*>(from)[i];
  }
}

template <class Unit>
__global__ void __launch_bounds__(kDecodeThreads)
    decode_spread_kernel(char* to, const char* from, int64_t group, int64_t width) {
  const int64_t row = blockIdx.x;
  copy_row<Unit>(to + row * width, from == nullptr ? nullptr : from + row / group * width, width);
}

template <class Unit>
__global__ void __launch_bounds__(kDecodeThreads)
    decode_gather_kernel(const __grid_constant__ DecodeGather g) {
  const DecodeState& s = g.state;
  const int64_t row = blockIdx.x;
  if (row == 0 && threadIdx.x == 0) {  // no other thread of this kernel looks at these
    ++*s.step;
    *s.live = 0;
  }
  char* const x = static_cast<char*>(g.x) + row * (g.width + g.second_width);
  copy_row<Unit>(x, static_cast<const char*>(g.embedding) + s.tokens[row] * g.width, g.width);
  if (g.second == nullptr) return;
  const int64_t second = !g.fed ? row / s.K : s.from == nullptr ? row : s.from[row];
  copy_row<Unit>(x + g.width, static_cast<const char*>(g.second) + second * g.second_width,
                 g.second_width);
}

constexpr int kSomeTokens = 128;
struct SomeTokens {
  int count;
  int64_t tokens[kSomeTokens];
};

// A thread a word of bits.
__global__ void __launch_bounds__(kDecodeThreads)
    decode_bits_kernel(const __grid_constant__ DecodeState s, uint32_t* bits, int64_t rows,
                       bool fresh, const uint8_t* allowed,
                       const __grid_constant__ SomeTokens some) {
  const int64_t V = s.V, i = thread_of_grid();
  if (i >= rows * s.words) return;
  const int64_t row = i / s.words, first = i % s.words * 32;
  uint32_t word = fresh ? 0 : bits[i];
  for (int bit = 0; fresh && allowed != nullptr && bit < 32 && first + bit < V; ++bit) {
    if (!allowed[row * V + first + bit]) word |= uint32_t{1} << bit;
  }
  for (int k = 0; k < some.count; ++k) {
    const int64_t at = word_of(s, some.tokens[k]);
    if (at >= first && at < first + 32) word |= uint32_t{1} << (at - first);
  }
  bits[i] = word;
}

}  // namespace

Status decode_begin(const DecodeBegin& begin, const Runtime& runtime) {
  return launch_decode("begin", decode_begin_kernel, blocks_of(begin.state.rows), runtime, begin);
}

Status decode_spread(void* to, const void* from, int64_t rows, int64_t group, int64_t width,
                     const Runtime& runtime) {
  return dispatch_unit(unit_of({to, from}, {width}), [&](auto unit) {
    return launch_decode("spread", decode_spread_kernel<decltype(unit)>, rows, runtime,
                         static_cast<char*>(to), static_cast<const char*>(from), group, width);
  });
}

Status decode_set_bits(const DecodeState& s, uint32_t* bits, int64_t rows, const int64_t* tokens,
                       int64_t count, bool fresh, const uint8_t* allowed, const Runtime& runtime) {
  for (int64_t first = 0; first < count || fresh; first += kSomeTokens, fresh = false) {
    SomeTokens some{};
    some.count = static_cast<int>(std::min<int64_t>(count - first, kSomeTokens));
    std::copy_n(tokens + first, some.count, some.tokens);
    const Status status = launch_decode("bits", decode_bits_kernel, blocks_of(rows * s.words),
                                        runtime, s, bits, rows, fresh, allowed, some);
    if (!status) return status;
  }
  return Status::ok();
}

Status decode_gather(const DecodeGather& g, const Runtime& runtime) {
  const int unit = unit_of({g.x, g.embedding, g.second}, {g.width, g.second_width});
  return dispatch_unit(unit, [&](auto tag) {
    return launch_decode("gather", decode_gather_kernel<decltype(tag)>, g.state.rows, runtime, g);
  });
}

}  // namespace seq2seq_ext::kernels::cuda
