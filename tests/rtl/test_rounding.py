from deepseek.rtl.numerics.rounding import SumToFp32
from deepseek.sim.runner import run_bench


def test_rounding():
    run_bench(SumToFp32(), "deepseek.sim.benches.rounding")
