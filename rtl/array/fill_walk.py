"""Where the chunks of the resident operand are: the walk of the fill path."""

from amaranth.hdl import Module, Mux, Signal, Value, unsigned
from amaranth.lib import data

from ..config import CardConfig
from ..isa import LANES, Format, MatmulBody, Mode
from ..numerics.widen import describe_number, low_bits, mode_of, number_layout

__all__ = ["row_layout", "walk_rows"]

_KEPT = (
    *("n_inner", "run_bytes", "runs_inner"),
    *("x_run_stride", "x_run_outer_stride", "x_inner_stride", "x_outer_stride"),
)
"""What of a command is used after its start."""


def _command_layout() -> data.StructLayout:
    """Layout of what is kept of a command; with its mode, and K in bytes."""
    body = MatmulBody.as_shape()
    return data.StructLayout(
        {
            **{name: body[name].shape for name in _KEPT},
            "number": number_layout(),
            "mode": Mode,
            "k_bytes": unsigned(17),
        }
    )


def row_layout(config: CardConfig) -> data.StructLayout:
    """Layout of a row of chunks: where the block's column 0 would have its own, how long they are,
    how many, whether it is one, whether the block ends with them, and whether it is the iteration's
    last one."""
    return data.StructLayout(
        {
            "base": 32,
            "bytes": range(config.fill_bytes + 1),
            "columns": range(4 * config.cols + 1),
            "single": 1,
            "block_end": 1,
            "last_block": 1,
        }
    )


def walk_rows(
    m: Module, config: CardConfig, start, body, *, idle: Value, taken: Value
) -> tuple[data.View, data.View, Value, Value]:
    """Walk blocks, runs and chunks, one row of chunks after the other: one of each column.

    ``start`` and ``body`` are the fill path's ports. Returns what is kept of the command, the next
    row, whether it is there, and whether the walk goes on. A row goes when ``taken``, and takes
    three cycles: first it is found out how long its chunks are and what ends with them, then where
    the walk is next. It starts where the fill path is ``idle``.

    What a start sets is set in every idle cycle: so it has not to wait for whether one starts.
    """
    size = config.fill_bytes
    command = Signal(_command_layout(), reset_less=True)
    new_mode, _ = mode_of(m, body.stream_format, body.in_format)
    k_bytes, block_columns = Signal(17), Signal(range(4 * config.cols + 1))
    m.d.comb += k_bytes.eq(body.k)
    with m.Switch(low_bits(body.in_format)):
        with m.Case(Format.INT4.value):
            m.d.comb += k_bytes.eq(body.k >> 1)
        with m.Case(Format.FP16.value, Format.BF16.value):
            m.d.comb += k_bytes.eq(body.k << 1)
    with m.Switch(command.mode):
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
    m.d.comb += in_block.eq(columns <= block_columns)
    m.d.sync += [
        row.base.eq(chunk_base),
        row.bytes.eq(Mux(run_left < size, run_left, size)),
        row.columns.eq(Mux(in_block, columns, block_columns)),
        row.single.eq(row.columns == 1),
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
    m.d.comb += known.eq(steps[-1])
    with m.If(walking & ~known):
        m.d.sync += steps.eq(steps + 1)
    with m.If(taken & row.block_end):
        m.d.sync += walking.eq(~row.last_block)
    with m.If(taken):
        m.d.sync += steps.eq(0)
    with m.If(idle):
        m.d.sync += [
            *(command[name].eq(body[name]) for name in _KEPT),
            command.number.eq(describe_number(m, body.in_format, name="number")),
            command.mode.eq(new_mode),
            command.k_bytes.eq(k_bytes),
            base.eq(start.payload),
            walking.eq(start.valid),
            steps.eq(0),
        ]
    # One condition for all that each of these may become: it is their enable.
    run_begins, place_begins = Signal(), Signal()
    m.d.comb += [
        run_begins.eq(run_ends | row.block_end),
        place_begins.eq((run_ends & last_run) | row.block_end),
    ]
    anew = Mux(row.block_end, base, next_run)
    with m.If(idle | taken):
        m.d.sync += [
            k_left.eq(Mux(idle, k_bytes, Mux(row.block_end, command.k_bytes, k_after))),
            run_left.eq(Mux(idle, body.run_bytes, Mux(run_begins, command.run_bytes, run_after))),
            chunk_base.eq(Mux(idle, start.payload, Mux(run_begins, anew, next_chunk))),
        ]
    with m.If(idle | (taken & run_begins)):
        m.d.sync += [
            runs_left.eq(
                Mux(idle, body.runs_inner, Mux(place_begins, command.runs_inner, runs_after))
            ),
            run_base.eq(Mux(idle, start.payload, anew)),
        ]
    with m.If(idle | (taken & place_begins)):
        m.d.sync += outer_base.eq(Mux(idle, start.payload, anew))
    with m.If(idle | (taken & row.block_end)):
        m.d.sync += columns.eq(Mux(idle, body.n, columns_after))
    return command, row, known & walking, walking
