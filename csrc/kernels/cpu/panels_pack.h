// SPDX-License-Identifier: MIT
// Packs weights into panels, for one ISA: what panels look like is its own. Included by
// panels_<isa>.cpp only.
#pragma once

#include "cpu/panels.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {
namespace {

// Panel p's column j is weight row row_of(p, j).
template <class T, int NV, class RowOf>
void pack_as(const PanelsParams& p, const Runtime& runtime, int64_t panels, const RowOf& row_of) {
  const auto pack = [&](int64_t panel) {
    pack_panel_rows<T, NV>(
        static_cast<const T*>(p.weight), p.K, p.K, [&](int64_t j) { return row_of(panel, j); },
        static_cast<T*>(p.panels) + panel * panel_size<T, NV>(p.K));
  };
  run_team(runtime, static_cast<int>(std::min<int64_t>(runtime.num_threads, panels)),
           [&](const Member& member) {
             for (int64_t i = member.begin(panels); i < member.end(panels); ++i) pack(i);
           });
}

// Returns how many elements the panels have; packs them unless `panels` is null.
template <class T, int NV>
int64_t gates(const PanelsParams& p, const Runtime& runtime) {
  const int64_t units = NV / p.gates * kLanesOf<T>, H = p.N / p.gates;
  const int64_t panels = (H + units - 1) / units;
  if (p.panels != nullptr) {
    pack_as<T, NV>(p, runtime, panels, [&](int64_t panel, int64_t j) {
      const int64_t unit = panel * units + j % units;
      return unit < H ? j / units * H + unit : -1;
    });
  }
  return panels * panel_size<T, NV>(p.K);
}

template <class T>
int64_t words(const PanelsParams& p, const Runtime& runtime) {
  constexpr int64_t kWords = kPanelWords<T>;
  const int64_t panels = (p.N + kVocabBlock - 1) / kVocabBlock * (kVocabBlock / kWords);
  if (p.panels != nullptr) {
    pack_as<T, kWordVectors>(p, runtime, panels, [&](int64_t panel, int64_t j) {
      const int64_t word = panel * kWords + j;
      return word < p.N ? word : -1;
    });
  }
  return panels * panel_size<T, kWordVectors>(p.K);
}

template <class T>
int64_t pack(const PanelsParams& p, const Runtime& runtime) {
  switch (p.gates) {
    case 0:
      return words<T>(p, runtime);
    case 3:
      return gates<T, 3>(p, runtime);
    default:
      return gates<T, 4>(p, runtime);
  }
}

}  // namespace

int64_t pack_panels(const PanelsParams& p, const Runtime& runtime) {
  switch (p.dtype) {
    case DType::kFloat32:
      return pack<float>(p, runtime);
    case DType::kFloat64:
      return pack<double>(p, runtime);
    case DType::kBFloat16:
      return pack<BFloat16>(p, runtime);
    default:
      return -1;
  }
}

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
