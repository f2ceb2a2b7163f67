# SPDX-License-Identifier: MIT
# The CUDA kernels compiled by the host's C++ compiler and run by host_execution/: kernel_bench-host.
# Needs CUDA's headers (the wheel nvidia-cuda-runtime brings them), neither nvcc nor a CUDA library.
if(NOT CUDA_INCLUDE_DIR)
  set(cuda_header_hints $ENV{CUDA_HOME}/include /usr/local/cuda/include)
  if(Python_EXECUTABLE)
    execute_process(
      COMMAND ${Python_EXECUTABLE} -c "import sysconfig; print(sysconfig.get_path('purelib'))"
      OUTPUT_VARIABLE site_packages OUTPUT_STRIP_TRAILING_WHITESPACE)
    list(PREPEND cuda_header_hints ${site_packages}/nvidia/cu13/include)
  endif()
  find_path(CUDA_INCLUDE_DIR cuda_bf16.h HINTS ${cuda_header_hints} NO_DEFAULT_PATH REQUIRED)
endif()

# What every target that sees a kernel needs.
add_library(host_execution_options INTERFACE)
target_include_directories(host_execution_options INTERFACE csrc csrc/kernels)
target_include_directories(host_execution_options SYSTEM INTERFACE ${CUDA_INCLUDE_DIR})
target_compile_definitions(host_execution_options INTERFACE SEQ2SEQ_EXT_HOST_EXECUTION)
target_compile_options(host_execution_options INTERFACE
  -g1 -fno-strict-aliasing -Wno-unused-parameter -Wno-unknown-pragmas -Wno-parentheses)

seq2seq_ext_sources(host_execution_sources host_execution)
add_library(host_execution STATIC ${host_execution_sources})
target_link_libraries(host_execution PUBLIC host_execution_options)
if(SEQ2SEQ_EXT_SANITIZE STREQUAL "thread")
  # The scheduler tells ThreadSanitizer what is a thread; it is not itself watched.
  target_compile_options(host_execution PRIVATE -fno-sanitize=thread)
  target_compile_definitions(host_execution PRIVATE HX_WITH_TSAN)
endif()

seq2seq_ext_sources(cuda_sources kernels/cuda)
set_source_files_properties(${cuda_sources} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++")
add_library(seq2seq_ext_cuda_host STATIC ${cuda_sources})
target_link_libraries(seq2seq_ext_cuda_host PUBLIC host_execution)

seq2seq_ext_sources(bench_sources kernel_bench)
set(bench_cuda_sources ${bench_sources})
list(FILTER bench_cuda_sources INCLUDE REGEX "[.]cu$")
set_source_files_properties(${bench_cuda_sources} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++")
add_executable(kernel_bench-host ${bench_sources} csrc/kernel_bench/device_host.cpp)
target_include_directories(kernel_bench-host PRIVATE csrc/kernel_bench)
target_link_libraries(kernel_bench-host PRIVATE seq2seq_ext_cuda_host seq2seq_ext_kernels)
