"""The whole policy replayed on recorded answers: `tierwise-training benchmark`."""

from training.benchmark.run import run_benchmark
from training.benchmark.show import show_benchmark

__all__ = ["run_benchmark", "show_benchmark"]
