// SPDX-License-Identifier: MIT
// How a cell's functions are declared, so that one text serves SIMD vectors, CUDA threads and plain
// scalars.
#pragma once

#if defined(__CUDACC__)
#define SEQ2SEQ_EXT_CELL static __host__ __device__ __forceinline__
#else
#define SEQ2SEQ_EXT_CELL static inline __attribute__((always_inline))
#endif
