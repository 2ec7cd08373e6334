"""Transposed convolutions: each row of outputs by an ordinary convolution.

Y[y, x] = sum over X[i, j] times filter[ky, kx], where ``y = i * stride + ky * dilation - padding``,
and so for x. Output rows with the same rest of ``y / stride`` see the same rows of the kernel: they
are an ordinary convolution of stride 1, with these rows upside down. Output pixels with the same
rest of ``x / stride`` are further filters of it, because they lie side by side in memory. So there
is one `plan_conv` for each rest of y; its stores leave room for the rows of the others.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.config import CardConfig
from ...rtl.isa import BITS, Encoding, Format, Opcode, TransferBody
from . import commands
from .convolution import plan_conv
from .convolution_request import ConvPlan
from .convolution_shape import ConvLayout, Pads
from .encoding import Operand, Signal, Wait, decode, encode
from .formats import DTYPES
from .packing import Packer
from .streams import per_row
from .transposed_shape import Axis, TransposedShape, axis_of

__all__ = ["TransposedPlan", "TransposedShape", "plan_transposed"]

_TRANSFER = Packer(TransferBody)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TransposedPlan:
    """A transposed convolution for one card, with everything but the addresses decided.

    It is used as a `convolution_request.ConvPlan`. In card memory the output has ``line`` bytes
    from row to row.

    Parameters
    ----------
    plans : tuple of ConvPlan
        For the output rows of each rest.
    starts : tuple of int
        Bytes from the image's start to what each of them takes for it.
    layout : ConvLayout
        How the image lies in card memory: with the padding that all of them need.
    line : int
        Bytes from an output row to the next.
    """

    shape: TransposedShape
    plans: tuple[ConvPlan, ...]
    starts: tuple[int, ...]
    layout: ConvLayout
    line: int
    in_zero_point: int

    @property
    def config(self) -> CardConfig:
        """The card that the plan is for."""
        return self.plans[0].config

    @property
    def kind(self) -> str:
        """How the array is used by most of the plans."""
        kinds = [plan.kind for plan in self.plans]
        return max(kinds, key=kinds.count)

    @property
    def encoding(self) -> Encoding:
        """Of the first plan's streams."""
        return self.plans[0].encoding

    @property
    def cycles(self) -> int:
        """Estimate for the whole job."""
        return sum(plan.cycles for plan in self.plans)

    @property
    def weights(self) -> npt.NDArray[np.uint8]:
        """Bytes of the weights for card memory."""
        return np.concatenate([plan.weights for plan in self.plans])

    @property
    def weights_bytes(self) -> int:
        """Bytes of the weights in card memory."""
        return sum(plan.weights_bytes for plan in self.plans)

    @property
    def x_bytes(self) -> int:
        """Bytes of the input in card memory, its padding included."""
        return self.layout.image_bytes

    @property
    def y_bytes(self) -> int:
        """Bytes of the output in card memory, with rows behind it that are written, too."""
        steps = self.shape.stride[0]
        return self.line * steps * max(plan.shape.outputs[0] for plan in self.plans)

    def pack_x(self, image: npt.NDArray) -> npt.NDArray[np.uint8]:
        """Return the bytes of an image [H, W, C] for card memory.

        Raises
        ------
        ValueError
            If shape or type are not the plan's.
        """
        return self.layout.pack(image, (self.shape.height, self.shape.width), self.in_zero_point)

    def unpack_y(self, raw: npt.NDArray[np.uint8]) -> npt.NDArray:
        """Return the output [H, W, filters] from its bytes in card memory."""
        (height, width), filters = self.shape.outputs, self.shape.filters
        fmt = self.layout.out_format
        rows = np.asarray(raw, np.uint8)[: height * self.line].reshape(height, self.line)
        numbers = np.ascontiguousarray(rows[:, : width * filters * BITS[fmt] // 8])
        return numbers.view(DTYPES[fmt]).reshape(height, width, filters)

    def commands(self, weights: int, x: int, y: int) -> list[bytes]:
        """Return the commands, without an END, as those of `ConvPlan.commands`."""
        out: list[bytes] = []
        for number, (plan, start) in enumerate(zip(self.plans, self.starts, strict=True)):
            if number:
                out.append(commands.barrier())
            base = y + number * self.line
            out += [
                _spread(command, base, self.line, self.shape.stride[0])
                for command in plan.commands(weights, x + start, base)
            ]
            weights += plan.weights_bytes
        return out

    def describe(self) -> str:
        """Return how the convolution is cut, for people."""
        return f"{len(self.plans)} convolutions; the first: {self.plans[0].describe()}"

    def details(self) -> dict[str, Any]:
        """Return the same as fields of JSON."""
        return {"convolutions": [{"kind": p.kind, **p.details()} for p in self.plans]}


def plan_transposed(
    config: CardConfig,
    weights: npt.NDArray,
    image: tuple[int, int, int],
    *,
    in_format: Format,
    out_format: Format | None = None,
    stride: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | Pads = 0,
    groups: int = 1,
    scale: npt.ArrayLike = 1.0,
    bias: npt.ArrayLike = 0,
    in_zero_point: int = 0,
    **options: Any,
) -> TransposedPlan:
    """Plan a transposed convolution of one image.

    Parameters
    ----------
    weights : array [filters, KH, KW, channels / groups]
        As for `plan_conv`, each filter as PyTorch has it: not turned round.
    image : (int, int, int)
        Height, width and channels of the input.
    stride, dilation, padding
        Of `TransposedShape`.
    options
        Those of `plan_conv`.

    Raises
    ------
    ValueError
        Where `plan_conv` does, if there is no such convolution, or for INT4 outputs.
    """
    weights = np.asarray(weights)
    shape = TransposedShape.of(
        weights, image, stride=stride, dilation=dilation, padding=padding, groups=groups
    )
    out_format = out_format or in_format
    if out_format is Format.INT4:
        raise ValueError("out_format must not be INT4 for a transposed convolution")
    whole = _whole(weights, groups)
    across = axis_of(shape, 1, range(shape.stride[1]))
    downs = [axis_of(shape, 0, [rest]) for rest in range(shape.stride[0])]
    sides = (across.before, across.after(shape.width))
    options |= {
        "in_format": in_format,
        "out_format": out_format,
        "in_zero_point": in_zero_point,
        "scale": np.tile(per_row("scale", scale, np.float64, shape.filters), shape.stride[1]),
        "bias": np.tile(per_row("bias", bias, np.float64, shape.filters), shape.stride[1]),
    }
    plans = []
    for down in downs:
        ends = [down.before, down.after(shape.height)]
        if (down.size, across.size, *ends, *sides) == (1, 1, 0, 0, 0, 0):
            # Rows that are no rows could not be spread.
            ends[1] = 1
        part = _part(whole, down, across)
        rows = (ends[0], ends[1])
        plans.append(plan_conv(config, part, image, padding=(rows, sides), **options))
    top = max(down.before for down in downs)
    bottom = max(plan.shape.padding[0][1] for plan in plans)
    layout = ConvLayout(
        shape=dataclasses.replace(
            plans[0].shape,
            kernel=(max(top, bottom, *(down.size for down in downs)), across.size),
            padding=((top, bottom), sides),
        ),
        in_format=in_format,
        out_format=out_format,
    )
    return TransposedPlan(
        shape=shape,
        plans=tuple(plans),
        starts=tuple((top - down.before) * layout.row_bytes for down in downs),
        layout=layout,
        line=layout.out_row_bytes,
        in_zero_point=in_zero_point,
    )


def _whole(weights: npt.NDArray, groups: int) -> npt.NDArray:
    """Return filters [filters, KH, KW, channels] that see all channels: zeros for other groups."""
    if groups == 1:
        return weights
    filters, *kernel, channels = weights.shape
    whole = np.zeros((groups, filters // groups, *kernel, groups, channels), weights.dtype)
    grouped = weights.reshape(groups, filters // groups, *kernel, channels)
    for group in range(groups):
        whole[group, ..., group, :] = grouped[group]
    return whole.reshape(filters, *kernel, groups * channels)


def _part(weights: npt.NDArray, down: Axis, across: Axis) -> npt.NDArray:
    """Return the filters [rests * filters, size, size, channels] of one ordinary convolution."""
    filters, _, _, channels = weights.shape
    part = np.zeros((len(across.taps), filters, down.size, across.size, channels), weights.dtype)
    for y, row in down.taps[0].items():
        for rest, taps in enumerate(across.taps):
            for x, column in taps.items():
                part[rest, :, y, x] = weights[:, row, column]
    return part.reshape(-1, down.size, across.size, channels)


def _spread(command: bytes, base: int, line: int, steps: int) -> bytes:
    """Return a command whose stores of whole rows leave room for the rows between them.

    Parameters
    ----------
    base : int
        Where the command takes the output to begin.
    line : int
        Bytes of a row.
    steps : int
        Rows from one to the next.
    """
    fields = decode(command)
    if fields["opcode"] is not Opcode.STORE or steps == 1:
        return command

    def moved(distance: int) -> int:
        rows, rest = divmod(distance, line)
        return rows * steps * line + rest

    body = {name: fields[name] for name in _TRANSFER.fields if name != "reserved"}
    one_line = fields["y"] == fields["z"] == 1
    if one_line and fields["x_bytes"] % line == 0:
        body |= {"x_bytes": line, "y": fields["x_bytes"] // line}
        body |= {"memory_y_stride": steps * line, "scratchpad_y_stride": line}
    elif fields["y"] > 1 and fields["memory_y_stride"] % line == 0:
        body["memory_y_stride"] = moved(fields["memory_y_stride"])
    elif fields["z"] > 1 and fields["memory_z_stride"] % line == 0:
        body["memory_z_stride"] = moved(fields["memory_z_stride"])
    elif not one_line or fields["x_bytes"] > line:
        raise ValueError("stores of an ordinary convolution must be whole rows of its output")
    operands = [_operand(fields, number) for number in range(3)]
    operands[0] = dataclasses.replace(
        operands[0],
        base=base + moved(operands[0].base - base),
        inner=moved(operands[0].inner),
        outer=moved(operands[0].outer),
    )
    return encode(
        Opcode.STORE.value,
        body,
        queue=fields["queue"],
        operands=operands,
        inner=fields["inner"],
        outer=fields["outer"],
        wait=[Wait(*reference) for reference in _references(fields, "wait")],
        signal=[Signal(*reference) for reference in _references(fields, "signal")],
    )


def _operand(fields: Mapping[str, Any], number: int) -> Operand:
    parts = {name: fields[f"operand[{number}].{name}"] for name in ("base", "inner", "outer")}
    pong = fields[f"operand[{number}].pong"]
    return Operand(**parts, pong=pong, pong_outer=bool(fields["pong_outer"] >> number & 1))


def _references(fields: Mapping[str, Any], kind: str) -> Iterator[tuple[int, bool]]:
    for number in range(4):
        prefix = f"{kind}[{number}]."
        if fields[prefix + "enable"]:
            yield fields[prefix + "index"], bool(fields[prefix + "outer"])
