# SPDX-License-Identifier: MIT
# The CUDA kernels compiled by the host's C++ compiler and run by host_execution/. Targets:
#   kernel_bench-host      every kernel against the CPU's
#   host_execution_test    (on demand) the layer itself
#   kernel_bench-preempt, host_execution_test-preempt   (on demand) threads switch at memory accesses, too
# Needs CUDA's headers (the wheels of requirements-test.txt bring them), neither nvcc nor a CUDA library.
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
  -fno-strict-aliasing -Wno-unused-parameter -Wno-unknown-pragmas -Wno-parentheses
  # Lines of the kernels for reports; all of the layer for gdb/host_execution.py.
  $<IF:$<OR:$<CONFIG:Debug>,$<STREQUAL:$<TARGET_PROPERTY:NAME>,host_execution>>,-g,-g1>)

function(seq2seq_ext_cuda_as_cpp sources)
  list(FILTER sources INCLUDE REGEX "[.]cu$")
  set_source_files_properties(${sources} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++")
endfunction()

seq2seq_ext_sources(layer_sources host_execution)
set(layer_test_sources ${layer_sources})
list(FILTER layer_test_sources INCLUDE REGEX "/host_execution/tests/")
list(FILTER layer_sources EXCLUDE REGEX "/host_execution/tests/|/preempt[.]cpp$")
seq2seq_ext_sources(cuda_sources kernels/cuda)
seq2seq_ext_sources(bench_sources kernel_bench)
list(APPEND bench_sources ${PROJECT_SOURCE_DIR}/csrc/kernel_bench/device_host.cpp)
seq2seq_ext_cuda_as_cpp("${cuda_sources};${bench_sources};${layer_test_sources}")

add_library(host_execution STATIC ${layer_sources})
target_link_libraries(host_execution PUBLIC host_execution_options)
if(SEQ2SEQ_EXT_SANITIZE STREQUAL "thread")
  # The scheduler tells ThreadSanitizer what is a thread; it is not itself watched.
  target_compile_options(host_execution PRIVATE -fno-sanitize=thread)
  target_compile_definitions(host_execution PRIVATE HX_WITH_TSAN)
  set(bench_host_sources ${bench_sources})
  list(FILTER bench_host_sources INCLUDE REGEX "[.]cpp$")
  set_source_files_properties(${bench_host_sources} PROPERTIES COMPILE_OPTIONS -fno-sanitize=thread)
endif()

add_library(seq2seq_ext_cuda_host STATIC ${cuda_sources})
target_link_libraries(seq2seq_ext_cuda_host PUBLIC host_execution)

add_executable(kernel_bench-host ${bench_sources})
target_include_directories(kernel_bench-host PRIVATE csrc/kernel_bench)
target_link_libraries(kernel_bench-host PRIVATE seq2seq_ext_cuda_host cpu_kernels)

add_executable(host_execution_test EXCLUDE_FROM_ALL ${layer_test_sources})
target_link_libraries(host_execution_test PRIVATE host_execution)

# Compiled with the calls that -fsanitize=thread makes at each memory access, linked with preempt.cpp for its library.
if(NOT SEQ2SEQ_EXT_SANITIZE)
  add_library(host_execution_preempt STATIC EXCLUDE_FROM_ALL csrc/host_execution/preempt.cpp)
  target_link_libraries(host_execution_preempt PUBLIC host_execution)
  add_library(seq2seq_ext_cuda_preempt STATIC EXCLUDE_FROM_ALL ${cuda_sources})
  target_compile_options(seq2seq_ext_cuda_preempt PRIVATE -fsanitize=thread)
  target_link_libraries(seq2seq_ext_cuda_preempt PUBLIC host_execution_preempt)

  add_executable(kernel_bench-preempt EXCLUDE_FROM_ALL ${bench_sources})
  target_include_directories(kernel_bench-preempt PRIVATE csrc/kernel_bench)
  target_link_libraries(kernel_bench-preempt PRIVATE seq2seq_ext_cuda_preempt cpu_kernels)

  add_executable(host_execution_test-preempt EXCLUDE_FROM_ALL ${layer_test_sources})
  target_compile_options(host_execution_test-preempt PRIVATE -fsanitize=thread)
  target_link_libraries(host_execution_test-preempt PRIVATE host_execution_preempt)
endif()
