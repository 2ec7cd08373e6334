"""The register between two streams."""

from deepseek.rtl.elastic import Elastic
from deepseek.sim.runner import run_bench


def test_elastic():
    run_bench(Elastic(23), "deepseek.sim.benches.elastic")
