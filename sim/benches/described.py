"""Parts of the compute unit behind the commands that they are described by: designs for benches."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ...rtl.array.command import describe_streams
from ...rtl.array.ports import drain_layout, stream_layout, visit_layout
from ...rtl.array.row_engine import RowEngine, engine_start_layout
from ...rtl.array.stream_port import EngineFetch
from ...rtl.config import CardConfig
from ...rtl.core.epilogue import EpilogueLane
from ...rtl.core.output import lane_write_layout
from ...rtl.core.running import RunningCommands
from ...rtl.isa import Flag, MatmulBody, Status
from ...rtl.numerics.widen import mode_of

__all__ = ["DescribedEngine", "DescribedLane", "drive_commands"]


def drive_commands(m: Module, engine: RowEngine, *bodies: MatmulBody) -> None:
    """Drive a row engine's mode and commands from two bodies with the same mode."""
    mode, _ = mode_of(m, bodies[0].stream_format, bodies[0].in_format)
    m.d.comb += engine.mode.eq(mode)
    for turn, body in enumerate(bodies):
        m.d.comb += engine.commands[turn].eq(describe_streams(m, body))


class DescribedEngine(wiring.Component):
    """A row engine whose commands are given by their bodies.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    body : ``In(MatmulBody).array(2)``
        Of the iterations, by turns; both have the same mode.

    The others are those of `RowEngine`.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "index": In(range(config.rows)),
                "start": In(stream.Signature(engine_start_layout(config))),
                "body": In(MatmulBody).array(2),
                "fetch": Out(EngineFetch(config)),
                "filled": In(1),
                "stream": Out(stream_layout(config)),
                "visit": Out(stream.Signature(visit_layout())),
                "credit": In(1),
                "active": Out(1),
                "stall_stream": Out(1),
                "stall_fill": Out(1),
                "stall_drain": Out(1),
                "error": Out(2),
                "status": Out(Status).array(2),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.engine = engine = RowEngine(self._config)
        drive_commands(m, engine, *self.body)
        connect(m, flipped(self.start), engine.start)
        connect(m, engine.fetch, flipped(self.fetch))
        connect(m, engine.visit, flipped(self.visit))
        for name in ("index", "filled", "credit"):
            m.d.comb += getattr(engine, name).eq(getattr(self, name))
        for name in ("stream", "active", "stall_stream", "stall_fill", "stall_drain", "error"):
            m.d.comb += getattr(self, name).eq(getattr(engine, name))
        m.d.comb += [port.eq(at) for port, at in zip(self.status, engine.status, strict=True)]
        return m


class DescribedLane(wiring.Component):
    """An epilogue lane behind the registers that keep what its commands say.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    body, first, take : ``In``
        As in `RunningCommands`.

    The others are those of `EpilogueLane`.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "body": In(MatmulBody),
                "first": In(1),
                "take": In(1),
                "visit": In(stream.Signature(visit_layout())),
                "drain": In(drain_layout()),
                "credit": Out(1),
                "write": Out(stream.Signature(lane_write_layout(self._config))),
                "flags": Out(len(Flag)).array(2),
                "error": Out(2),
                "status": Out(Status),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.running = running = RunningCommands()
        m.submodules.lane = lane = EpilogueLane(self._config)
        connect(m, flipped(self.visit), lane.visit)
        connect(m, lane.write, flipped(self.write))
        m.d.comb += [
            running.body.eq(self.body),
            running.valid.eq(self.take),
            running.first.eq(self.first),
            running.take.eq(self.take),
            lane.mode.eq(running.mode),
            lane.weight.eq(running.weight),
            lane.same.eq(running.same),
            lane.drain.eq(self.drain),
            self.credit.eq(lane.credit),
            self.error.eq(lane.error),
            self.status.eq(lane.status),
        ]
        for turn in range(2):
            m.d.comb += [
                lane.paths[turn].eq(running.paths[turn]),
                lane.columns[turn].eq(running.columns[turn]),
                self.flags[turn].eq(lane.flags[turn]),
            ]
        return m
