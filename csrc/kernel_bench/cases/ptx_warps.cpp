// SPDX-License-Identifier: MIT
// The case "ptx", continued: flags, barriers, and what lanes do together.
#include <algorithm>

#include "cases/ptx_checks.h"

namespace seq2seq_ext::kernel_bench {

// ---- Synchronisation ----------------------------------------------------------------------------

void Ptx::flags() {
  const int blocks = int(std::min<int64_t>(bench.args.size("blocks", 4), bench.runtime.device.sms));
  const int rounds = int(bench.args.size("rounds", 6));
  Integers<uint32_t> data(int64_t(blocks) * 2 * 1024);
  Integers<unsigned> flag_words(std::vector<unsigned>(2 * blocks, 0));
  Integers<unsigned> wrong(std::vector<unsigned>(blocks, 0));
  run("ld_acquire, st_release, red_release",
      ptx::flags(blocks, rounds, data.data(), flag_words.data(), wrong.data()),
      [&] { return wrong.download() == std::vector<unsigned>(blocks, 0); });

  Integers<unsigned> tickets(std::vector<unsigned>{0}), sum(std::vector<unsigned>{0});
  Integers<unsigned> partial(64 * blocks);
  run("atomic_add_acq_rel, ld_relaxed, st_relaxed",
      ptx::tickets(blocks, tickets.data(), partial.data(), sum.data()), [&] {
        const unsigned n = unsigned(blocks), expected = 64 * 1000 * (n * (n - 1) / 2) + n * 2016;
        return sum.download()[0] == expected && tickets.download()[0] == 0;
      });
}

void Ptx::barriers() {
  const int rounds = 7;
  Integers<int> sums(96);
  run("named_barrier_sync, named_barrier_arrive", ptx::named_barriers(rounds, sums.data()), [&] {
    const std::vector<int> got = sums.download();
    bool right = true;
    for (int t = 32; t < 96; ++t) right &= got[t] == 2100 + rounds * ((t % 32 + t / 32) % 32);
    return right;
  });
  if (bench.runtime.device.arch < 90) return;
  const int tiles = 9;
  const std::vector<float> in = random_floats(256 * tiles, 1);
  Integers<float> device_in(in), out(int64_t(in.size()));
  run("mbar_*, bulk_copy_g2s, fences", ptx::bulk_pipeline(device_in.data(), tiles, out.data()),
      [&] {
        const std::vector<float> got = out.download();
        bool right = true;
        for (size_t i = 0; i < in.size(); ++i) right &= got[i] == 2 * in[i];
        return right;
      });
  Integers<int> rotated(96);
  run("mbar_arrive, mbar_wait, mbar_try_wait", ptx::mbarrier_phases(rounds, rotated.data()), [&] {
    const std::vector<int> got = rotated.download();
    bool right = true;
    for (int t = 0; t < 96; ++t) right &= got[t] == (t + rounds) % 96;
    return right;
  });
}

// ---- Intrinsics ---------------------------------------------------------------------------------

void Ptx::votes(uint32_t mask) {
  const Words in = random_words(32);
  Integers<uint32_t> device_in(in), out(Words(ptx::kVotes * 32, 0));
  char name[64];
  std::snprintf(name, sizeof name, "votes, matches, reductions of 0x%08x", mask);
  run(name, ptx::votes(mask, device_in.data(), out.data()), [&] {
    const Words got = out.download();
    std::vector<uint32_t> lanes;
    for (uint32_t lane = 0; lane < 32; ++lane) {
      if (mask >> lane & 1) lanes.push_back(lane);
    }
    uint32_t e[ptx::kVotes] = {};
    e[2] = 1, e[4] = mask, e[6] = ~0u, e[8] = ~0u;
    int smallest = INT32_MAX, largest = INT32_MIN;
    for (const uint32_t lane : lanes) {
      const uint32_t x = in[lane];
      if (x & 1) e[0] |= 1u << lane;
      e[1] |= x % 7 == 0, e[2] &= x % 7 != 0;
      if (x / 0x10000000u != in[lanes[0]] / 0x10000000u) e[4] = 0;
      e[5] += x, e[6] = std::min(e[6], x), e[7] = std::max(e[7], x);
      e[8] &= x | 0xff, e[9] |= x & 0xff00, e[10] ^= x;
      smallest = std::min(smallest, int(x)), largest = std::max(largest, int(x));
    }
    e[11] = e[5], e[12] = uint32_t(smallest), e[13] = uint32_t(largest), e[14] = in[lanes[0]];
    bool right = true;
    for (const uint32_t lane : lanes) {
      e[3] = 0;
      for (const uint32_t other : lanes) {
        if (in[other] % 5 == in[lane] % 5) e[3] |= 1u << other;
      }
      for (int i = 0; i < ptx::kVotes; ++i) right &= got[32 * i + lane] == e[i];
    }
    return right;
  });
}

void Ptx::shuffles() {
  const Words in = random_words(32);
  Integers<uint32_t> device_in(in), out(4 * 32);
  bool right = true;
  for (const int width : {2, 4, 8, 16, 32}) {
    for (const int by : {0, 1, 2, 5, 13, 31}) {
      right &= ptx::shuffles(by, width, device_in.data(), out.data());
      synchronize();
      const Words got = out.download();
      for (int lane = 0; lane < 32; ++lane) {
        const int first = lane / width * width, end = first + width;
        right &= got[lane] == in[first + by % width];
        right &= got[32 + lane] == in[lane - by >= first ? lane - by : lane];
        right &= got[64 + lane] == in[lane + by < end ? lane + by : lane];
        right &= got[96 + lane] == in[(lane ^ by) < end ? lane ^ by : lane];
      }
    }
  }
  check("__shfl_*_sync of every width", right);
}

template <class T>
void Ptx::atomics(const char* name) {
  Integers<T> x(std::vector<T>{0, 0, 1000, 0, 0, 33});
  run(std::string("atomics on ") + name, ptx::atomics(x.data()), [&] {
    T chain = 0;
    for (int i = 0; i < 64; ++i) chain = T(uint64_t(chain) * 3 + 1);
    return x.download() == std::vector<T>{2016, 63, 3, chain, 33, 77};
  });
}

void Ptx::all_atomics() {
  atomics<int>("int");
  atomics<unsigned>("unsigned");
  atomics<uint64_t>("uint64_t");
}

void Ptx::bits() {
  Words a = random_words(500), b = random_words(500);
  a[0] = 0, a[1] = 1, a[2] = 0x80000000u;
  a[3] = 0x7fc00000u;  // NaN passes as bits
  const int count = int(a.size());
  Integers<uint32_t> device_a(a), device_b(b), out(int64_t(ptx::kBitFunctions) * count);
  run("bit functions", ptx::bits(device_a.data(), device_b.data(), count, out.data()), [&] {
    const Words got = out.download();
    bool right = true;
    for (int i = 0; i < count; ++i) {
      const uint32_t x = a[i], y = b[i];
      const uint64_t both = uint64_t(y) << 32 | x;
      uint32_t reversed = 0, bytes = 0, leading = 0, ones = 0, lowest = 0;
      for (int bit = 31; bit >= 0; --bit) {
        const uint32_t set = x >> bit & 1;
        reversed |= set << (31 - bit);
        ones += set;
        if (set) lowest = uint32_t(bit) + 1;
        if (ones == 0) ++leading;
      }
      for (int j = 0; j < 4; ++j) bytes |= uint32_t(both >> 8 * (y >> 4 * j & 7) & 0xff) << 8 * j;
      const uint32_t e[ptx::kBitFunctions] = {uint32_t(uint64_t(x) * y >> 32),
                                              reversed,
                                              bytes,
                                              uint32_t(both << y % 32 >> 32),
                                              uint32_t(both >> x % 32),
                                              leading,
                                              lowest,
                                              ones,
                                              x};
      for (int j = 0; j < ptx::kBitFunctions; ++j) right &= got[j * count + i] == e[j];
    }
    return right;
  });
}

}  // namespace seq2seq_ext::kernel_bench
