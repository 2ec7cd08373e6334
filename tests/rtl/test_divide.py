"""FP32 reciprocals and square roots against NumPy, and powers of two against their definition."""

from deepseek.rtl.numerics.divide import Fp32Reciprocal
from deepseek.rtl.numerics.exp2 import Exp2
from deepseek.rtl.numerics.root import Fp32Root
from deepseek.sim.runner import run_bench


def test_reciprocal():
    run_bench(Fp32Reciprocal(), "deepseek.sim.benches.divide")


def test_root():
    run_bench(Fp32Root(), "deepseek.sim.benches.divide", env={"UNIT": "root"})


def test_exp2():
    run_bench(Exp2(), "deepseek.sim.benches.exp2")
