"""Concatenation and nearest-neighbour upsampling: tensors moved by address patterns alone.

Tensors are rows of bytes in card memory, a row for each pixel, pixel after pixel: what convolutions
read and write. Nothing is computed, so any format will do whose rows are whole granules of 16
bytes. Pieces pass through the two halves of the scratchpad, one being filled while the other is
emptied.
"""

from collections.abc import Sequence

from ...rtl.config import GRANULE, CardConfig
from . import commands
from .checks import multiple, positive
from .commands import Operand, Signal, Wait

__all__ = ["concatenate", "upsample"]

_FREE, _FULL = range(2)
"""Semaphores: halves that may be filled, and such that may be emptied."""

_MOST = 0xFFFF
"""Rows of a transfer."""


def concatenate(
    config: CardConfig, parts: Sequence[tuple[int, int]], *, rows: int, out: int
) -> list[bytes]:
    """Return the commands, without an END, that lay tensors side by side.

    They start with all semaphores at 0 and leave credits behind: behind them goes a
    `commands.barrier`. They use the whole scratchpad.

    Parameters
    ----------
    parts : sequence of (int, int)
        Address and bytes of a row of each tensor: multiples of 16.
    rows : int
        Rows of each tensor.
    out : int
        Address of the result, whose rows are those of ``parts`` one behind the other.

    Raises
    ------
    ValueError
        If there are no parts, something is not a multiple of 16, or a row of the result does not
        fit half of the scratchpad.
    """
    if not parts:
        raise ValueError("parts must name a tensor at least")
    positive("rows", rows, config.memory_bytes)
    multiple("out", out, GRANULE)
    for address, size in parts:
        multiple("address of a part", address, GRANULE)
        multiple("bytes of a part's row", size, GRANULE)
        positive("bytes of a part's row", size, config.memory_bytes)
    pitch = sum(size for _, size in parts)
    half, many = _half(config, pitch, "a row of the result")
    result = [commands.semaphore(_FREE, 2)]
    for number, start in enumerate(range(0, rows, many)):
        count = min(many, rows - start)
        base = number % 2 * half
        at = base
        for index, (address, size) in enumerate(parts):
            # One queue loads them in order: the first waits for all, the last tells of all.
            result.append(
                commands.load(
                    Operand(address + start * size),
                    Operand(at),
                    x_bytes=size,
                    y=count,
                    memory_y_stride=size,
                    scratchpad_y_stride=pitch,
                    wait=[Wait(_FREE)] if index == 0 else [],
                    signal=[Signal(_FULL)] if index == len(parts) - 1 else [],
                )
            )
            at += size
        result.append(
            commands.store(
                Operand(out + start * pitch),
                Operand(base),
                x_bytes=count * pitch,
                wait=[Wait(_FULL)],
                signal=[Signal(_FREE)],
            )
        )
    return result


def upsample(
    config: CardConfig,
    image: int,
    out: int,
    *,
    shape: tuple[int, int, int],
    factors: tuple[int, int],
) -> list[bytes]:
    """Return the commands, without an END, that repeat the pixels of an image.

    Output pixel (y, x) is input pixel (y // down, x // right): nearest-neighbour resizing by whole
    factors, as ONNX's Resize has it with "asymmetric" coordinates and "floor". About semaphores
    and scratchpad see `concatenate`.

    Parameters
    ----------
    image, out : int
        Addresses of the input and the output: multiples of 16.
    shape : (int, int, int)
        Height and width of the input, and bytes of a pixel: a multiple of 16.
    factors : (int, int)
        Output rows for each row, and output pixels for each pixel.

    Raises
    ------
    ValueError
        If something is not a multiple of 16 or not positive, or a row of the output does not fit
        half of the scratchpad.
    """
    (height, width, pixel), (down, right) = shape, factors
    multiple("image", image, GRANULE)
    multiple("out", out, GRANULE)
    multiple("bytes of a pixel", pixel, GRANULE)
    for name, value in (
        ("height", height),
        ("width", width),
        ("bytes of a pixel", pixel),
        ("factors", down),
        ("factors", right),
    ):
        positive(name, value, _MOST)
    line, wide = width * pixel, width * right * pixel
    half, many = _half(config, wide, "a row of the output", _MOST // width)
    result = [commands.semaphore(_FREE, 2)]
    for number, start in enumerate(range(0, height, many)):
        count = min(many, height - start)
        base = number % 2 * half
        # Pixels are repeated on their way in, rows on their way out.
        result.append(
            commands.load(
                Operand(image + start * line),
                Operand(base),
                x_bytes=pixel,
                y=count * width,
                z=right,
                memory_y_stride=pixel,
                memory_z_stride=0,
                scratchpad_y_stride=right * pixel,
                scratchpad_z_stride=pixel,
                wait=[Wait(_FREE)],
                signal=[Signal(_FULL)],
            )
        )
        result.append(
            commands.store(
                Operand(out + start * down * wide),
                Operand(base),
                x_bytes=wide,
                y=down,
                z=count,
                memory_y_stride=wide,
                memory_z_stride=down * wide,
                scratchpad_y_stride=0,
                scratchpad_z_stride=wide,
                wait=[Wait(_FULL)],
                signal=[Signal(_FREE)],
            )
        )
    return result


def _half(config: CardConfig, row: int, name: str, most: int = _MOST) -> tuple[int, int]:
    """Return the bytes of half the scratchpad, and how many rows of ``row`` bytes it takes."""
    half = config.scratchpad_bytes // 2
    if row > half:
        raise ValueError(f"{name} must fit half of the scratchpad, {half:,} bytes, not {row:,}")
    return half, min(half // row, most)
