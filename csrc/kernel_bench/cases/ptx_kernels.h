// SPDX-License-Identifier: MIT
// Kernels that do what one PTX wrapper (or a few intrinsics of CUDA) does, for the case "ptx".
// Pointers are device memory. True: launched.
#pragma once

#include <cstdint>

namespace seq2seq_ext::kernel_bench::ptx {

// ---- ptx_kernels.cu -----------------------------------------------------------------------------

// (5, 32): lane_id, lane masks lt, le, gt, ge
bool lanes(uint32_t* out);

enum class Mma { kBFloat16, kFloat16, kTf32 };
// Registers as lanes hold them: a (32, 4), b (32, 2), d (32, 4) which is added to.
bool mma(Mma kind, const uint32_t* a, const uint32_t* b, float* d);

// in: 4 matrices of (8, 8); out: (32, count) registers
bool ldmatrix(int count, bool transposed, const uint16_t* in, uint32_t* out);

// out[i] = to_tf32(in[i]); tanh_approx(in[i])
bool to_tf32(const float* in, uint32_t* out, int count);
bool tanh_approx(const float* in, float* out, int count);

// Copies of `bytes` (4, 8, 16), the i-th reading only i of them: out (bytes + 1, bytes).
bool cp_async(int bytes, const char* in, char* out);
// Three groups of 32 * 16 bytes: out[0] of all after wait<2> .. [2] after wait<0>, each its group.
bool cp_async_groups(const char* in, char* out);

// out (3, 32) of 16 bytes: by ld_cg16, ld_stream16, and through st_cg16 and back.
bool sixteen_bytes(const void* in, void* between, void* out);

// out[0] = alignment of pieces right, out[1] = of static arrays; max_active_blocks of the kernel
bool shared_memory(int* out, int* most_active);
// Launches that the runtime has to refuse: too much shared memory, too many cooperative blocks.
bool too_much_shared_is_refused(int* out);
bool too_many_blocks_are_refused(int* out);

// ---- ptx_sync_kernels.cu ------------------------------------------------------------------------

// Block 0 hands `rounds` messages of 4 KiB to each other block, through flags; out (blocks) counts
// the words that came wrong. data (blocks, 2, 1024), flags (blocks, 2), zero.
bool flags(int blocks, int rounds, uint32_t* data, unsigned* flags, unsigned* out);
// Blocks count down tickets; the one with the last adds up what all wrote: out[0]. tickets[0] zero.
bool tickets(int blocks, unsigned* tickets, unsigned* partial, unsigned* out);
// out (96): sums that warps 1 and 2 read of what warp 0 wrote, in `rounds` rounds by barriers of
// their own.
bool named_barriers(int rounds, int* out);
// sm_90. out = 2 * in (tiles, 256), through two stages.
bool bulk_pipeline(const float* in, int tiles, float* out);
// sm_90. out[t] after `phases` rotations of 0 .. 95 by one, by arrivals alone.
bool mbarrier_phases(int phases, int* out);

// ---- ptx_intrinsics.cu --------------------------------------------------------------------------

// out (15, 32), 0 where a lane is not in the mask: ballot, any, all, match_any, match_all; add,
// min, max, and, or, xor of in as unsigned; add, min, max as int; shfl from the first lane of the
// mask.
constexpr int kVotes = 15;
bool votes(uint32_t mask, const uint32_t* in, uint32_t* out);
// out (4, 32): shfl, up, down, xor by `by` within `width`.
bool shuffles(int by, int width, const uint32_t* in, uint32_t* out);
// x (6) int, unsigned or uint64_t, starting as the case says; 64 threads.
bool atomics(int* x);
bool atomics(unsigned* x);
bool atomics(uint64_t* x);
// out (9, count) of pairs (a, b): umulhi, brev, byte_perm, funnelshift l and r, clz, ffs, popc of
// a, and the float of bits a back to bits.
constexpr int kBitFunctions = 9;
bool bits(const uint32_t* a, const uint32_t* b, int count, uint32_t* out);

}  // namespace seq2seq_ext::kernel_bench::ptx
