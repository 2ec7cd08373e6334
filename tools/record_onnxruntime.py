"""Writes down what onnxruntime makes of random INT8 tensors, for ``tests/golden/test_vector.py``.

Needs what the tests do not: ``pip install onnx onnxruntime``. Run it from the repository's root
with the path of the file to write: ``tests/golden/onnxruntime.npz``.

onnxruntime adds two tensors with the zero points folded into one constant. It and the card may then
round a sum to two numbers where it lies within FP32's error of the middle between them: about one
in 10^5. Draws with such a sum, of which there are few, are left out.
"""

import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

CASES, HEIGHT, WIDTH, CHANNELS = 16, 7, 9, 8
NUMBERS = HEIGHT * WIDTH * CHANNELS


def run(operator, inputs, shape, **attributes):
    """Return the result of an operator of com.microsoft on arrays; those of INT8 are its inputs."""
    names = [f"input{i}" for i in range(len(inputs))]
    tensors = {name: x for name, x in zip(names, inputs, strict=True) if x.ndim}
    node = helper.make_node(operator, names, ["out"], domain="com.microsoft", **attributes)
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info(n, TensorProto.INT8, x.shape) for n, x in tensors.items()],
        [helper.make_tensor_value_info("out", TensorProto.INT8, shape)],
        [numpy_helper.from_array(x, n) for n, x in zip(names, inputs, strict=True) if not x.ndim],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, tensors)[0]


def case(r):
    """Draw two tensors with their scales and zero points; return them with the results."""
    x, y = (np.float32(scale) for scale in np.exp(r.uniform(-5, -2, 2)))
    out = np.float32(r.uniform(0.5, 3) * max(x, y))
    zeros = r.integers(-30, 30, 3).astype(np.int8)
    a, b = r.integers(-128, 128, (2, NUMBERS), dtype=np.int8)
    zero = [np.array(z) for z in zeros]
    pair = [a, np.array(x), zero[0], b, np.array(y), zero[1]]
    exact = ((a - 1.0 * zeros[0]) * float(x) + (b - 1.0 * zeros[1]) * float(y)) / float(out)
    image = a.reshape(1, HEIGHT, WIDTH, CHANNELS)
    return {
        "a": a,
        "b": b,
        "scales": np.array([x, y, out]),
        "zeros": zeros,
        "tie": np.abs(exact - np.floor(exact) - 0.5).min() < 1e-4,
        "add": run("QLinearAdd", [*pair, np.array(out), zero[2]], a.shape),
        "multiply": run("QLinearMul", [*pair, np.array(out), zero[2]], a.shape),
        "average": run(
            "QLinearGlobalAveragePool",
            [image, np.array(x), zero[0], np.array(out), zero[2]],
            (1, 1, 1, CHANNELS),
            channels_last=1,
        ).reshape(-1),
    }


def main(path):
    """Draw cases until there are enough, and write them."""
    r = np.random.default_rng(1)
    cases = []
    while len(cases) < CASES:
        drawn = case(r)
        if not drawn.pop("tie"):
            cases.append(drawn)
    np.savez_compressed(path, **{name: np.stack([c[name] for c in cases]) for name in cases[0]})
    print(f"onnxruntime {onnxruntime.__version__}: {len(cases)} cases in {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
