# SPDX-License-Identifier: MIT
# The CUDA kernels compiled by nvcc: kernel_bench, for a machine with a GPU.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES native)
endif()
enable_language(CUDA)

seq2seq_ext_sources(cuda_sources kernels/cuda)
add_library(seq2seq_ext_cuda STATIC ${cuda_sources})
target_include_directories(seq2seq_ext_cuda PUBLIC csrc/kernels)
target_compile_options(seq2seq_ext_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo>)
set_target_properties(seq2seq_ext_cuda PROPERTIES CUDA_STANDARD 17)

seq2seq_ext_sources(bench_sources kernel_bench)
add_executable(kernel_bench ${bench_sources} csrc/kernel_bench/device_cuda.cu)
target_include_directories(kernel_bench PRIVATE csrc/kernel_bench)
target_link_libraries(kernel_bench PRIVATE seq2seq_ext_cuda seq2seq_ext_kernels)
