"""The vector unit: what runs beside the array, one command at a time."""

from amaranth.hdl import Cat, Module, Signal

from ..isa import Opcode
from .pool import PoolUnit
from .reformat import ReformatUnit
from .rows import RowsUnit
from .vector_part import VectorPart

__all__ = ["VectorUnit"]


class VectorUnit(VectorPart):
    """Runs VECTOR (`PoolUnit`), ROWS (`RowsUnit`) and REFORMAT (`ReformatUnit`).

    Commands follow each other, so its parts take turns at the scratchpad.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parts = {
            Opcode.VECTOR: PoolUnit(self.config),
            Opcode.ROWS: RowsUnit(self.config),
            Opcode.REFORMAT: ReformatUnit(self.config),
        }
        start, read, write = self.unit.start, self.read, self.write
        readies, dones = [], []
        for opcode, part in parts.items():
            m.submodules[opcode.name.lower()] = part
            chosen = Signal(name=f"chosen_{opcode.name.lower()}")
            m.d.comb += [
                chosen.eq(start.payload.opcode == opcode.value),
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
        m.d.comb += [start.ready.eq(Cat(readies).any()), self.unit.done.eq(Cat(dones).any())]
        return m
