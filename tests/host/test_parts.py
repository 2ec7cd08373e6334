"""What the compilers refuse for cards whose vector unit is without some of its parts."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest

from deepseek.host.compiler.attention import AttentionScales, AttentionShape, plan_attention
from deepseek.host.compiler.convolution import plan_conv
from deepseek.host.compiler.mx import quantize_mx
from deepseek.host.compiler.sources import Columns, Mx, Quantized, Rows, Sparse
from deepseek.host.compiler.staged import ColumnScales, plan_staged
from deepseek.rtl.config import preset
from deepseek.rtl.isa import Format

POOL = dataclasses.replace(preset("tiny"), vector_parts=("pool",))
REFORMAT = dataclasses.replace(preset("tiny"), vector_parts=("pool", "reformat"))
NUMBERS = np.ones((16, 32), np.float16)


def refusal(what, part):
    return pytest.raises(ValueError, match=rf"{what} needs '{part}' in the card's vector unit")


@pytest.mark.parametrize(
    "source, part",
    [
        (Columns(np.ascontiguousarray(NUMBERS.T)), "reformat"),
        (Sparse(NUMBERS), "reformat"),
        (Mx(quantize_mx(NUMBERS.astype(np.float32), Format.E4M3)), "reformat"),
        (Quantized(NUMBERS, Format.INT8), "rows"),
    ],
)
def test_operands_that_need_a_part(source, part):
    def plan(config):
        return plan_staged(config, source, Rows(b), out_format=Format.FP32)

    b = np.ones((16, 32), np.int8) if part == "rows" else NUMBERS
    b = b.astype(ml_dtypes.bfloat16) if isinstance(source, Mx) else b
    kind = rf"a \({type(source).__name__}\)"
    with refusal(kind, part):
        plan(POOL)
    plan(dataclasses.replace(POOL, vector_parts=("pool", part)))


def test_columns_of_scales_need_rows():
    columns = ColumnScales(np.zeros(16, np.float32), np.ones(16, np.float32))
    sources = Rows(NUMBERS), Rows(NUMBERS)
    plan_staged(POOL, *sources, out_format=Format.FP16)
    with refusal("columns", "rows"):
        plan_staged(REFORMAT, *sources, out_format=Format.FP16, columns=columns)


def test_attention_needs_both():
    shape = AttentionShape(heads=1, seq=16, dim=16, format=Format.FP16)
    for config, part in ((POOL, "rows"), (REFORMAT, "rows")):
        with refusal("attention", part):
            plan_attention(config, shape, AttentionScales(score=0.25))
    rows = dataclasses.replace(preset("tiny"), vector_parts=("pool", "rows"))
    with refusal("attention", "reformat"):
        plan_attention(rows, shape, AttentionScales(score=0.25))
    plan_attention(preset("tiny"), shape, AttentionScales(score=0.25))


def test_convolutions_are_planned_without_rows():
    weights = np.ones((16, 1, 1, 64), np.int8)
    options = {"in_format": Format.INT8, "scale": 2.0**-8}
    assert plan_conv(preset("tiny"), weights, (4, 4, 64), kind="swapped", **options)
    assert plan_conv(POOL, weights, (4, 4, 64), **options).kind != "swapped"
    with refusal("kind 'swapped'", "rows"):
        plan_conv(POOL, weights, (4, 4, 64), kind="swapped", **options)
