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

# cmake --build build/gpu --target sass: the machine code of all kernels, in kernel_bench.sass.
# cmake --build build/gpu --target ncu:  a profile of one, kernel_bench.ncu-rep; which one and at
# what sizes, -DSEQ2SEQ_EXT_PROFILE="KERNEL name=value ..." says. Clocks are left as they are.
set(SEQ2SEQ_EXT_PROFILE "vocab_pick B=32 H=1024 V=32000 dtype=bfloat16" CACHE STRING "What the target ncu profiles")
separate_arguments(profiled UNIX_COMMAND "${SEQ2SEQ_EXT_PROFILE}")
get_filename_component(cuda_bin ${CMAKE_CUDA_COMPILER} DIRECTORY)
find_program(SEQ2SEQ_EXT_CUOBJDUMP cuobjdump HINTS ${cuda_bin})
find_program(SEQ2SEQ_EXT_NCU ncu HINTS ${cuda_bin})
if(SEQ2SEQ_EXT_CUOBJDUMP)
  add_custom_target(sass ${SEQ2SEQ_EXT_CUOBJDUMP} --dump-sass $<TARGET_FILE:kernel_bench> > kernel_bench.sass VERBATIM)
  add_dependencies(sass kernel_bench)
endif()
if(SEQ2SEQ_EXT_NCU)
  add_custom_target(
    ncu ${SEQ2SEQ_EXT_NCU} --set full --clock-control none --force-overwrite --export kernel_bench
    $<TARGET_FILE:kernel_bench> ${profiled} time=0
    USES_TERMINAL VERBATIM)
  add_dependencies(ncu kernel_bench)
endif()
