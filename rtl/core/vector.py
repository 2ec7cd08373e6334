"""The vector unit: what runs beside the array, one command at a time."""

from amaranth.hdl import Cat, Module, Signal

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
        readies, dones, missing = [], [], []
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
            # One part at a time has anything to read, to write or to report.
            with m.If(part.read.valid):
                m.d.comb += [read.valid.eq(1), read.address.eq(part.read.address)]
            with m.If(part.write.valid):
                m.d.comb += [
                    write.valid.eq(1),
                    write.address.eq(part.write.address),
                    write.data.eq(part.write.data),
                    write.mask.eq(part.write.mask),
                ]
            with m.If(part.unit.error):
                m.d.comb += [self.unit.error.eq(1), self.unit.status.eq(part.unit.status)]
            dones.append(part.unit.done)
        if missing:
            # The first iteration of such a command: all before it have ended.
            refuse, refused, report = Signal(), Signal(), Signal()
            m.d.comb += refuse.eq(Cat(missing).any() & ~refused)
            m.d.sync += report.eq(start.valid & refuse)
            with m.If(start.valid & refuse):
                m.d.sync += refused.eq(1)
            with m.If(report):
                m.d.comb += [self.unit.error.eq(1), self.unit.status.eq(Status.BAD_OPCODE)]
            readies.append(refuse)
        m.d.comb += [start.ready.eq(Cat(readies).any()), self.unit.done.eq(Cat(dones).any())]
        return m
