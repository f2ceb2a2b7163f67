# SPDX-License-Identifier: MIT
# cuda_host_ops: the ops of seq2seq_ext on the CUDA kernels under host execution, for CPU tensors. A library of tests: it has
# the very bindings of _C_cuda but for host_runtime.cpp, and registers torch.ops.seq2seq_ext_cuda_host.
execute_process(
  COMMAND ${Python_EXECUTABLE} -c "from torch.utils.cpp_extension import include_paths, library_paths
print(';'.join(include_paths()), ';'.join(library_paths()), sep='|')"
  OUTPUT_VARIABLE torch_paths OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
string(REPLACE "|" ";|;" torch_paths "${torch_paths}")
list(FIND torch_paths "|" bar)
list(SUBLIST torch_paths 0 ${bar} torch_include_dirs)
math(EXPR bar "${bar} + 1")
list(SUBLIST torch_paths ${bar} -1 torch_library_dirs)

seq2seq_ext_sources(binding_sources bindings)
list(FILTER binding_sources EXCLUDE REGEX "/(cpu_[a-z_]*|cuda_runtime)[.]cpp$")
add_library(cuda_host_ops MODULE ${binding_sources} csrc/kernel_bench/device_host.cpp)
set_target_properties(cuda_host_ops PROPERTIES CXX_STANDARD 20 PREFIX "")
target_include_directories(cuda_host_ops PRIVATE csrc/kernel_bench)
target_include_directories(cuda_host_ops SYSTEM PRIVATE ${torch_include_dirs})
target_compile_definitions(cuda_host_ops PRIVATE TORCH_TARGET_VERSION=0x020a000000000000
  SEQ2SEQ_EXT_NAMESPACE=seq2seq_ext_cuda_host SEQ2SEQ_EXT_DISPATCH_KEY=CPU SEQ2SEQ_EXT_POISON)
target_link_directories(cuda_host_ops PRIVATE ${torch_library_dirs})
target_link_libraries(cuda_host_ops PRIVATE seq2seq_ext_cuda_host torch_cpu c10)
