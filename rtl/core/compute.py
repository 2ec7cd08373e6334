"""The compute unit: array, row engines, fill and epilogue behind one start port."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..array.fill import Fill
from ..array.grid import Grid
from ..array.row_engine import RowEngine
from ..array.stream_port import StreamPort
from ..config import GRANULE, CardConfig
from ..hierarchy import Repeated
from ..isa import Format, Function, MatmulBody, MatmulFlag, Status
from .epilogue import EpilogueLane
from .output import OutputMerge
from .ports import ReadPort, UnitPort, WritePort

__all__ = ["ComputeUnit", "engine_events_layout"]


def engine_events_layout(config: CardConfig) -> data.StructLayout:
    """Layout of how many row engines issued a weight, or waited and for what, in one cycle."""
    count = range(config.rows + 1)
    return data.StructLayout(
        {"active": count, "stall_stream": count, "stall_fill": count, "stall_drain": count}
    )


class ComputeUnit(wiring.Component):
    """Executes MATMUL (`MatmulBody`).

    The fill path starts an iteration as soon as it has read all of the one before, and the row
    engines when all of them have fetched theirs: iterations follow each other without a gap.
    Checks, in this order, at every start: lengths, formats, alignment; then, while it runs,
    addresses and what the blob says.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    unit : ``In(UnitPort)``
    stream_read : ``Out(ReadPort).array(stream_ports)``
    fill_read : ``Out(ReadPort)``, as wide as two chunks of the fill
    write : ``Out(WritePort)``
    events : ``Out(engine_events_layout)``
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "unit": In(UnitPort()),
                "stream_read": Out(ReadPort(config)).array(config.stream_ports),
                "fill_read": Out(ReadPort(config, 2 * config.fill_bytes // GRANULE)),
                "write": Out(WritePort(config)),
                "events": Out(engine_events_layout(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        rows = config.rows
        start = self.unit.start
        body = Signal(MatmulBody)
        m.d.comb += body.eq(start.payload.body)

        m.submodules.grid = grid = Grid(config)
        m.submodules.fill = fill = Fill(config)
        m.submodules.merge = merge = OutputMerge(config)
        engines = [RowEngine(config) for _ in range(rows)]
        lanes = [EpilogueLane(config) for _ in range(rows)]
        ports = [StreamPort(config) for _ in range(config.stream_ports)]
        connect(m, fill.read, flipped(self.fill_read))
        connect(m, merge.write, flipped(self.write))
        m.d.comb += [grid.fp16.eq(body.in_format == Format.FP16), fill.body.eq(body)]
        m.d.comb += [column.eq(word) for column, word in zip(grid.fill, fill.fill, strict=True)]
        for r, (engine, lane) in enumerate(zip(engines, lanes, strict=True)):
            m.submodules[f"engine_{r}"] = Repeated(engine, "row_engine")
            m.submodules[f"lane_{r}"] = Repeated(lane, "epilogue_lane")
            # Engines next to each other share different ports: rows in step ask in different ones.
            port = ports[r % config.stream_ports]
            connect(m, engine.fetch, port.engine[r // config.stream_ports])
            connect(m, engine.visit, lane.visit)
            connect(m, lane.write, merge.lane[r])
            m.d.comb += [
                engine.body.eq(body),
                engine.filled.eq(grid.filled[r]),
                engine.credit.eq(lane.credit),
                grid.stream[r].eq(engine.stream),
                lane.command.eq(body),
                lane.drain.eq(grid.drain[r]),
            ]
        for i, port in enumerate(ports):
            m.submodules[f"stream_port_{i}"] = port
            connect(m, port.read, flipped(self.stream_read[i]))

        self._release_blocks(m, grid, fill)
        self._control(m, body, fill, engines, lanes, merge)
        for name in ("active", "stall_stream", "stall_fill", "stall_drain"):
            m.d.sync += self.events[name].eq(sum(getattr(e, name) for e in engines))
        return m

    def _release_blocks(self, m: Module, grid: Grid, fill: Fill) -> None:
        """Tell the fill path about each column block that all engines are done with."""
        pending = [
            Signal(range(self._config.operand_depth + 1), name=f"released{r}")
            for r in range(self._config.rows)
        ]
        oldest = Signal()
        m.d.comb += [
            oldest.eq(Cat(count.any() for count in pending).all()),
            fill.release.eq(oldest),
        ]
        for count, release in zip(pending, grid.release, strict=True):
            m.d.sync += count.eq(count + release - oldest)

    def _control(self, m: Module, body, fill, engines, lanes, merge) -> None:
        config, start = self._config, self.unit.start
        blob, x, out = start.payload.operand

        fp16 = body.in_format == Format.FP16
        k_bytes = Mux(fp16, body.k << 1, body.k)
        bad_length = (
            ~body.k.any()
            | (body.k > config.operand_depth)
            | ~body.n.any()
            | ~body.n_inner.any()
            | ~body.visits.any()
            | ~body.run_bytes.any()
        )
        bad_format = (
            (body.in_format > Format.FP16.value)
            | (body.out_format > Format.FP32.value)
            | (fp16 & (body.out_format == Format.INT32))
            | (body.flags > MatmulFlag.SPARSE.value)
            | (body.function > max(function.value for function in Function))
        )
        out_mask = Signal(2)
        with m.Switch(body.out_format):
            with m.Case(Format.FP16):
                m.d.comb += out_mask.eq(1)
            with m.Case(Format.FP32, Format.INT32):
                m.d.comb += out_mask.eq(3)
        x_odd = x | body.run_bytes | body.x_run_stride | body.x_inner_stride | body.x_outer_stride
        out_odd = out | body.out_inner_stride | body.out_outer_stride
        bad_alignment = blob[:4].any() | (fp16 & x_odd[0]) | (out_odd[:2] & out_mask).any()

        left = Signal(unsigned(17))
        # The engines' start waits here while they still work on the iteration before.
        waiting, waiting_blob, waiting_out = Signal(), Signal(28), Signal(32)
        engines_ready = Signal()
        m.d.comb += engines_ready.eq(Cat(engine.start.ready for engine in engines).all())
        with m.If(engines_ready):
            m.d.sync += waiting.eq(0)
        failed, failure = Signal(), Signal(Status)
        m.d.sync += failed.eq(0)
        with m.FSM(name="control"):
            with m.State("idle"):
                with m.If(start.valid):
                    m.d.sync += left.eq(k_bytes)
                    m.next = "check"
            with m.State("check"):
                # Do whole runs make K? By subtraction: a division would be larger and as slow.
                with m.If(bad_length | (left < body.run_bytes)):
                    m.d.sync += [failed.eq(1), failure.eq(Status.BAD_LENGTH)]
                    m.next = "failed"
                with m.Elif(left == body.run_bytes):
                    with m.If(bad_format | bad_alignment):
                        m.d.sync += [
                            failed.eq(1),
                            failure.eq(Mux(bad_format, Status.BAD_FORMAT, Status.BAD_ALIGNMENT)),
                        ]
                        m.next = "failed"
                    with m.Else():
                        m.next = "start"
                with m.Else():
                    m.d.sync += left.eq(left - body.run_bytes)
            with m.State("start"):
                with m.If(fill.start.ready & ~waiting):
                    m.d.comb += [start.ready.eq(1), fill.start.valid.eq(1)]
                    m.d.sync += [
                        waiting.eq(1),
                        waiting_blob.eq(blob[4:]),
                        waiting_out.eq(out),
                    ]
                    m.next = "idle"
            with m.State("failed"):
                pass  # until the core is reset

        m.d.comb += fill.start.payload.eq(x)
        for r, engine in enumerate(engines):
            m.d.comb += [
                engine.start.valid.eq(waiting & engines_ready),
                engine.start.payload.entry.eq(waiting_blob + r),
                engine.start.payload.blob.eq(waiting_blob),
                engine.start.payload.output.eq(waiting_out),
            ]

        # One error is reported at a time; the first source in this order, if several come at once.
        sources = [(failed, failure), (fill.error, fill.status)]
        sources += [(unit.error, unit.status) for unit in (*engines, *lanes)]
        m.d.sync += self.unit.error.eq(Cat(error for error, _ in sources).any())
        for error, status in reversed(sources):
            with m.If(error):
                m.d.sync += self.unit.status.eq(status)
        m.d.comb += self.unit.done.eq(merge.iteration_done)
