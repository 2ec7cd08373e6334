"""Where the chunks of the resident operand are: the walk of the fill path."""

from amaranth.hdl import Module, Mux, Signal, Value, unsigned
from amaranth.lib import data

from ..config import CardConfig
from ..isa import LANES, Format, MatmulBody
from ..numerics.widen import describe_number, mode_of, number_layout

__all__ = ["row_layout", "walk_rows"]

_KEPT = (
    *("n_inner", "run_bytes", "runs_inner"),
    *("x_run_stride", "x_run_outer_stride", "x_inner_stride", "x_outer_stride"),
)
"""What of a command is used after its start."""


def _command_layout(config: CardConfig) -> data.StructLayout:
    """Layout of what is kept of a command; with K in bytes, and the columns of a block."""
    body = MatmulBody.as_shape()
    return data.StructLayout(
        {
            **{name: body[name].shape for name in _KEPT},
            "number": number_layout(),
            "k_bytes": unsigned(17),
            "block_columns": range(4 * config.cols + 1),
        }
    )


def row_layout(config: CardConfig) -> data.StructLayout:
    """Layout of a row of chunks: where the block's column 0 would have its own, how long they are,
    how many, whether the block ends with them, and whether it is the iteration's last one."""
    return data.StructLayout(
        {
            "base": 32,
            "bytes": range(config.fill_bytes + 1),
            "columns": range(4 * config.cols + 1),
            "block_end": 1,
            "last_block": 1,
        }
    )


def walk_rows(
    m: Module, config: CardConfig, start, body, mode: Signal, *, asking: Value, taken: Value
) -> tuple[data.View, data.View, Value]:
    """Walk blocks, runs and chunks, one row of chunks after the other: one of each column.

    ``start`` and ``body`` are the fill path's ports; ``mode`` is set with a start. Returns what is
    kept of the command, the next row, and whether it is there. It goes when ``taken``. A row takes
    three cycles: first it is found out how long its chunks are and what ends with them, then where
    the walk is next. Nothing starts while the last row waits or is ``asking``.
    """
    size = config.fill_bytes
    command = Signal(_command_layout(config), reset_less=True)
    new_mode, _ = mode_of(m, body.stream_format, body.in_format)
    k_bytes, block_columns = Signal(17), Signal(range(4 * config.cols + 1))
    m.d.comb += k_bytes.eq(body.k)
    with m.Switch(body.in_format):
        with m.Case(Format.INT4):
            m.d.comb += k_bytes.eq(body.k >> 1)
        with m.Case(Format.FP16, Format.BF16):
            m.d.comb += k_bytes.eq(body.k << 1)
    with m.Switch(new_mode):
        for each, lanes in LANES.items():
            with m.Case(each):
                m.d.comb += block_columns.eq(config.cols * lanes)

    base, chunk_base, run_base, outer_base = (
        Signal(32, name=name, reset_less=True)
        for name in ("base", "chunk_base", "run_base", "outer_base")
    )
    runs_left, run_left = Signal(16, reset_less=True), Signal(16, reset_less=True)
    k_left, columns = Signal(17, reset_less=True), Signal(16, reset_less=True)

    # What follows from where the walk is, after one cycle or two.
    row = Signal(row_layout(config), reset_less=True)
    run_ends, last_run = (Signal(name=name, reset_less=True) for name in ("run_ends", "last_run"))
    next_run, next_chunk = Signal(32, reset_less=True), Signal(32, reset_less=True)
    k_after, columns_after = Signal(17, reset_less=True), Signal(16, reset_less=True)
    run_after, runs_after = Signal(16, reset_less=True), Signal(16, reset_less=True)
    in_block = Signal()
    m.d.comb += in_block.eq(columns <= command.block_columns)
    m.d.sync += [
        row.base.eq(chunk_base),
        row.bytes.eq(Mux(run_left < size, run_left, size)),
        row.columns.eq(Mux(in_block, columns, command.block_columns)),
        row.block_end.eq(k_left <= row.bytes),
        row.last_block.eq(in_block),
        run_ends.eq(run_left <= size),
        last_run.eq(runs_left == 1),
        next_chunk.eq(chunk_base + size),
        run_after.eq(run_left - size),
        runs_after.eq(runs_left - 1),
        next_run.eq(
            Mux(last_run, outer_base, run_base)
            + Mux(last_run, command.x_run_outer_stride, command.x_run_stride)
        ),
        k_after.eq(k_left - row.bytes),
        columns_after.eq(columns - row.columns),
    ]

    walking, steps = Signal(), Signal(2)  # steps that are done
    known = Signal()
    m.d.comb += [
        known.eq(steps[-1]),
        start.ready.eq(~walking & ~asking),
    ]
    with m.If(walking & ~known):
        m.d.sync += steps.eq(steps + 1)
    with m.If(taken):
        m.d.sync += [
            steps.eq(0),
            k_left.eq(k_after),
            run_left.eq(run_after),
            chunk_base.eq(next_chunk),
        ]
        with m.If(run_ends):
            m.d.sync += [
                run_left.eq(command.run_bytes),
                runs_left.eq(runs_after),
                run_base.eq(next_run),
                chunk_base.eq(next_run),
            ]
            with m.If(last_run):
                m.d.sync += [runs_left.eq(command.runs_inner), outer_base.eq(next_run)]
        with m.If(row.block_end):
            m.d.sync += [
                k_left.eq(command.k_bytes),
                run_left.eq(command.run_bytes),
                runs_left.eq(command.runs_inner),
                *(place.eq(base) for place in (chunk_base, run_base, outer_base)),
                columns.eq(columns_after),
                walking.eq(~row.last_block),
            ]
    with m.If(start.valid & start.ready):
        start = start.payload
        m.d.sync += [
            *(command[name].eq(body[name]) for name in _KEPT),
            command.number.eq(describe_number(m, body.in_format, name="number")),
            command.k_bytes.eq(k_bytes),
            command.block_columns.eq(block_columns),
            mode.eq(new_mode),
            *(place.eq(start) for place in (base, chunk_base, run_base, outer_base)),
            runs_left.eq(body.runs_inner),
            run_left.eq(body.run_bytes),
            k_left.eq(k_bytes),
            columns.eq(body.n),
            walking.eq(1),
            steps.eq(0),
        ]
    return command, row, known & walking
