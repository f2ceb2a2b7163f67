// SPDX-License-Identifier: MIT
// A model in its work memory: the parts of a step, and the states of the rows in flight.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/decode.h"
#include "cpu/decode/parts.h"
#include "cpu/isa.h"
#include "cpu/scratch.h"

namespace seq2seq_ext::kernels::cpu::decode {

// Rows stand at places 0 .. count - 1 of a step. States are written at a row's place and read, at
// the next step, from the place of the row that it continues: nothing is moved.
class Stack {
 public:
  // rows: in flight at most.
  Stack(const DecodeModel& model, const DecodeSources& sources, const KernelTable& kernels,
        int64_t rows);

  // Multiply-adds of a row's step, but for the output layer.
  static int64_t work(const DecodeModel& model, const DecodeSources& sources);

  // What was written is read from now on.
  void begin_step() { parity_ = 1 - parity_; }

  // A source's first state, to a place behind those of the rows before (twice `rows` are there).
  void enter(int64_t source, int64_t place);

  // The rows of this step: from[i] the place of the state that row i goes on from, source[i] its
  // source. Both stay as they are for the step.
  void set_rows(int64_t count, const int64_t* from, const int64_t* source);

  // What the layers read at row i; by whose share it is, before prepare.
  void gather(int64_t i, int64_t token);

  // By everybody of the team, each for its share of the rows as it has gathered them; a barrier
  // stands between this and run.
  void prepare(const Member& member) { layers_[0]->prepare(member); }

  // By everybody of the team; barriers stand between phases and at the end.
  void run(const Member& member);

  // (count, P) dtype: what the output layer reads.
  const void* features() const;

  // Of row i, widened: the attention weights (S), s_t (P), c_t (C).
  void copy_weights(int64_t i, double* to) const { widen(weights_->data(), i, sources_.S, to); }
  void add_weights(int64_t i, double* to) const;
  void copy_hidden(int64_t i, double* to) const {
    widen(hidden(model_.L - 1, 1 - parity_), i, model_.P, to);
  }
  void copy_context(int64_t i, double* to) const { widen(context_->data(), i, model_.C, to); }

 private:
  using Bytes = ScratchArray<char>;

  static int64_t input_size(const DecodeModel& model);
  template <class Take>
  void each(const char* rows, int64_t i, int64_t count, const Take& take) const;
  void widen(const char* rows, int64_t i, int64_t count, double* to) const;
  void make_layers(const KernelTable& kernels, int64_t rows);
  void make_attention(const KernelTable& kernels, int64_t rows);
  char* hidden(int64_t layer, int parity) const { return hidden_[2 * layer + parity]->data(); }
  char* cells(int64_t layer, int parity) const { return cells_[2 * layer + parity]->data(); }

  const DecodeModel& model_;
  const DecodeSources& sources_;
  const int64_t size_, state_size_, inputs_;  // bytes of an element of dtype, of state; I
  const bool lstm_, attends_;
  Bytes x_;                                     // (rows, I) dtype
  std::vector<std::unique_ptr<Bytes>> hidden_;  // (L, 2): (places, P) dtype
  std::vector<std::unique_ptr<Bytes>> cells_;   // (L, 2): (places, H) state
  std::unique_ptr<Bytes> features_[2];          // (places, P) dtype: attentional vectors
  std::unique_ptr<Bytes> context_, weights_;    // (rows, C), (rows, S) dtype
  std::vector<std::unique_ptr<StepPart>> layers_;
  std::unique_ptr<AttentionPart> attention_;
  std::unique_ptr<StepPart> combine_;
  const int64_t* from_ = nullptr;
  const int64_t* source_ = nullptr;
  int parity_ = 0;  // states are read at parity_ and written at 1 - parity_
};

// The output layer's panels; packed into `packed` where the model has them of its other weights
// alone. Null: it has none.
const void* output_panels(const DecodeModel& model, const KernelTable& kernels,
                          const Runtime& runtime, std::unique_ptr<ScratchArray<char>>* packed);

}  // namespace seq2seq_ext::kernels::cpu::decode
