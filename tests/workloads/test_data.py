"""The shipped data files: what they hold, and what happens when one is damaged."""

import shutil

import numpy as np
import pytest

from deepseek.host.workloads import DataError
from deepseek.host.workloads.digits import TEST_IMAGES, Digits
from deepseek.host.workloads.files import DATA, load_arrays

NAMES = ["digits_test.npz", "digits_weights.npz"]


@pytest.fixture
def folder(tmp_path):
    for path in DATA.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path


def test_shipped_files_load():
    digits = Digits.load()
    assert digits.images.shape == (TEST_IMAGES, 8, 8)
    assert digits.images.dtype == np.uint8 and digits.images.max() == 16
    # A stratified fifth of the data set: each digit is a tenth of it, within two images.
    assert np.all(np.abs(np.bincount(digits.labels, minlength=10) - TEST_IMAGES // 10) <= 2)


def test_attribution_is_shipped():
    text = (DATA / "README.md").read_text()
    assert "CC BY 4.0" in text and "Alpaydin" in text and "scikit-learn" in text


@pytest.mark.parametrize("name", NAMES)
def test_one_flipped_bit_is_found(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        Digits.load(folder=folder)
    message = str(error.value)
    assert "corrupt" in message and name in message and "git checkout" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", [*NAMES, "SHA256SUMS"])
def test_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"cannot read data file .*{name} .*git checkout") as error:
        Digits.load(folder=folder)
    assert "\n" not in str(error.value)


def test_file_without_a_digest(folder):
    shutil.copy(folder / NAMES[0], folder / "other.npz")
    with pytest.raises(DataError, match="SHA256SUMS lists none"):
        load_arrays("other.npz", folder=folder)


def test_quantized_weights_belong_to_the_float_weights():
    weights = Digits.load().weights
    for name, source in (("conv1", "input"), ("conv2", "conv1"), ("fc", "conv2")):
        exact, quantized = weights[f"{name}_weight_float"], weights[f"{name}_weight"]
        scale = np.abs(exact).reshape(len(exact), -1).max(axis=1) / 127
        assert np.abs(exact / scale[:, None, None, None] - quantized).max() <= 0.5001
        assert np.all(np.abs(quantized).reshape(len(quantized), -1).max(axis=1) == 127)
        x_scale, x_zero = weights[f"{source}_scale"], int(weights[f"{source}_zero_point"])
        requant = x_scale * scale / weights[f"{name}_scale"]
        np.testing.assert_allclose(weights[f"{name}_requant"], requant, rtol=1e-6)
        bias = weights[f"{name}_bias"] + x_zero * quantized.reshape(len(quantized), -1).sum(
            axis=1, dtype=np.int64
        )
        assert np.abs(bias - weights[f"{name}_bias_float"] / (x_scale * scale)).max() <= 0.51
