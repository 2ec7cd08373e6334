"""The search for tiles of a depthwise convolution: which ones fit the scratchpad."""

import dataclasses
import itertools
import math
from collections.abc import Iterator

from ...rtl.config import GRANULE
from .depthwise_tiles import DepthwiseProblem, DepthwiseTiling
from .streams import MAX_BLOB_BYTES
from .tiling import CREDITS, LOOP_LIMIT

__all__ = ["tilings"]

MOST_SIDE = 16
"""Pixels of a tile's side."""

MOST_HEIGHTS = 4
"""Heights of bands that are estimated."""

LEAST_CHUNK = 48
"""Channels of a chunk that is not all of them: shorter rows are slow to load."""

LEAST_STRIPS = 28
"""Columns of an output that is worth being cut into strips."""


def tilings(problem: DepthwiseProblem) -> Iterator[DepthwiseTiling]:
    """Yield the tilings that fit the card."""
    config, layout = problem.config, problem.layout
    height, width = layout.shape.outputs
    for part in _parts(problem):
        for high in range(1, min(MOST_SIDE, height) + 1):
            for wide in range(1, min(MOST_SIDE, width) + 1):
                one = DepthwiseTiling(
                    problem=problem,
                    tile=(high, wide),
                    part=part,
                    chunk=part,
                    strip=width,
                    rows=high,
                    buffers=1,
                )
                if one.k > config.operand_depth or one.blob > MAX_BLOB_BYTES:
                    break
                if one.across(width) * wide > width + wide // 2 + 1 or one.entries > LOOP_LIMIT:
                    continue
                yield from _cut(one)


def _cut(one: DepthwiseTiling) -> Iterator[DepthwiseTiling]:
    """Yield the ways to cut channels and rows for tiles and parts that are chosen."""
    problem = one.problem
    height, width = problem.layout.shape.outputs
    tiles = -(-height // one.tile[0])
    heights = sorted({-(-tiles // count) * one.tile[0] for count in range(1, tiles + 1)})
    for chunk, strip in itertools.product(
        _chunks(problem, one.part), _strips(problem, one.tile[1])
    ):
        fitting = []
        for rows in heights:
            several = rows < height or chunk < problem.channels or strip < width
            tiling = dataclasses.replace(
                one, chunk=chunk, strip=strip, rows=rows, buffers=2 if several else 1
            )
            if tiling.scratchpad_bytes > problem.config.scratchpad_bytes:
                break
            if tiling.columns(rows, strip) <= LOOP_LIMIT:
                fitting.append(tiling)
        # High bands share few rows with others, and fill column blocks.
        yield from fitting[-MOST_HEIGHTS:]


def _strips(problem: DepthwiseProblem, wide: int) -> list[int]:
    """Columns of a strip: all, or equal numbers of whole tiles where pixels are whole granules."""
    layout = problem.layout
    width = layout.shape.outputs[1]
    if layout.pixel_bytes % GRANULE or layout.out_pixel_bytes % GRANULE or width < LEAST_STRIPS:
        return [width]
    tiles = -(-width // wide)
    return [width, *{-(-tiles // count) * wide for count in (2, 4, 8)}]


def _parts(problem: DepthwiseProblem) -> list[int]:
    """Channels of an iteration: what the fill path reads at once, or half of it."""
    each, _ = problem.group
    sizes = {math.lcm(each, size) for size in (8, GRANULE, 2 * GRANULE)} | {problem.channels}
    return sorted(size for size in sizes if problem.channels % size == 0 and size <= 64)


def _chunks(problem: DepthwiseProblem, part: int) -> list[int]:
    """Channels of a chunk: all, or whole granules."""
    layout, total = problem.layout, problem.channels
    sizes = []
    if layout.pixel_bytes % GRANULE == 0 and layout.out_pixel_bytes % GRANULE == 0:
        for size in range(part, total, part):
            if size % GRANULE == 0 and problem.filters(size) % GRANULE == 0:
                sizes.append(size)
    if len(sizes) > 12:
        sizes = [size for size in sizes if size <= 8 * part or size % (8 * part) == 0]
    sizes = [size for size in sizes if size >= LEAST_CHUNK] or sizes
    return [size for size in (*sizes, total) if size // part <= CREDITS]
