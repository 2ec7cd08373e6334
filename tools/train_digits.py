"""Train and quantize the network of the ``digits`` workload, and write its data files.

    pip install deepseek-card[train]        # scikit-learn and torch (CPU)
    python tools/train_digits.py            # writes host/workloads/data/*.npz and SHA256SUMS

The data are scikit-learn's scanned digits (1,797 images of 8 x 8 pixels, values 0 to 16), split
80/20, stratified, with a fixed seed. The recipe (number of epochs, augmentation, smoothing) was
chosen by cross-validation inside the training images; ``--cross-validate`` repeats that. The test
images decide nothing: they are only counted at the end.

On one machine with the same library versions the script writes the same bytes each time. Another
processor or version of torch may round a float sum differently and give other weights of the same
quality.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, train_test_split
from torch import nn
from torch.nn import functional

DATA = Path(__file__).resolve().parent.parent / "host" / "workloads" / "data"
TEST_IMAGES = 360
SPLIT_SEED = 0
TRAIN_SEED = 0
EPOCHS = 150
BATCH = 64
LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-3
SMOOTHING = 0.1
ROTATION, SHIFT, ZOOM = 0.15, 0.1, 0.1
"""Augmentation: radians, fractions of half the image, and log of the scale, each uniform in +-."""

PIXEL_MAX = 16.0
LAYERS = ("conv1", "conv2", "fc")


class DigitsNet(nn.Module):
    """conv 3x3 (16) - ReLU - pool 2 - conv 3x3 (32) - ReLU - pool 2 - fully connected (10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.fc = nn.Linear(128, 10)

    def activations(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the tensors that are quantized, by name; ``x`` is [N, 1, 8, 8] from 0 to 16."""
        conv1 = functional.relu(self.conv1(x / PIXEL_MAX))
        conv2 = functional.relu(self.conv2(functional.max_pool2d(conv1, 2)))
        fc = self.fc(functional.max_pool2d(conv2, 2).flatten(1))
        return {"input": x, "conv1": conv1, "conv2": conv2, "fc": fc}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activations(x)["fc"]


def augment(x: torch.Tensor) -> torch.Tensor:
    """Return the images turned, moved and scaled a little, each in its own way."""
    n = len(x)
    angle = (torch.rand(n) * 2 - 1) * ROTATION
    scale = torch.exp((torch.rand(n) * 2 - 1) * ZOOM)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = torch.cos(angle) * scale
    theta[:, 1, 0] = torch.sin(angle) * scale
    theta[:, 0, 1] = -theta[:, 1, 0]
    theta[:, :, 2] = (torch.rand(n, 2) * 2 - 1) * SHIFT
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


def train(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> DigitsNet:
    """Return a network trained on ``images`` [N, 8, 8]."""
    torch.manual_seed(TRAIN_SEED)
    model = DigitsNet()
    x, target = torch.from_numpy(images).float()[:, None], torch.from_numpy(labels).long()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        for index in torch.randperm(len(x)).split(BATCH):
            logits = model(augment(x[index]))
            loss = functional.cross_entropy(logits, target[index], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if (epoch + 1) % 50 == 0:
            print(f"  epoch {epoch + 1} of {EPOCHS}: loss {loss.item():.4f}", flush=True)
    return model


def accuracy(model: DigitsNet, images: npt.NDArray, labels: npt.NDArray) -> float:
    """Return the fraction of images that the float network gets right."""
    with torch.no_grad():
        logits = model(torch.from_numpy(images).float()[:, None])
    return float((logits.argmax(1).numpy() == labels).mean())


def asymmetric(low: float, high: float) -> tuple[np.float32, int]:
    """Return scale and zero point that map [low, high], widened to hold 0, to -128 to 127."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / 255)
    return scale, int(np.clip(np.rint(-128 - low / float(scale)), -128, 127))


def quantize(model: DigitsNet, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray]:
    """Return float and INT8 parameters; the ranges of activations are those on ``images``.

    Weights lie as the card takes them: [O, KH, KW, C] and, for the last layer, [O, H, W, C].
    The integer bias holds the correction for the input's zero point.
    """
    with torch.no_grad():
        acts = model.activations(torch.from_numpy(images).float()[:, None])
    ranges = {k: asymmetric(v.min().item(), v.max().item()) for k, v in acts.items()}
    # Pixels run from 0 to 16 whatever the images hold.
    ranges["input"] = asymmetric(0.0, PIXEL_MAX)
    arrays: dict[str, npt.NDArray] = {}
    for name, (scale, zero_point) in ranges.items():
        arrays[f"{name}_scale"] = np.float32(scale)
        arrays[f"{name}_zero_point"] = np.int32(zero_point)
    source = "input"
    for name in LAYERS:
        layer = getattr(model, name)
        weight = layer.weight.detach().numpy()
        if name == "fc":
            weight = weight.reshape(10, 32, 2, 2)
        weight = np.ascontiguousarray(weight.transpose(0, 2, 3, 1))
        if name == "conv1":
            weight = weight / np.float32(PIXEL_MAX)  # the card sees pixels from 0 to 16
        bias = layer.bias.detach().numpy()
        w_scale = np.abs(weight).reshape(len(weight), -1).max(1).astype(np.float64) / 127
        w_int = np.rint(weight / w_scale[:, None, None, None]).astype(np.int8)
        x_scale, x_zero = float(ranges[source][0]), ranges[source][1]
        folded = np.rint(bias / (x_scale * w_scale))
        folded -= x_zero * w_int.reshape(len(w_int), -1).sum(1, dtype=np.int64)
        arrays[f"{name}_weight_float"] = weight
        arrays[f"{name}_bias_float"] = bias
        arrays[f"{name}_weight"] = w_int
        arrays[f"{name}_bias"] = folded.astype(np.int32)
        arrays[f"{name}_requant"] = (x_scale * w_scale / float(ranges[name][0])).astype(np.float32)
        source = name
    return arrays


def write(folder: Path, files: dict[str, dict[str, npt.NDArray]]) -> None:
    """Write the arrays, uncompressed so that the bytes do not depend on zlib, and SHA256SUMS."""
    folder.mkdir(parents=True, exist_ok=True)
    sums = []
    for name, arrays in files.items():
        np.savez(folder / name, **arrays)
        content = (folder / name).read_bytes()
        sums.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
        print(f"{folder / name}: {len(content)} bytes")
    (folder / "SHA256SUMS").write_text("".join(sums))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=DATA, help="folder of the data files")
    parser.add_argument("--cross-validate", action="store_true", help="judge the recipe, and stop")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    indices = np.arange(len(labels))
    chosen, test = train_test_split(
        indices, test_size=TEST_IMAGES, stratify=labels, random_state=SPLIT_SEED
    )
    if args.cross_validate:
        folds = StratifiedKFold(4, shuffle=True, random_state=SPLIT_SEED)
        results = []
        for inside, outside in folds.split(chosen, labels[chosen]):
            model = train(images[chosen[inside]], labels[chosen[inside]])
            results.append(accuracy(model, images[chosen[outside]], labels[chosen[outside]]))
        print(f"four folds of the training images: {np.mean(results):.2%} ({results})")
        return 0

    print(f"training on {len(chosen)} images")
    model = train(images[chosen], labels[chosen]).eval()
    for kind, index in (("training", chosen), ("test", test)):
        correct = accuracy(model, images[index], labels[index])
        print(f"float accuracy on {len(index)} {kind} images: {correct:.2%}")
    weights = quantize(model, images[chosen])
    test_arrays = {
        "images": images[test],
        "labels": labels[test],
        "indices": test.astype(np.uint16),
    }
    write(args.output, {"digits_weights.npz": weights, "digits_test.npz": test_arrays})
    return 0


if __name__ == "__main__":
    sys.exit(main())
