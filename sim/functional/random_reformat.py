"""Random REFORMAT operations for `RandomJobs`."""

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE
from ...rtl.isa import BITS, ENTRIES, Encoding, Opcode, ReformatOp
from .assemble import command, operand, semaphore
from .random_operands import aligned
from .random_transfers import RandomTransfers
from .reformat import FORMATS

__all__ = ["RandomReformats"]


class RandomReformats(RandomTransfers):
    """Makes operations that transpose, compress and expand."""

    def _reformat(self) -> None:
        """Reformat blocks of rows, in some iterations of one command."""
        op = self._one(list(ReformatOp))
        fmt = self._one(FORMATS[op])
        bits = BITS[fmt]
        while True:
            inner, batch = self._int(1, 3), self._int(1, 3)
            rows = self._int(1, 70 if op is ReformatOp.TRANSPOSE else 9)
            length = self._int(1, 1500 if op is ReformatOp.COMPRESS else 140)
            written, item = rows, -(-length // ENTRIES[Encoding.DENSE][16])
            if op is ReformatOp.TRANSPOSE:
                written, item = length, -(-rows * bits // (8 * GRANULE))
            elif op is ReformatOp.COMPRESS:
                item = -(-length // ENTRIES[Encoding.DELTA][bits])
            unit = 2 if op is ReformatOp.COMPRESS else GRANULE
            facts = 2 if op is ReformatOp.COMPRESS else aligned(-(-length // 32))
            boxes = {
                "in": self._box([inner, batch, rows], aligned(-(-length * bits // 8)), GRANULE),
                "out": self._box([inner, batch, written], GRANULE * item, GRANULE),
                "index": self._box([inner, batch, rows], facts, unit),
            }
            if op is ReformatOp.TRANSPOSE:
                draw = self.rng.integers(-(1 << 31), 1 << 31, 3).tolist()
                boxes["index"] = (draw, int(self.rng.integers(1 << 32)), 0)
            if max(nbytes for _, _, nbytes in boxes.values()) <= self.largest:
                break
        body = {"op": op, "in_format": fmt, "rows": rows, "length": length, "batch": batch}
        for name, (strides, _, _) in boxes.items():
            body |= {f"{name}_batch_stride": strides[1], f"{name}_stride": strides[2]}

        sizes = [nbytes for _, _, nbytes in boxes.values()]
        place = self._room(sum(sizes), 2)
        ends = np.cumsum([0, *sizes]).tolist()
        bases = dict(zip(boxes, (place + end for end in ends), strict=False))
        operands = [
            operand((bases[name] + boxes[name][1]) % (1 << 32), inner=boxes[name][0][0])
            for name in ("index", "in", "out")
        ]
        content = self.rng.integers(0, 256, sum(sizes), np.uint8)
        if op is ReformatOp.COMPRESS:
            content[: sizes[0]] *= self._filled(sizes[0])
        wait = self._blank(place, sum(sizes), 1, self._data(content))
        done = self._semaphore()
        self._job.commands += [
            command(
                Opcode.REFORMAT,
                body,
                operands=operands,
                inner=inner,
                wait=[wait],
                signal=[semaphore(done, outer=True)],
            ),
            self._store(bases["out"], sum(sizes[1:]), 1, wait=[semaphore(done)]),
        ]

    def _filled(self, nbytes: int) -> npt.NDArray[np.bool_]:
        """Return which bytes are not zero: in some stretches many, in others none."""
        density = self.rng.choice([0, 0.003, 0.1, 0.5, 1])
        filled = self.rng.random(nbytes) < density
        if self._chance(0.5):
            stretch = self._int(1, 700)
            filled &= np.arange(nbytes) // stretch % 2 == self._int(0, 1)
        return filled
