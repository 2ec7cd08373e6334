"""What a convolution benchmark computes: its shape, its formats and its random numbers."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.isa import BITS, Format, Mode, array_mode
from ...sim.golden import epilogue, exact
from ..compiler.convolution import PLANNERS, ConvShape
from ..compiler.formats import DTYPES as ARRAY_DTYPES
from .golden import raw
from .job import ANCHOR, DTYPES, INTEGERS, OUT_DTYPES
from .networks import LAYERS

__all__ = [
    "PLANNERS",
    "ConvJob",
    "chosen_shape",
    "options_named",
    "shape_fields",
    "shape_options",
    "shape_text",
]

COLUMNS_AT_ONCE = 2048
"""Windows that the golden model multiplies at once."""


DEFAULTS = {"h": 56, "w": 56, "c": 64, "filters": 64, "kernel": 3, "stride": 1, "pad": 0}
"""Options of a shape that is not of `LAYERS`."""


def chosen_shape(
    layer: str | None, options: Mapping[str, int | str | None], *, dilation: str, groups: int
) -> ConvShape:
    """Return the shape that a command line asks for.

    Parameters
    ----------
    layer : str or None
        A key of `LAYERS`.
    options : mapping
        Those of `DEFAULTS`, as numbers or as two of them (``"3x5"``, rows first); None where not
        given.

    Raises
    ------
    ValueError
        If there is no such layer, options exclude each other, or the shape is none.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if layer is not None:
        if layer not in LAYERS:
            raise ValueError(f"no layer {layer!r}; --layer list names all {len(LAYERS)}")
        if given:
            raise ValueError(f"--layer sets the shape; leave --{next(iter(given))} out")
        return LAYERS[layer].shape
    with options_named():
        return ConvShape(**shape_fields(given, dilation=dilation, groups=groups))


OPTIONS = {"height": "h", "width": "w", "channels": "c", "padding": "pad"}
"""Options by the fields of a shape, where they are called otherwise."""


@contextmanager
def options_named() -> Iterator[None]:
    """Let the errors of a shape name options in place of fields, and write pairs as they do."""
    try:
        yield
    except ValueError as error:
        field, _, rest = str(error).removeprefix("--").partition(" ")
        rest = re.sub(r"\((-?\d+), (-?\d+)\)", lambda pair: _text((pair[1], pair[2])), rest)
        raise ValueError(f"--{OPTIONS.get(field, field)} {rest}") from None


def shape_fields(given: Mapping[str, int | str], *, dilation: str, groups: int) -> dict[str, Any]:
    """Return the fields of a shape, by the options of `DEFAULTS` that are given."""
    fields = {**DEFAULTS, **given}
    above, left = _pair("pad", fields["pad"])
    return {
        "height": int(fields["h"]),
        "width": int(fields["w"]),
        "channels": int(fields["c"]),
        "filters": int(fields["filters"]),
        "kernel": _pair("kernel", fields["kernel"]),
        "stride": _pair("stride", fields["stride"]),
        "dilation": _pair("dilation", dilation),
        "padding": ((above, above), (left, left)),
        "groups": groups,
    }


def _pair(name: str, text: str | int) -> tuple[int, int]:
    words = str(text).split("x")
    if len(words) > 2 or not all(word.isdecimal() for word in words):
        raise ValueError(f"--{name} must be a whole number or two, as 3x5, not {text!r}")
    return int(words[0]), int(words[-1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvJob:
    """A convolution of random numbers.

    Parameters
    ----------
    shape : ConvShape
    dtype : str
        Format of the weights and the image: a key of `DTYPES`.
    out_dtype : str or None
        Format of the output: a key of `OUT_DTYPES`; as ``dtype`` if None.
    kind : str or None
        Key of `PLANNERS`: how the array is used; the fastest if None.
    seed : int

    Raises
    ------
    ValueError
        If an argument is out of range; names the option.
    """

    shape: ConvShape
    dtype: str = "int8"
    out_dtype: str | None = None
    kind: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in ((self.dtype, DTYPES), (self.out_name, OUT_DTYPES)):
            if name not in known:
                raise ValueError(f"no format {name!r}; choose one of: {', '.join(known)}")
        if self.out_format is Format.INT32 and not self.integer:
            raise ValueError(f"{self.dtype} has no int32 result; choose fp32")
        if self.kind is not None and self.kind not in PLANNERS:
            raise ValueError(f"no --kind {self.kind!r}; choose one of: {', '.join(PLANNERS)}")
        if self.seed < 0:
            raise ValueError(f"--seed must be at least 0, not {self.seed!r}")

    @property
    def out_name(self) -> str:
        """Name of the output format."""
        return self.dtype if self.out_dtype is None else self.out_dtype

    @property
    def format(self) -> Format:
        return DTYPES[self.dtype]

    @property
    def out_format(self) -> Format:
        return OUT_DTYPES[self.out_name]

    @property
    def integer(self) -> bool:
        return self.format in INTEGERS

    @property
    def mode(self) -> Mode:
        """How the array multiplies."""
        mode = array_mode(self.format, self.format)
        assert mode is not None  # every format has a path with itself
        return mode

    @property
    def anchor(self) -> int:
        """Of the window, in BF16 mode."""
        return ANCHOR if self.mode is Mode.BF16 else 0

    @property
    def zero_point(self) -> int:
        """Of the image: what its padding holds."""
        return 1 - (1 << BITS[self.format] - 3) if self.integer else 0

    def scales(self) -> npt.NDArray[np.float32]:
        """Return the scale of each filter: almost all results are in the output's range."""
        limit = INTEGERS.get(self.format)
        spread = 1.0 if limit is None else limit**2 / 3
        target = {Format.INT8: 40.0, Format.INT4: 2.5}.get(self.out_format, 1.0)
        random = np.random.default_rng((self.seed, 1))
        each = target * random.uniform(0.5, 1.0, self.shape.filters)
        return (each / (spread * np.sqrt(self.shape.k))).astype(np.float32)

    def biases(self) -> npt.NDArray:
        """Return the bias of each filter: int32 if `integer`, else float32."""
        each = np.random.default_rng((self.seed, 2)).standard_normal(self.shape.filters)
        if not self.integer:
            return each.astype(np.float32)
        return (each * INTEGERS[self.format] ** 2 * np.sqrt(self.shape.k) / 6).astype(np.int32)

    def operands(self) -> tuple[npt.NDArray, npt.NDArray]:
        """Return weights [filters, KH, KW, C / groups] and image [H, W, C] for the seed."""
        random, shape = np.random.default_rng(self.seed), self.shape
        weights = self._numbers(
            random, (shape.filters, *shape.kernel, shape.channels // shape.groups)
        )
        weights[weights == weights.dtype.type(0)] = weights.dtype.type(1)
        return weights, self._numbers(random, (shape.height, shape.width, shape.channels))

    def _numbers(self, random: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray:
        if self.integer:
            limit = INTEGERS[self.format]
            numbers = random.integers(-limit, limit, shape, np.int8)
            return numbers.astype(ARRAY_DTYPES[self.format])
        return random.standard_normal(shape, np.float32).astype(ARRAY_DTYPES[self.format])

    def expected(self, weights: npt.NDArray, image: npt.NDArray) -> npt.NDArray:
        """Return the raw output [H, W, filters] by the golden models: windows side by side."""
        shape, zero = self.shape, self.zero_point
        padded = np.pad(
            raw(image), (*shape.padding, (0, 0)), constant_values=zero if self.integer else 0
        )
        windows = np.lib.stride_tricks.sliding_window_view(padded, shape.extent, (0, 1))
        windows = windows[:: shape.stride[0], :: shape.stride[1]]
        windows = windows[..., :: shape.dilation[0], :: shape.dilation[1]]
        (height, width), each = shape.outputs, shape.filters // shape.groups
        # [H, W, channels, KH, KW] to [groups, pixels, K].
        windows = windows.reshape(height * width, shape.groups, -1, *shape.kernel)
        windows = windows.transpose(1, 0, 3, 4, 2).reshape(shape.groups, height * width, -1)
        matrix = raw(weights).reshape(shape.groups, each, -1)
        scales = self.scales().reshape(shape.groups, each)
        biases = self.biases().reshape(shape.groups, each)
        parts = [
            np.concatenate(
                [
                    self._finish(filters, scale, bias, columns[start : start + COLUMNS_AT_ONCE])
                    for start in range(0, len(columns), COLUMNS_AT_ONCE)
                ],
                axis=1,
            )
            for filters, scale, bias, columns in zip(matrix, scales, biases, windows, strict=True)
        ]
        return np.concatenate(parts).T.reshape(height, width, shape.filters)

    def _finish(
        self,
        filters: npt.NDArray,
        scale: npt.NDArray[np.float32],
        bias: npt.NDArray,
        columns: npt.NDArray,
    ) -> npt.NDArray:
        sums = exact.gemm(
            np.ascontiguousarray(filters),
            np.ascontiguousarray(columns),
            self.dtype,  # type: ignore[arg-type]
            anchor=self.anchor,
        )
        if self.integer:
            bias = bias - (self.zero_point * filters.astype(np.int64).sum(1)).astype(np.int32)
        return epilogue.finish(
            sums,
            bias=bias.view(np.uint32),
            scale=scale.view(np.uint32),
            out_format=self.out_name,  # type: ignore[arg-type]
        ).values

    def options(self) -> list[str]:
        """Return the command line's options for this job."""
        words = shape_options(self.shape)
        words += ["--dtype", self.dtype]
        if self.out_dtype is not None:
            words += ["--out-dtype", self.out_dtype]
        if self.kind is not None:
            words += ["--kind", self.kind]
        return words

    def __str__(self) -> str:
        return f"{shape_text(self.shape)}, {self.dtype} to {self.out_name}"


def shape_text(shape: ConvShape) -> str:
    """Return a shape in words."""
    parts = [
        f"{shape.height} x {shape.width} x {shape.channels}",
        f"{shape.filters} filters {shape.kernel[0]} x {shape.kernel[1]}",
    ]
    for name, value in (("stride", shape.stride), ("dilation", shape.dilation)):
        if value != (1, 1):
            parts.append(f"{name} {_text(value)}")
    if shape.groups > 1:
        parts.append(f"{shape.groups} groups")
    return ", ".join(parts)


def shape_options(shape: ConvShape) -> list[str]:
    """Return the command line's options for a shape, whose padding is the same on both sides."""
    (top, _), (left, _) = shape.padding
    words: list[object] = ["--h", shape.height, "--w", shape.width, "--c", shape.channels]
    words += ["--filters", shape.filters, "--kernel", _text(shape.kernel)]
    for name, value, default in (
        ("stride", _text(shape.stride), "1"),
        ("dilation", _text(shape.dilation), "1"),
        ("pad", _text((top, left)), "0"),
        ("groups", shape.groups, 1),
    ):
        if value != default:
            words += [f"--{name}", value]
    return list(map(str, words))


def _text(values: tuple[object, object]) -> str:
    return str(values[0]) if values[0] == values[1] else f"{values[0]}x{values[1]}"
