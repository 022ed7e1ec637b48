"""How tests compile: most of their time is compilation, so it is done without optimization, in every process."""

FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
