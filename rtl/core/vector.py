"""The vector unit: what runs beside the array, one command at a time."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import Out

from ..isa import Opcode, Status
from .pool import PoolUnit
from .reformat import ReformatUnit
from .rows import RowsUnit
from .vector_part import VectorPart

__all__ = ["VectorUnit"]

_PARTS = {
    "pool": (Opcode.VECTOR, PoolUnit),
    "rows": (Opcode.ROWS, RowsUnit),
    "reformat": (Opcode.REFORMAT, ReformatUnit),
}
"""What runs each of `CardConfig.vector_parts`."""


class VectorUnit(VectorPart):
    """Runs VECTOR (`PoolUnit`), ROWS (`RowsUnit`) and REFORMAT (`ReformatUnit`).

    Commands follow each other, so its parts take turns at the scratchpad. An iteration of a command
    whose part is not among `CardConfig.vector_parts` fails with BAD_OPCODE.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        start, read, write = self.unit.start, self.read, self.write
        # One part at a time has anything to read, to write or to report.
        m.d.sync += self.unit.error.eq(0)
        parts, readies, dones, missing = [], [], [], []
        for name, (opcode, unit) in _PARTS.items():
            chosen = Signal(name=f"chosen_{opcode.name.lower()}")
            m.d.comb += chosen.eq(start.payload.opcode == opcode.value)
            if name not in self.config.vector_parts:
                missing.append(chosen)
                continue
            m.submodules[opcode.name.lower()] = part = unit(self.config)
            m.d.comb += [
                part.unit.start.payload.eq(start.payload),
                part.unit.start.valid.eq(start.valid & chosen),
                part.read.ready.eq(read.ready),
                part.read.data_valid.eq(read.data_valid),
                part.read.data.eq(read.data),
                part.write.ready.eq(write.ready),
            ]
            readies.append(chosen & part.unit.start.ready)
            parts.append(part)
            with m.If(part.unit.error):
                m.d.sync += [self.unit.error.eq(1), self.unit.status.eq(part.unit.status)]
            dones.append(part.unit.done)
        for port, sources in (
            (read, [part.read for part in parts]),
            (write, [part.write for part in parts]),
        ):
            m.d.comb += port.valid.eq(Cat(source.valid for source in sources).any())
            for name, member in port.signature.members.items():
                if name == "valid" or member.flow is not Out:
                    continue
                # Those of the first part need no gate.
                m.d.comb += getattr(port, name).eq(getattr(sources[0], name))
                for source in sources[1:]:
                    with m.If(source.valid):
                        m.d.comb += getattr(port, name).eq(getattr(source, name))
        if missing:
            # The first iteration of such a command: all before it have ended.
            refuse, refused, told = Signal(), Signal(), Signal()
            m.d.comb += refuse.eq(Cat(missing).any() & ~refused)
            with m.If(start.valid & refuse):
                m.d.sync += refused.eq(1)
            m.d.sync += told.eq(refused)
            with m.If(refused & ~told):
                m.d.sync += [self.unit.error.eq(1), self.unit.status.eq(Status.BAD_OPCODE)]
            readies.append(refuse)
        m.d.comb += [start.ready.eq(Cat(readies).any()), self.unit.done.eq(Cat(dones).any())]
        return m
