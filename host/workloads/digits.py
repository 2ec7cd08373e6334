"""The ``digits`` workload: a convolutional network reads scanned digits, in INT8.

conv 3x3 (16) - ReLU - pool 2 - conv 3x3 (32) - ReLU - pool 2 - fully connected (10), on 8 x 8
pixels. ``tools/train_digits.py`` made its data; ``data/README.md`` says where they are from.
"""

import dataclasses
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..card import Card
from ..compiler.network import Conv, MaxPool, Network
from ..transport import Progress
from .base import WorkloadResult
from .files import DATA, load_arrays
from .runner import NetworkRunner

__all__ = ["TEST_IMAGES", "Digits", "run"]

TEST_IMAGES = 360

_INT8_LANES = 2
_POOL = (2, 2)


@dataclasses.dataclass(frozen=True, eq=False)
class Digits:
    """Test images, their labels, and the network in float and in INT8.

    Parameters
    ----------
    images : uint8 array [N, 8, 8]
        Values 0 to 16.
    labels : uint8 array [N]
    weights : dict of arrays
        As ``tools/train_digits.py`` writes them.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    weights: dict[str, npt.NDArray]

    @classmethod
    def load(cls, *, folder: Path = DATA) -> "Digits":
        """Read the shipped files; raise `files.DataError` if one is missing or corrupt."""
        weights = load_arrays("digits_weights.npz", folder=folder)
        test = load_arrays("digits_test.npz", folder=folder)
        return cls(images=test["images"], labels=test["labels"], weights=weights)

    def network(self) -> Network:
        """Return the INT8 network."""
        return Network(
            shape=(8, 8, 1),
            zero_point=int(self.weights["input_zero_point"]),
            layers=(
                self._conv("conv1", padding=(1, 1), relu=True),
                MaxPool(name="pool1", kernel=_POOL, stride=_POOL),
                self._conv("conv2", padding=(1, 1), relu=True),
                MaxPool(name="pool2", kernel=_POOL, stride=_POOL),
                self._conv("fc", padding=(0, 0), relu=False),
            ),
        )

    def quantized(self) -> npt.NDArray[np.int8]:
        """Return the network's input: the images as INT8 [N, 8, 8, 1]."""
        scale, zero_point = self.weights["input_scale"], self.weights["input_zero_point"]
        levels = np.rint(self.images / np.float64(scale)) + zero_point
        return np.clip(levels, -128, 127).astype(np.int8)[..., np.newaxis]

    def float_predictions(self) -> npt.NDArray[np.int64]:
        """Return the digits that the float network reads."""
        x = self.images.astype(np.float64)[..., np.newaxis]
        for name, padding in (("conv1", 1), ("conv2", 1), ("fc", 0)):
            weight = self.weights[f"{name}_weight_float"].astype(np.float64)
            bias = self.weights[f"{name}_bias_float"]
            x = _windows(x, weight.shape[1], padding).reshape(*x.shape[:1], -1, weight[0].size)
            x = x @ weight.reshape(len(weight), -1).T + bias
            if name != "fc":
                side = int(x.shape[1] ** 0.5)
                x = np.maximum(x, 0).reshape(-1, side // 2, 2, side // 2, 2, x.shape[2])
                x = x.max(axis=(2, 4))
        return x[:, 0].argmax(axis=1)

    def predictions(self, output: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
        """Return the digits in the network's last tensor [N, 1, 1, 10]."""
        return output.reshape(len(output), -1).argmax(axis=1)

    def _conv(self, name: str, *, padding: tuple[int, int], relu: bool) -> Conv:
        return Conv(
            name=name,
            weight=self.weights[f"{name}_weight"],
            bias=self.weights[f"{name}_bias"],
            scale=self.weights[f"{name}_requant"],
            padding=padding,
            relu=relu,
            zero_point=int(self.weights[f"{name}_zero_point"]),
        )


def run(
    card: Card, limit: int | None = None, progress: Progress | None = None, *, folder: Path = DATA
) -> WorkloadResult:
    """Run the test images on a card (`base.Workload.run`).

    Raises
    ------
    ValueError
        If ``limit`` is below 1.
    files.DataError
        If a data file is missing or corrupt.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit!r}")
    start = time.perf_counter()
    digits = Digits.load(folder=folder)
    labels, images = digits.labels[:limit], digits.quantized()[:limit]
    network = digits.network()
    correct = identical = tensors = 0
    with NetworkRunner(card, network) as runner:
        for batch in runner.run(images):
            output = batch.tensors[-1]
            done = batch.first + len(output)
            correct += int((digits.predictions(output) == labels[batch.first : done]).sum())
            identical += batch.identical
            tensors += len(output) * len(network.layers)
            if progress is not None:
                progress("images", done / len(images))
        return WorkloadResult(
            name="digits",
            dtype="int8",
            images=len(images),
            batch=runner.program.batch,
            float_accuracy=float((digits.float_predictions() == digits.labels)[:limit].mean()),
            accuracy=correct / len(images),
            tensors=tensors,
            identical_tensors=identical,
            macs=network.macs * len(images),
            mac_units=card.config.rows * card.config.cols * _INT8_LANES,
            counters=runner.counters,
            card_seconds=runner.card_seconds,
            wall_seconds=time.perf_counter() - start,
        )


def _windows(x: npt.NDArray, kernel: int, padding: int) -> npt.NDArray:
    """Return the windows of x [N, H, W, C] as [N, OH, OW, kernel, kernel, C]."""
    pads = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    view = np.lib.stride_tricks.sliding_window_view(np.pad(x, pads), (kernel, kernel), axis=(1, 2))
    return np.ascontiguousarray(view.transpose(0, 1, 2, 4, 5, 3))
