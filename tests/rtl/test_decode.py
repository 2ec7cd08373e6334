"""Decoding of numbers of a tensor to FP32, against NumPy."""

from deepseek.rtl.numerics.decode import DecodeFp32
from deepseek.sim.runner import run_bench


def test_decode():
    run_bench(DecodeFp32(), "deepseek.sim.benches.decode")
