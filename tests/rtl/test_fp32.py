from deepseek.rtl.numerics.fp32 import Fp32Add, Fp32Multiply
from deepseek.sim.runner import run_bench

BENCH = "deepseek.sim.benches.fp32"


def test_multiply():
    run_bench(Fp32Multiply(), BENCH, testcase="multiply")


def test_add():
    run_bench(Fp32Add(), BENCH, testcase="add")
