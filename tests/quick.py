"""How tests compile: most of their time is compilation, so it is done without optimization, in every process."""

# One LLVM module for each program, not one for each thread: to split them costs more than it saves on two cores.
FLAGS = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
