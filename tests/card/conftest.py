"""What the tests of whole cards share."""

import os

import numpy as np
import pytest

DEFAULT_SEED = 1


def pytest_addoption(parser):
    parser.addoption(
        "--nightly", action="store_true", help="also the other cards, and ten times as many jobs"
    )


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        nightly = metafunc.config.getoption("--nightly", default=False)
        names = ["tiny", "wide", "ecp5", "sim"] if nightly else ["tiny"]
        metafunc.parametrize("name", names, scope="module")


@pytest.fixture
def times(request):
    """How many times as many jobs as usual."""
    return 10 if request.config.getoption("--nightly", default=False) else 1


@pytest.fixture
def rng(request):
    """Generator from ``$SEED`` and the test's name; prints how to repeat the test."""
    seed = int(os.environ.get("SEED", DEFAULT_SEED))
    print(f"repeat with: SEED={seed} pytest '{request.node.nodeid}'")
    return np.random.default_rng([seed, *request.node.name.encode()])
