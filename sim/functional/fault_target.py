"""A command that gets a fault, and what it is that makes one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import BITS, Command, DirectoryEntry, Format, Opcode, ReformatOp, Status
from .checks import BODIES, PAIRS
from .decode import dtype, pack, unpack
from .random_jobs import RandomJob
from .reformat import INDEX_UNITS
from .rows import SCALE_BYTES, has_table, writes_scale

__all__ = ["FAR", "Kind", "Target"]

Fields = dict[str, Any]

FAR = 1 << 31
"""A byte address far outside every memory."""


class Target:
    """A command that gets a fault: its fields, and those of its body."""

    def __init__(self, job: RandomJob, index: int, config: CardConfig, rng: np.random.Generator):
        self.job, self.index, self.config, self.rng = job, index, config, rng
        self.header: Fields = unpack(Command, job.commands[index])
        self.opcode = Opcode(self.header["opcode"])
        self.body: Fields = unpack(BODIES[self.opcode], self.header["body"])

    def choose(self, *items: Any) -> Any:
        return items[self.rng.integers(len(items))]

    def save(self) -> None:
        body = pack(BODIES[self.opcode], self.body)
        raw = bytearray(pack(Command, {**self.header, "body": body}))
        self.job.commands[self.index] = bytes(raw)

    def operands(self) -> dict[int, int]:
        """Return to how many bytes the operands that are used are aligned."""
        used: tuple[int, ...] = (0, 1)
        if self.opcode is Opcode.MATMUL:
            return {0: GRANULE} | {
                number: max(1, self.bits(name) // 8) for number, name in ((1, "in"), (2, "out"))
            }
        if self.opcode is Opcode.VECTOR:
            used = (0, 1, 2) if self.body["op"] in PAIRS else (1, 2)
        if self.opcode is Opcode.ROWS:
            beside = {0: GRANULE} if has_table(self.body) else {}
            beside |= {0: SCALE_BYTES} if writes_scale(self.body) else {}
            return {1: GRANULE, 2: GRANULE} | beside
        if self.opcode is Opcode.REFORMAT:
            index = INDEX_UNITS.get(ReformatOp(self.body["op"]))
            return {1: GRANULE, 2: GRANULE} | ({} if index is None else {0: index})
        return dict.fromkeys(used, GRANULE)

    def operand(self) -> int:
        """Choose an operand that is used."""
        return int(self.choose(*self.operands()))

    def blob(self) -> npt.NDArray[np.uint8]:
        """Return the MATMUL's first blob, to be changed."""
        address, _ = self.job.blobs[self.index]
        return next(content for place, content in self.job.writes if place == address)

    def entry(self, *, last: bool = False) -> tuple[Any, int]:
        """Return an entry of it that is not empty, and its slice; ``last``: of the last slice."""
        _, used = self.job.blobs[self.index]
        entries = self.blob()[: used.size * GRANULE].view(dtype(DirectoryEntry))
        s = len(used) - 1 if last else int(self.rng.integers(len(used)))
        return entries.reshape(used.shape)[s, self.rng.choice(np.flatnonzero(used[s]))], s

    def bits(self, name: str) -> int:
        """Return the bits of a MATMUL's number."""
        return BITS[Format(self.body[f"{name}_format"])]


Kind = Callable[[Target], Status | None]
"""Changes the target and returns the status, or returns None if it does not apply."""
