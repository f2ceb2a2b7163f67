// SPDX-License-Identifier: MIT
// `decode`: whole sequences in one call. The arguments are those of
// seq2seq_ext/generation/native.py, which is where their order is written down, too. What runs is
// in cpu_decode.cpp and in cuda_decode.cpp.
#include <algorithm>
#include <memory>

#include "decode_arguments.h"

namespace seq2seq_ext::bindings {
namespace {

using namespace decode_arguments;

// counts: slots, results, max_new_tokens, min_new_tokens, start token, no_repeat_ngram_size, top_k,
// seed (its bits), early_stopping (0 False, 1 True, 2 never), groups, attentions, states, scores.
// numbers: repetition_penalty, temperature, top_p, min_p, length_penalty, coverage_penalty,
// diversity_penalty.
// phrases: the length of each, then its tokens.
kernels::DecodeOptions options_of(const std::string& mode, const Integers& counts,
                                  const std::vector<double>& numbers, const Integers& eos,
                                  const Integers& banned, const Integers& phrases) {
  kernels::DecodeOptions o;
  o.mode = named<DecodeMode>("mode", mode,
                             {{"greedy", DecodeMode::kGreedy},
                              {"sample", DecodeMode::kSample},
                              {"beam", DecodeMode::kBeam},
                              {"given", DecodeMode::kGiven}});
  if (counts.size() != 13) fail("counts", std::to_string(counts.size()) + " numbers", 13);
  if (numbers.size() != 7) fail("numbers", std::to_string(numbers.size()) + " numbers", 7);
  o.slots = counts[0];
  o.results = counts[1];
  o.max_new_tokens = counts[2];
  o.min_new_tokens = counts[3];
  o.start_token = counts[4];
  o.no_repeat_ngram_size = counts[5];
  o.top_k = counts[6];
  o.seed = static_cast<uint64_t>(counts[7]);
  o.early_stopping = static_cast<kernels::DecodeOptions::EarlyStopping>(counts[8]);
  o.groups = counts[9];
  o.attentions = counts[10] != 0;
  o.states = counts[11] != 0;
  o.repetition_penalty = numbers[0];
  o.temperature = numbers[1];
  o.top_p = numbers[2];
  o.min_p = numbers[3];
  o.length_penalty = numbers[4];
  o.coverage_penalty = numbers[5];
  o.diversity_penalty = numbers[6];
  const bool counted = o.slots >= 1 && o.results >= 1 && o.max_new_tokens >= 1 && o.groups >= 1 &&
                       o.slots % o.groups == 0 && counts[8] >= 0 && counts[8] <= 2 &&
                       o.results <= o.slots && o.top_k >= 0;
  if (!counted) fail("counts", "others", "numbers in their ranges");
  if (!(o.temperature > 0) || !(o.repetition_penalty > 0)) {
    fail("numbers", "others", "a positive temperature and repetition_penalty");
  }
  o.eos = eos;
  o.banned = banned;
  std::sort(o.eos.begin(), o.eos.end());
  std::sort(o.banned.begin(), o.banned.end());
  for (size_t i = 0; i < phrases.size();) {
    const auto length = static_cast<size_t>(std::max<int64_t>(phrases[i], 0));
    if (length < 2 || i + 1 + length > phrases.size()) {
      fail("phrases", "others", "lengths of 2 and more, each before its tokens");
    }
    o.phrases.emplace_back(phrases.begin() + i + 1, phrases.begin() + i + 1 + length);
    i += 1 + length;
  }
  return o;
}

void expect_tokens(const int64_t* tokens, int64_t count, int64_t low, int64_t end,
                   const char* name) {
  for (int64_t i = 0; i < count; ++i) {
    if (tokens[i] < low || tokens[i] >= end) {
      fail(name, std::to_string(tokens[i]), "ids in [", low, ", ", end, ")");
    }
  }
}

// The caller's functions, by their addresses (ctypes); they take the GIL themselves.
using OnStep = bool (*)(const kernels::DecodeStep* step);
using GoOn = bool (*)();

// Each source's own tokens.
void set_shortlist(Model& model, const Tensor& shortlist, const OptionalTensor& starts, int64_t B,
                   kernels::DecodeOptions* o) {
  if (model.p.tokens != nullptr) fail("shortlist", "a tensor", "None beside `tokens`");
  if (!starts) fail("shortlist_starts", "None", "a tensor");
  expect_dims(shortlist, 1, "shortlist", "n");
  const int64_t count = shortlist.size(0);
  o->shortlist = model.integers_of(shortlist, "shortlist", {count});
  o->shortlist_starts = model.integers_of(*starts, "shortlist_starts", {B + 1});
  if (!shortlist.is_cpu()) return;
  int64_t last = 0;
  for (int64_t b = 0; b <= B; ++b) {
    const int64_t start = o->shortlist_starts[b];
    if ((b == 0 ? start != 0 : start <= last) || start > count) {
      fail("shortlist_starts", std::to_string(start), "ascending numbers from 0 to ", count);
    }
    for (int64_t i = last; i < start; ++i) {
      const int64_t low = i == last ? 0 : o->shortlist[i - 1] + 1, token = o->shortlist[i];
      if (token < low || token >= model.p.V) {
        fail("shortlist", std::to_string(token), "ascending ids below ", model.p.V);
      }
    }
    last = start;
  }
}

using DecodedAndScores =
    decltype(std::tuple_cat(std::declval<Decoded>(), std::declval<std::tuple<Tensor>>()));

// Among the dtypes of an ensemble's models.
int width_of(const Tensor& tensor) {
  const ScalarType type = tensor.scalar_type();
  return type == ScalarType::Double ? 3 : type == ScalarType::Float ? 2 : 1;
}

DecodedAndScores decode(const std::string& cell, const std::string& context, bool input_feeding,
                        const Tensor& embedding, const Tensors& layers, const Tensors& attention,
                        bool additive, double scale, const Tensor& output_weight,
                        const OptionalTensor& output_bias, const OptionalTensor& tokens,
                        const OptionalTensor& screen, const OptionalTensor& screen_numbers,
                        const Tensors& panels, const OptionalTensor& output_panels,
                        const Tensors& hidden, const Tensors& cells, const OptionalTensor& keys,
                        const OptionalTensor& values, const OptionalTensor& source_context,
                        const OptionalTensor& lengths, const std::string& mode,
                        const Integers& counts, const std::vector<double>& numbers,
                        const Integers& eos, const Integers& banned, const Integers& phrases,
                        const OptionalTensor& allowed, const OptionalTensor& prefix,
                        const OptionalTensor& row_ids, const OptionalTensor& given,
                        const OptionalTensor& given_lengths, int64_t on_step,
                        const OptionalTensor& shortlist, const OptionalTensor& shortlist_starts,
                        int64_t go_on, const Tensors& more_tensors, const Integers& more_layout,
                        const std::vector<double>& more_scales, bool mean_of_logs) {
  expect_supported_dtype(embedding, "embedding");
  Model model(cell, context, input_feeding, embedding, layers, attention, additive, scale,
              output_weight, output_bias, tokens);
  if (screen) model.set_screen(*screen, screen_numbers);
  if (screen && panels.empty()) fail("panels", "0 tensors", "those of all layers beside a screen");
  model.set_panels(panels, output_panels);
  const Sources sources(model, hidden, cells, keys, values, source_context, lengths);
  kernels::DecodeOptions o = options_of(mode, counts, numbers, eos, banned, phrases);
  const int64_t B = sources.p.B, V = model.p.V, num_tokens = model.p.num_tokens;
  expect_tokens(&o.start_token, 1, 0, num_tokens, "counts (start token)");
  OptionalTensor mask;
  if (allowed) {
    if (allowed->scalar_type() != ScalarType::Bool) {
      fail("allowed", dtype_text(allowed->scalar_type()), "dtype bool");
    }
    expect_device(*allowed, embedding, "allowed", "embedding");
    o.allowed_rows = allowed->dim() == 2 && allowed->size(0) == 1 ? 1 : B;
    expect_shape(*allowed, {o.allowed_rows, V}, "allowed");
    mask = as_contiguous(*allowed);
    o.allowed = static_cast<const uint8_t*>(mask->const_data_ptr());
  }
  if (prefix) {
    expect_dims(*prefix, 2, "prefix", "B, n");
    o.prefix_size = prefix->size(1);
    o.prefix = model.integers_of(*prefix, "prefix", {B, o.prefix_size});
    if (prefix->is_cpu()) {
      expect_tokens(o.prefix, B * o.prefix_size, -1, num_tokens, "prefix");
    }
  }
  if (row_ids) o.row_ids = model.integers_of(*row_ids, "row_ids", {B});
  if (o.mode == DecodeMode::kGiven) {
    if (!given || !given_lengths) fail("given", "None", "tensors for given and given_lengths");
    expect_dims(*given, 2, "given", "B, n");
    o.given_size = given->size(1);
    o.given = model.integers_of(*given, "given", {B, o.given_size});
    o.given_lengths = model.integers_of(*given_lengths, "given_lengths", {B});
    if (given->is_cpu()) {
      expect_tokens(o.given, B * o.given_size, 0, num_tokens, "given");
      expect_tokens(o.given_lengths, B, 0, o.given_size + 1, "given_lengths");
    }
  }
  if (o.attentions && model.p.context != DecodeContext::kAttention) {
    fail("counts (attentions)", "1", "0 with context '", context, "'");
  }
  if (on_step != 0) {
    o.on_step_context = reinterpret_cast<void*>(on_step);
    o.on_step = [](const kernels::DecodeStep& step, void* function) {
      return reinterpret_cast<OnStep>(function)(&step);
    };
  }
  if (go_on != 0) {
    o.go_on_context = reinterpret_cast<void*>(go_on);
    o.go_on = [](void* function) { return reinterpret_cast<GoOn>(function)(); };
  }
  const MoreModels more(more_tensors, more_layout, more_scales, tokens, lengths);
  more.expect_like(model.p, sources.p);
  if (!more.models.empty() && (!embedding.is_cpu() || o.states)) {
    fail("more", std::to_string(more.models.size()) + " models",
         "none on a GPU, and none where states are kept");
  }
  o.mean_of_logs = mean_of_logs;
  const Tensor* like = &model.embedding;
  std::vector<kernels::DecodeMember> others;
  for (size_t m = 0; m < more.models.size(); ++m) {
    others.push_back({&more.models[m]->p, &more.sources[m]->p});
    const Tensor& other = more.models[m]->embedding;
    if (width_of(other) > width_of(*like)) like = &other;
    const bool attends = others.back().model->context == DecodeContext::kAttention;
    if ((o.attentions || o.coverage_penalty != 0) &&
        (!attends || others.back().sources->S != sources.p.S)) {
      fail("more", "others", "models with attention over as many positions");
    }
  }
  if (shortlist) set_shortlist(model, *shortlist, shortlist_starts, B, &o);
  Tensor scores = nothing(embedding);
  if (counts[12] != 0) {
    o.make_scores = [&](int64_t T) {
      scores = allocate(*like, {B * o.results, T, num_tokens}, state_type(like->scalar_type()));
      return scores.mutable_data_ptr();
    };
  }
  const Decoded found = backend::decode({model.p, sources.p, o, *like, others});
  return std::tuple_cat(found, std::make_tuple(scores));
}

}  // namespace

void register_decode_sequences(Library& m) { m.impl("decode", TORCH_BOX(&decode)); }

}  // namespace seq2seq_ext::bindings
