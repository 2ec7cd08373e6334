"""A command that gets a fault, and what it is that makes one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import BITS, Command, DirectoryEntry, Format, Opcode, Status
from .checks import BODIES, PAIRS
from .decode import dtype, pack, unpack
from .random_jobs import RandomJob

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

    def operand(self) -> int:
        """Choose an operand that is used."""
        if self.opcode is Opcode.MATMUL:
            return int(self.choose(0, 1, 2))
        if self.opcode is Opcode.VECTOR:
            return int(self.choose(*((0, 1, 2) if self.body["op"] in PAIRS else (1, 2))))
        return int(self.choose(0, 1))

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
