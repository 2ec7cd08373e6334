"""Writes down what onnxruntime makes of random INT8 convolutions, for ``tests/host``.

Needs what the tests do not: ``pip install onnx onnxruntime``. Run it from the repository's root
with the path of the file to write: ``tests/host/onnxruntime_conv.npz``.

Images and weights are stored as the card takes them: [H, W, C] and [filters, KH, KW, C / groups].
"""

import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

CASES = (
    # height, width, channels, filters, kernel, stride, dilation, padding: rows, columns; groups
    (7, 7, 64, 32, (1, 1), (1, 1), (1, 1), (0, 0), (0, 0), 1),
    (9, 10, 16, 16, (3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 1),
    (11, 8, 32, 48, (3, 2), (2, 1), (1, 2), (2, 0), (1, 1), 1),
    (13, 9, 16, 32, (2, 4), (1, 3), (3, 1), (0, 3), (2, 0), 1),
    (14, 14, 32, 64, (1, 1), (2, 2), (1, 1), (0, 0), (0, 0), 1),
    (16, 15, 3, 8, (7, 7), (2, 2), (1, 1), (3, 3), (3, 3), 1),
    (8, 9, 12, 18, (3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 3),
    (10, 9, 32, 32, (3, 3), (2, 2), (1, 1), (1, 1), (1, 1), 2),
    (9, 11, 32, 32, (3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 32),
    (12, 8, 16, 16, (3, 3), (2, 2), (1, 1), (0, 1), (0, 1), 16),
    (8, 8, 8, 16, (5, 3), (1, 1), (1, 2), (2, 2), (2, 2), 8),
    (1, 1, 256, 40, (1, 1), (1, 1), (1, 1), (0, 0), (0, 0), 1),
)


def run(x, weights, bias, scales, zeros, shape):
    """Return the result [filters, H, W] of QLinearConv on an image [C, H, W]."""
    *_, stride, dilation, rows, columns, groups = shape
    constants = {
        "x_scale": scales["x"],
        "x_zero": np.array(zeros[0]),
        "w": weights,
        "w_scale": scales["w"],
        "w_zero": np.zeros(len(weights), np.int8),
        "y_scale": scales["y"],
        "y_zero": np.array(zeros[1]),
        "bias": bias,
    }
    node = helper.make_node(
        "QLinearConv",
        ["x", *constants],
        ["out"],
        strides=stride,
        dilations=dilation,
        group=groups,
        pads=(rows[0], columns[0], rows[1], columns[1]),
    )
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.INT8, (1, *x.shape))],
        [helper.make_tensor_value_info("out", TensorProto.INT8, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x[np.newaxis]})[0][0]


def case(r, shape):
    """Draw the operands of a shape; return them with the result."""
    height, width, channels, filters, kernel, stride, dilation, rows, columns, groups = shape
    k = kernel[0] * kernel[1] * channels // groups
    x = r.integers(-128, 128, (channels, height, width), dtype=np.int8)
    # Without the VNNI instructions onnxruntime saturates sums of two products of larger weights.
    weights = r.integers(-64, 64, (filters, channels // groups, *kernel), dtype=np.int8)
    zeros = r.integers(-60, 60, 2).astype(np.int8)
    bias = (r.normal(size=filters) * 3000 * np.sqrt(k)).astype(np.int32)
    scales = {
        "x": np.float32(r.uniform(0.01, 0.05)),
        "w": r.uniform(0.001, 0.01, filters).astype(np.float32),
    }
    spread = 74 * 37 * np.sqrt(k) * float(scales["x"]) * 0.005
    scales["y"] = np.float32(spread * r.uniform(0.02, 0.04))
    return {
        "x": x.transpose(1, 2, 0),
        "w": weights.transpose(0, 2, 3, 1),
        "bias": bias,
        "scale": scales["x"] * scales["w"] / scales["y"],
        "zeros": zeros,
        "y": run(x, weights, bias, scales, zeros, shape).transpose(1, 2, 0),
        "stride": np.array(stride),
        "dilation": np.array(dilation),
        "padding": np.array((rows, columns)),
        "groups": np.array(groups),
    }


def main(path):
    """Draw all cases and write them."""
    r = np.random.default_rng(2)
    arrays = {}
    for number, shape in enumerate(CASES):
        drawn = case(r, shape)
        print(shape, len(np.unique(drawn["y"])), "different results")
        arrays |= {f"{number}_{name}": value for name, value in drawn.items()}
    np.savez_compressed(path, **arrays)
    print(f"onnxruntime {onnxruntime.__version__}: {len(CASES)} cases in {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
