// SPDX-License-Identifier: MIT
#include "cpu/decode/stack.h"

#include <cstring>

namespace seq2seq_ext::kernels::cpu::decode {

int64_t Stack::input_size(const DecodeModel& model) {
  return model.E + (model.context == DecodeContext::kEveryStep ? model.C : 0) +
         (model.input_feeding ? model.P : 0);
}

int64_t Stack::work(const DecodeModel& model, const DecodeSources& sources) {
  const int64_t gates = num_gates(model.cell) * model.H;
  const int64_t projected = model.P != model.H ? model.P * model.H : 0;
  int64_t work = gates * (input_size(model) + model.P) + (model.L - 1) * gates * 2 * model.P +
                 model.L * projected;
  if (model.context == DecodeContext::kAttention) {
    work += model.P * (model.C + model.P) + sources.S * (model.A + model.C);
  }
  return work;
}

Stack::Stack(const DecodeModel& model, const DecodeSources& sources, const KernelTable& kernels,
             int64_t rows)
    : model_(model),
      sources_(sources),
      size_(size_of(model.dtype)),
      state_size_(size_ == 8 ? 8 : 4),
      inputs_(input_size(model)),
      lstm_(model.cell == Cell::kLstm),
      attends_(model.context == DecodeContext::kAttention),
      x_(rows * inputs_ * size_) {
  const int64_t places = 2 * rows;
  for (int64_t l = 0; l < model.L; ++l) {
    for (int i = 0; i < 2; ++i) {
      hidden_.push_back(std::make_unique<Bytes>(places * model.P * size_));
      cells_.push_back(std::make_unique<Bytes>(lstm_ ? places * model.H * state_size_ : 0));
    }
  }
  make_layers(kernels, rows);
  if (attends_) make_attention(kernels, rows);
}

void Stack::make_layers(const KernelTable& kernels, int64_t rows) {
  for (int64_t l = 0; l < model_.L; ++l) {
    StepParams p{};
    p.cell = model_.cell;
    p.dtype = model_.dtype;
    p.B = rows;
    p.I = p.x_stride_b = l == 0 ? inputs_ : model_.P;
    p.H = model_.H;
    p.P = model_.P;
    p.weights = model_.layers[l];
    if (model_.layer_panels != nullptr) {
      p.ih_panels = model_.layer_panels[l].ih;
      p.hh_panels = model_.layer_panels[l].hh;
      p.hr_panels = model_.layer_panels[l].hr;
    }
    layers_.emplace_back(kernels.make_step_part(p));
  }
}

void Stack::make_attention(const KernelTable& kernels, int64_t rows) {
  for (auto& features : features_) {
    features = std::make_unique<Bytes>(2 * rows * model_.P * size_);
  }
  context_ = std::make_unique<Bytes>(rows * model_.C * size_);
  weights_ = std::make_unique<Bytes>(rows * sources_.S * size_);
  AttentionStepParams a{};
  a.score = model_.score;
  a.dtype = model_.dtype;
  a.B = rows;
  a.Q = model_.P;
  a.A = model_.A;
  a.S = sources_.S;
  a.C = model_.C;
  a.scale = model_.scale;
  a.w_query = model_.w_query;
  a.v = model_.v;
  a.keys = sources_.keys;
  a.keys_stride_b = sources_.S * model_.A;
  a.keys_stride_s = model_.A;
  a.values = sources_.values;
  a.values_stride_b = sources_.S * model_.C;
  a.values_stride_s = model_.C;
  a.lengths = sources_.lengths;
  a.context = context_->data();
  a.weights = weights_->data();
  attention_.reset(kernels.make_attention_part(a));
  // tanh(W_c c + W_s s) is an Elman step from s on the input c.
  StepParams p{};
  p.cell = Cell::kRnnTanh;
  p.dtype = model_.dtype;
  p.B = rows;
  p.I = p.x_stride_b = model_.C;
  p.H = p.P = model_.P;
  p.weights.w_ih = model_.combine_ih;
  p.weights.w_hh = model_.combine_hh;
  p.ih_panels = model_.combine_panels.ih;
  p.hh_panels = model_.combine_panels.hh;
  p.x = context_->data();
  combine_.reset(kernels.make_step_part(p));
}

void Stack::enter(int64_t source, int64_t place) {
  const int64_t width = model_.P * size_, state = model_.H * state_size_;
  for (int64_t l = 0; l < model_.L; ++l) {
    std::memcpy(hidden(l, parity_) + place * width,
                static_cast<const char*>(sources_.hidden[l]) + source * width, width);
    if (lstm_) {
      std::memcpy(cells(l, parity_) + place * state,
                  static_cast<const char*>(sources_.cells[l]) + source * state, state);
    }
  }
  if (model_.input_feeding) std::memset(features_[parity_]->data() + place * width, 0, width);
}

void Stack::set_rows(int64_t count, const int64_t* from, const int64_t* source) {
  from_ = from;
  source_ = source;
  const void* x = x_.data();
  for (int64_t l = 0; l < model_.L; ++l) {
    StepParams& p = layers_[l]->params;
    p.B = count;
    p.x = x;
    p.h = hidden(l, parity_);
    p.h_out = hidden(l, 1 - parity_);
    p.c = cells(l, parity_);
    p.c_out = cells(l, 1 - parity_);
    p.from = from;
    x = p.h_out;
  }
  if (!attends_) return;
  attention_->params.B = combine_->params.B = count;
  attention_->params.query = combine_->params.h = x;
  attention_->params.source = source;
  combine_->params.h_out = features_[1 - parity_]->data();
}

const void* Stack::features() const {
  return attends_ ? features_[1 - parity_]->data() : hidden(model_.L - 1, 1 - parity_);
}

void Stack::gather(int64_t i, int64_t token) {
  auto append = [to = x_.data() + i * inputs_ * size_](const void* rows, int64_t row,
                                                       int64_t bytes) mutable {
    std::memcpy(to, static_cast<const char*>(rows) + row * bytes, bytes);
    to += bytes;
  };
  append(model_.embedding, token, model_.E * size_);
  if (model_.context == DecodeContext::kEveryStep) {
    append(sources_.context, source_[i], model_.C * size_);
  } else if (model_.input_feeding) {
    append(features_[parity_]->data(), from_[i], model_.P * size_);
  }
}

void Stack::run(const Member& member) {
  for (size_t l = 0; l < layers_.size(); ++l) {
    if (l > 0) {
      layers_[l]->prepare(member);
      member.barrier->wait();
    }
    layers_[l]->run(member);
    member.barrier->wait();
  }
  if (!attends_) return;
  attention_->run(member);
  combine_->prepare(member);
  member.barrier->wait();
  combine_->run(member);
  member.barrier->wait();
}

template <class Take>
void Stack::each(const char* rows, int64_t i, int64_t count, const Take& take) const {
  const char* from = rows + i * count * size_;
  for (int64_t k = 0; k < count; ++k) {
    if (model_.dtype == DType::kFloat64) {
      take(k, reinterpret_cast<const double*>(from)[k]);
    } else if (model_.dtype == DType::kFloat32) {
      take(k, reinterpret_cast<const float*>(from)[k]);
    } else {
      take(k, to_float(reinterpret_cast<const BFloat16*>(from)[k]));
    }
  }
}

void Stack::widen(const char* rows, int64_t i, int64_t count, double* to) const {
  each(rows, i, count, [to](int64_t k, double value) { to[k] = value; });
}

void Stack::add_weights(int64_t i, double* to) const {
  each(weights_->data(), i, sources_.S, [to](int64_t k, double value) { to[k] += value; });
}

const void* output_panels(const DecodeModel& model, const KernelTable& kernels,
                          const Runtime& runtime, std::unique_ptr<ScratchArray<char>>* packed) {
  if (model.output_panels != nullptr || model.layer_panels == nullptr) return model.output_panels;
  PanelsParams p{model.dtype, model.V, model.P, 0, model.output_weight, nullptr};
  const int64_t count = kernels.pack_panels(p, runtime);
  *packed = std::make_unique<ScratchArray<char>>(count * size_of(model.dtype));
  p.panels = (*packed)->data();
  kernels.pack_panels(p, runtime);
  return p.panels;
}

}  // namespace seq2seq_ext::kernels::cpu::decode
