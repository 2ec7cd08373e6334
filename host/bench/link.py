"""How fast the host's link to a board is, and that no byte of it is wrong, on a line that errs.

Either the board's side is the golden model, and time that of the line: every byte takes its ten
bits. Or there is a board, and time is that of its clock.
"""

import dataclasses
import math
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ...sim.golden.link import Board
from ..card import Card
from ..transport.framing import FrameReader, encode_frame
from ..transport.line import LinkStatistics
from ..transport.link import Link
from .result import MismatchError

__all__ = ["LinkResult", "Noise", "SimulatedLine", "board_link", "link"]

WAIT_S = 0.005
"""Seconds that a read waits at most."""


class Noise:
    """Makes each byte another one with some probability.

    Members
    -------
    spoilt : int
        Bytes changed so far.
    """

    def __init__(self, errors: float, seed: int) -> None:
        if not 0 <= errors < 1:
            raise ValueError(f"--errors must be a probability below 1, not {errors!r}")
        self.spoilt = 0
        self._errors = errors
        self._random = random.Random(seed)
        self._left = self._gap()

    def __call__(self, data: bytes) -> bytes:
        """Return the bytes as they arrive."""
        if len(data) <= self._left:
            self._left -= len(data)
            return data
        changed, at = bytearray(data), int(self._left)
        while at < len(changed):
            changed[at] ^= self._random.randrange(1, 256)
            self.spoilt += 1
            at += 1 + int(self._gap())
        self._left = at - len(changed)
        return bytes(changed)

    def _gap(self) -> float:
        """Bytes up to the next one that is spoilt."""
        return self._random.expovariate(self._errors) if self._errors else 1e18


class SimulatedLine:
    """A line (`transport.line.Port`) to a board in this process, with its own clock.

    Parameters
    ----------
    answer : callable
        The board: takes bytes and returns the frames that it answers.
    baud : int
        Bits a second in each direction, ten of them for a byte.
    latency : float
        Seconds that bytes take besides, in each direction.
    there, back : callable
        Change the bytes of a frame on its way to the board, and back.
    """

    def __init__(
        self,
        answer: Callable[[bytes], list[bytes]],
        *,
        baud: int,
        latency: float,
        there: Callable[[bytes], bytes] = bytes,
        back: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self._answer = answer
        self._byte = 10 / baud
        self._latency = latency
        self._there, self._back = there, back
        self._free_there = self._free_back = 0.0
        self._requests: deque[tuple[float, bytes]] = deque()
        self._replies: deque[tuple[float, bytes]] = deque()
        self._now = 0.0

    def clock(self) -> float:
        """Seconds since the beginning."""
        return self._now

    def write(self, data: bytes) -> None:
        """Put bytes on the line; takes no time."""
        self._free_there = max(self._now, self._free_there) + len(data) * self._byte
        self._requests.append((self._free_there + self._latency, self._there(data)))

    def read(self) -> bytes:
        """Let time pass until bytes come, or a while."""
        until = self._now + WAIT_S
        while True:
            request = self._requests[0][0] if self._requests else until
            reply = self._replies[0][0] if self._replies else until
            if min(request, reply) >= until:
                self._now = until
                return b""
            if reply <= request:
                self._now = max(self._now, reply)
                return self._replies.popleft()[1]
            when, data = self._requests.popleft()
            for frame in self._answer(data):
                self._free_back = max(when, self._free_back) + len(frame) * self._byte
                self._replies.append((self._free_back + self._latency, self._back(frame)))


class _Board(Board):
    """The golden board, with the host's framing: the golden one takes a while."""

    def __init__(self, memory_bytes: int) -> None:
        super().__init__(memory_bytes)
        self._frames = FrameReader()

    def answer(self, line: bytes) -> list[bytes]:
        replies = [self.carry_out(content) for content in self._frames.feed(line)]
        return [encode_frame(reply) for reply in replies if reply is not None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinkResult:
    """A transfer to a board's memory and back, every byte of it right.

    Parameters
    ----------
    where : str
        What board it is.
    nbytes : int
        In each direction.
    baud : int
    seed : int
    latency, errors, spoilt : float, float, int or None
        Of a simulated line: seconds in each direction, probability that a byte is spoilt, and bytes
        that were.
    write_seconds, read_seconds : float
        On the line.
    statistics : LinkStatistics
    """

    where: str
    nbytes: int
    baud: int
    seed: int
    latency: float | None = None
    errors: float | None = None
    spoilt: int | None = None
    write_seconds: float
    read_seconds: float
    statistics: LinkStatistics

    @property
    def limit(self) -> float:
        """Bytes a second that the line carries."""
        return self.baud / 10

    @property
    def write_rate(self) -> float:
        """Bytes a second to the board."""
        return self.nbytes / self.write_seconds

    @property
    def read_rate(self) -> float:
        """Bytes a second from the board."""
        return self.nbytes / self.read_seconds

    def as_json(self) -> dict[str, Any]:
        return {
            "name": "link",
            "board": self.where,
            "bytes": self.nbytes,
            "baud": self.baud,
            "latency": self.latency,
            "errors": self.errors,
            "seed": self.seed,
            "spoilt": self.spoilt,
            "wrong_bytes": 0,
            "bit_exact": True,
            "write_bytes_per_second": round(self.write_rate),
            "read_bytes_per_second": round(self.read_rate),
            "write_of_limit": round(self.write_rate / self.limit, 4),
            "read_of_limit": round(self.read_rate / self.limit, 4),
            **dataclasses.asdict(self.statistics),
        }


def link(nbytes: int, *, baud: int, latency: float, errors: float, seed: int) -> LinkResult:
    """Write random bytes to a simulated board's memory, read them back, and compare.

    Raises
    ------
    MismatchError
        If a byte is wrong, there or back.
    ValueError
        If an argument is no good.
    """
    if not 1 <= nbytes <= 1 << 30:
        raise ValueError(f"--bytes must be from 1 to 2^30, not {nbytes!r}")
    if baud < 1:
        raise ValueError(f"--baud must be at least 1, not {baud!r}")
    if not 0 <= latency < math.inf:
        raise ValueError(f"--latency must be a number of at least 0, not {latency!r}")
    data = np.random.default_rng(seed).integers(0, 256, nbytes, np.uint8)
    there, back = Noise(errors, 2 * seed), Noise(errors, 2 * seed + 1)
    board = _Board(nbytes)
    line = SimulatedLine(board.answer, baud=baud, latency=latency, there=there, back=back)
    host = Link(line, baud=baud, clock=line.clock, seed=seed)
    host.hello()
    begin = line.clock()
    host.write_memory(0, data.data)
    host.flush()
    written = line.clock()
    received = np.frombuffer(host.read_memory(0, nbytes), np.uint8)
    end = line.clock()
    _check(data, np.frombuffer(board.memory, np.uint8), seed, "are wrong in the board's memory")
    _check(data, received, seed, "were read wrong")
    return LinkResult(
        where="golden model",
        nbytes=nbytes,
        baud=baud,
        latency=latency,
        errors=errors,
        seed=seed,
        spoilt=there.spoilt + back.spoilt,
        write_seconds=written - begin,
        read_seconds=end - written,
        statistics=host.statistics,
    )


def board_link(card: Card, nbytes: int, *, seed: int) -> LinkResult:
    """Write random bytes to a board's memory, read them back, and compare.

    Raises
    ------
    MismatchError
        If a byte is wrong.
    ValueError
        If the card is not on a line, or its memory has not so many bytes.
    """
    transport = card.transport
    if transport.clock_hz is None or transport.statistics is None:
        raise ValueError(f"the card must be behind a line, not on the backend {transport.backend}")
    details = transport.details()
    data = np.random.default_rng(seed).integers(0, 256, nbytes, np.uint8)
    buffer = card.allocate(nbytes, "what is sent")
    try:
        before = dataclasses.replace(transport.statistics)
        begin = transport.cycles
        card.write(buffer, data)
        written = transport.cycles
        received = card.read(buffer)
        end = transport.cycles
    finally:
        card.free(buffer)
    _check(data, received, seed, "came back wrong")
    after = dataclasses.asdict(transport.statistics)
    spent = {name: after[name] - count for name, count in dataclasses.asdict(before).items()}
    return LinkResult(
        where=f"{details['board']} at {details['port']}",
        nbytes=nbytes,
        baud=int(details["baud"]),
        seed=seed,
        write_seconds=(written - begin) / transport.clock_hz,
        read_seconds=(end - written) / transport.clock_hz,
        statistics=LinkStatistics(**spent),
    )


def _check(data: npt.NDArray[np.uint8], found: npt.NDArray[np.uint8], seed: int, what: str) -> None:
    if wrong := int((found != data).sum()):
        raise MismatchError(
            f"{wrong:,} of {len(data):,} bytes {what}, with seed {seed}; no figure is given"
        )
