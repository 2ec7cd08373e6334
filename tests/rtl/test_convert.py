from deepseek.rtl.numerics.convert import NarrowFp32
from deepseek.sim.runner import run_bench


def test_convert():
    run_bench(NarrowFp32(), "deepseek.sim.benches.convert")
