"""Products whose operands the vector unit makes ready: on the functional card, and on paper."""

import dataclasses
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from deepseek.host.card import Card
from deepseek.host.compiler.mx import MX_FORMATS, quantize_mx
from deepseek.host.compiler.sources import Columns, Mx, Quantized, Rows, Sparse
from deepseek.host.compiler.staged import ColumnScales, plan_staged
from deepseek.host.compiler.window import window_anchor
from deepseek.rtl.config import preset
from deepseek.rtl.isa import Encoding, Flag, Format, Opcode
from deepseek.sim.golden.slow import round_to

SHAPES = [(20, 17, 33), (70, 50, 96), (4, 130, 400), (1, 1, 1)]


@pytest.fixture(scope="module", params=["tiny", "sim"])
def card(request):
    with Card.open("functional", preset=request.param) as card:
        yield card


def random(shape, dtype, seed=0):
    rng = np.random.default_rng([seed, *shape])
    if np.dtype(dtype) == np.int8:
        return rng.integers(-128, 128, shape, np.int8)
    return rng.standard_normal(shape, np.float32).astype(dtype)


def run(card, plan):
    """Return C and the job's result."""
    images = plan.image_a(), plan.image_b(), np.full(plan.c_bytes, 0xA5, np.uint8)
    buffers = [card.allocate(image.size) for image in images]
    for buffer, image in zip(buffers, images, strict=True):
        card.write(buffer, image)
    result = card.submit(plan.commands(*(buffer.address for buffer in buffers))).wait()
    c = plan.unpack_c(card.read(buffers[2]))
    for buffer in buffers:
        card.free(buffer)
    assert plan.scratchpad_bytes <= card.config.scratchpad_bytes
    return c, result


def plan(card, a, b, **options):
    return plan_staged(card.config, a, b, memory=card.memory_speed, **options)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side_a", [Rows, Columns])
@pytest.mark.parametrize("side_b", [Rows, Columns])
def test_operands_as_they_lie_in_memory(card, shape, side_a, side_b):
    m, n, k = shape
    a, b = random((m, k), np.int8, 1), random((n, k), np.int8, 2)
    sources = [
        side(array if side is Rows else np.ascontiguousarray(array.T))
        for side, array in ((side_a, a), (side_b, b))
    ]
    c, _ = run(card, plan(card, *sources, out_format=Format.INT32))
    np.testing.assert_array_equal(c, a.astype(np.int32) @ b.astype(np.int32).T)


@pytest.mark.parametrize("side", [Rows, Columns])
def test_long_sums_are_cut_into_slices(card, side):
    """K is longer than the operand memory of the array."""
    a, b = random((4, 1200), np.float16, 1), random((5, 1200), ml_dtypes.float8_e5m2, 2)
    source = Rows(b) if side is Rows else Columns(np.ascontiguousarray(b.T))
    made = plan(card, Rows(a), source, out_format=Format.FP32)
    assert made.problem.slices == 2
    c, _ = run(card, made)
    wanted = a.astype(np.float64) @ b.astype(np.float64).T
    np.testing.assert_array_equal(c, wanted.astype(np.float32))


def exact(a, b):
    """The product of rational numbers [M, K] and [N, K], each sum rounded once, to FP32."""
    left = [[Fraction(float(value)) for value in row] for row in a]
    right = [[Fraction(float(value)) for value in row] for row in b]
    sums = [[sum(p * q for p, q in zip(x, y, strict=True)) for y in right] for x in left]
    return np.array([[float(round_to(value, 24, -149, 104)) for value in row] for row in sums])


def definition(array):
    """An MX array by its definition, in double precision."""
    scales = array.scales.view(ml_dtypes.float8_e8m0fnu).astype(np.float64)
    unit = 1 / 64 if array.format is Format.INT8 else 1.0
    spread = np.repeat(scales, 32, axis=1)[:, : array.shape[1]]
    return array.elements.astype(np.float64) * unit * spread


@pytest.mark.parametrize("name", MX_FORMATS)
@pytest.mark.parametrize("shape", [(20, 17, 33), (37, 9, 96), (5, 3, 1100)])
def test_mx_products_are_exact(card, name, shape):
    m, n, k = shape
    a, b = (quantize_mx(random((rows, k), np.float32, rows), MX_FORMATS[name]) for rows in (m, n))
    anchor = window_anchor(a.expanded(), b.expanded())
    c, result = run(card, plan(card, Mx(a), Mx(b), out_format=Format.FP32, anchor=anchor))
    assert result.flags == Flag(0)
    np.testing.assert_array_equal(c, exact(definition(a), definition(b)))


def test_mx_by_another_format(card):
    a = quantize_mx(random((21, 64), np.float32, 1), Format.E2M1)
    b = random((40, 64), ml_dtypes.bfloat16, 2)
    anchor = window_anchor(a.expanded(), b)
    c, _ = run(card, plan(card, Mx(a), Rows(b), out_format=Format.FP32, anchor=anchor))
    np.testing.assert_array_equal(c, exact(definition(a), b))
    c, _ = run(card, plan(card, Rows(b), Mx(a), out_format=Format.FP32, anchor=anchor))
    np.testing.assert_array_equal(c, exact(b, definition(a)))


@pytest.mark.parametrize("name", MX_FORMATS)
def test_quantize_mx(name):
    """Elements are those nearest to the numbers; the largest one's binade is the format's last."""
    format = MX_FORMATS[name]
    x = random((5, 70), np.float32, 3) * np.exp2(np.arange(5, dtype=np.float32) * 9 - 20)[:, None]
    x[2, :32] = 0
    array = quantize_mx(x, format)
    values = definition(array)
    assert not values[2, :32].any()
    largest = {"mxfp4": 6, "mxfp8": 448, "mxfp8e5m2": 57344, "mxint8": 127 / 64}[name]
    for row, group in np.ndindex(array.scales.shape):
        part = slice(32 * group, 32 * group + 32)
        scale = 2.0 ** (int(array.scales[row, group]) - 127)
        top = np.abs(x[row, part]).max()
        if top:
            power = {"mxfp4": 4, "mxfp8": 256, "mxfp8e5m2": 2**15, "mxint8": 1}[name]
            assert power * scale <= top < 2 * power * scale
        # No other number of the format is nearer.
        codes = np.arange(16 if name == "mxfp4" else 256, dtype=np.uint8)
        numbers = codes.view(array.elements.dtype).astype(np.float64)
        numbers = numbers / 64 if name == "mxint8" else numbers
        numbers = numbers[np.abs(numbers) <= largest] * scale
        best = np.abs(numbers - x[row, part][:, None].astype(np.float64)).min(axis=1)
        np.testing.assert_array_equal(np.abs(values[row, part] - x[row, part]), best)
    np.testing.assert_array_equal(array.expanded().astype(np.float64), values)


@pytest.mark.parametrize("dtype", [np.int8, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("density", [0, 0.02, 0.3, 1])
def test_compression_on_the_card(card, dtype, density):
    a, b = random((45, 560), dtype, 1), random((33, 560), dtype, 2)
    a[np.random.default_rng(4).random(a.shape) >= density] = 0
    a[3] = 0
    options = {"out_format": Format.INT32 if dtype is np.int8 else Format.FP32}
    options |= {} if dtype is np.int8 else {"anchor": window_anchor(a, b)}
    sparse = plan(card, Sparse(a), Rows(b), **options)
    assert sparse.problem.encoding is Encoding.DELTA
    assert sparse.problem.slices == 2
    got, result = run(card, sparse)
    want, dense = run(card, plan(card, Rows(a), Rows(b), **options))
    np.testing.assert_array_equal(got, want)
    assert result.flags == dense.flags
    if density < 0.5:
        assert result.counters.mac_active < 0.6 * dense.counters.mac_active


def test_tiles_are_made_ready_while_others_are_multiplied():
    """The array's commands come first; then each tile's load before it is made ready."""
    a, b = random((256, 256), np.int8, 1), random((256, 256), np.int8, 2)
    made = plan_staged(preset("ecp5"), Sparse(a), Rows(b), out_format=Format.INT8, scale=2**-10)
    opcodes = [Opcode(command[0]) for command in made.commands(0, 1 << 20, 1 << 21)]
    first = opcodes.index(Opcode.REFORMAT)
    assert opcodes.index(Opcode.STORE) < first
    assert set(opcodes[first:]) == {Opcode.LOAD, Opcode.REFORMAT}
    assert opcodes.count(Opcode.REFORMAT) == made.shape.tiles > 1
    assert made.shape.buffers[1] == made.shape.buffers[4] == 2


@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("n", [40, 270])
def test_full_queues_do_not_lock(depth, n):
    config = dataclasses.replace(preset("tiny"), queue_depth=depth)
    x, weights = random((150, 256), np.float16, 1), random((n, 256), np.int8, 2)
    raw = (weights % 3 == 0) * weights[:, :1]
    columns = ColumnScales(np.ones(n, np.float32), np.zeros(n, np.float32))
    mx = quantize_mx(x[:, :128], Format.E4M3), quantize_mx(weights[:, :128], Format.E4M3)
    with Card.open("functional", preset=config) as card:
        for a, b, options in (
            (Mx(mx[0]), Mx(mx[1]), {"anchor": -40}),
            (Sparse(raw), Columns(np.ascontiguousarray(weights.T)), {}),
            (Quantized(x, Format.INT8), Rows(weights), {"columns": columns}),
            (Rows(weights), Rows(raw), {}),
        ):
            made = plan(card, a, b, out_format=Format.FP32, **options)
            run(card, made)
            assert made.shape.tiles > 1


@pytest.mark.parametrize("side", [Rows, Columns])
@pytest.mark.parametrize("n", [90, 500])
def test_parts_stay_where_there_is_room(side, n):
    """Else they are loaded, and made ready, for each tile."""
    a, b = random((300, 200), np.int8, 1), random((n, 200), np.int8, 2)
    source = side(b if side is Rows else np.ascontiguousarray(b.T))
    with Card.open("functional", preset="tiny") as card:
        made = plan(card, Rows(a), source, out_format=Format.INT32)
        c, result = run(card, made)
    np.testing.assert_array_equal(c, a.astype(np.int32) @ b.astype(np.int32).T)
    shape = made.shape
    assert shape.parts_stay == (n == 90)
    assert shape.tiles > 1
    lines = source.transfer(shape.part)
    times = 1 if shape.parts_stay else shape.tiles
    assert result.counters.bytes_read >= lines.nbytes * shape.parts * times
    if shape.parts_stay:
        assert result.counters.bytes_read < lines.nbytes * shape.parts * shape.tiles


def quantized(x, largest, dtype):
    """Rows over their scales, and the scales, in FP32."""
    x = x.astype(np.float32)
    scale = np.maximum(np.abs(x).max(axis=1) * np.float32(1 / largest), np.float32(2.0**-126))
    values = x * (np.float32(1) / scale)[:, None]
    return (np.rint(values) if dtype is np.int8 else values).astype(dtype), scale


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("target", [Format.INT8, Format.E4M3])
@pytest.mark.parametrize("block", [None, 128])
@pytest.mark.parametrize("out", [Format.FP32, Format.BF16])
def test_activations_are_quantized_on_the_card(card, dtype, target, block, out):
    """Scales of rows or their blocks, times scales of columns."""
    m, n, k = 45, 70, 400
    x, weights = random((m, k), dtype, 1), random((n, k), np.int8, 2)
    x[3] = 0
    x[:, 130:140] *= dtype(50)
    columns = ColumnScales(
        random((n,), np.float32, 3).astype(np.float32), random((n,), np.float32, 4) * 100
    )
    source = Quantized(x, target, block)
    c, _ = run(card, plan(card, source, Rows(weights), out_format=out, columns=columns))

    largest, kind = (127, np.int8) if target is Format.INT8 else (448, ml_dtypes.float8_e4m3fn)
    total = np.zeros((m, n), np.float32)
    for start in range(0, k, block or k):
        part = slice(start, start + (block or k))
        values, scale = quantized(x[:, part], largest, kind)
        sums = values.astype(np.float64) @ weights[:, part].astype(np.float64).T
        total += sums.astype(np.float32) * scale[:, None]
    wanted = total * columns.scale + columns.bias
    wanted = wanted.astype({Format.FP32: np.float32, Format.BF16: ml_dtypes.bfloat16}[out])
    np.testing.assert_array_equal(c, wanted)


def test_the_scale_of_a_row_of_several_slices(card):
    x, weights = random((5, 1100), np.float16, 1), random((16, 1100), np.int8, 2)
    c, _ = run(card, plan(card, Quantized(x, Format.INT8), Rows(weights), out_format=Format.FP32))
    values, scale = quantized(x, 127, np.int8)
    sums = values.astype(np.int64) @ weights.astype(np.int64).T
    np.testing.assert_array_equal(c, sums.astype(np.float32) * scale[:, None])


def array(rows, k, dtype=np.int8):
    return np.ones((rows, k), dtype)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda c: plan_staged(c, Rows(array(3, 4)), Rows(array(3, 5)), out_format=Format.INT8),
            r"b must have the shape \[N, 4\], not \(3, 5\)",
        ),
        (
            lambda c: plan_staged(
                c, Rows(array(3, 4)), Sparse(array(3, 4)), out_format=Format.INT8
            ),
            "b must be dense, without scales, not Sparse",
        ),
        (
            lambda c: plan_staged(c, Rows(array(3, 4)), Rows(array(3, 4)), out_format=Format.INT4),
            "out_format must be another one than INT4",
        ),
        (
            lambda c: plan_staged(
                c,
                Rows(array(3, 4, np.float16)),
                Rows(array(3, 4, ml_dtypes.bfloat16)),
                out_format=Format.FP32,
            ),
            "no path for FP16 with BF16",
        ),
        (
            lambda c: plan_staged(
                c,
                Rows(array(3, 30000, np.float16)),
                Rows(array(3, 30000, np.float16)),
                out_format=Format.FP32,
            ),
            "no tile of a 3 x 30000 by 30000 x 3 product fits the 65536 bytes",
        ),
        (
            lambda c: plan_staged(
                c, Rows(array(3, 32769)), Rows(array(3, 32769)), out_format=Format.FP32
            ),
            "K must be at most 32768, not 32769",
        ),
        (
            lambda c: plan_staged(
                c,
                Quantized(array(3, 4000, np.float16), Format.INT8, 2048),
                Rows(array(3, 4000)),
                out_format=Format.FP32,
            ),
            "block must be a multiple of 16 and at most 1024",
        ),
        (
            lambda c: plan_staged(
                c,
                Rows(array(3, 4)),
                Columns(array(4, 3)),
                out_format=Format.FP32,
                columns=ColumnScales(np.ones(3, np.float32), np.ones(3, np.float32)),
            ),
            "b must need no work of the vector unit where columns have scales",
        ),
        (lambda c: Quantized(array(3, 4), Format.INT8), "array must be FP16 or BF16, not INT8"),
        (lambda c: Quantized(array(3, 4, np.float16), Format.FP16), "INT8 or E4M3, not"),
        (lambda c: Rows(array(3, 4, np.float32)), "an operand must be one of .* not 'float32'"),
        (lambda c: Rows(array(3, 4, ml_dtypes.int4)), "8 or 16 bits here, not INT4"),
        (lambda c: Rows(array(0, 4)), r"must not be empty, not \(0, 4\)"),
    ],
)
def test_mistakes_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build(preset("tiny"))
