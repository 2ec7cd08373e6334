"""The host's side of the link to a board: requests that arrive once, in order and undamaged.

`rtl.isa.link` has the protocol. Here are the window, what is sent again and when, and the size of
the pieces that transfers are cut into.
"""

import dataclasses
import random
import struct
import time
from collections.abc import Callable, Sequence

from ...rtl.isa.link import LINK_VERSION, MAX_DATA, WINDOW_BYTES, LinkOp, Reply
from .framing import HEADER_BYTES, FrameReader, encode_frame
from .line import LinkError, LinkStatistics, PayloadSize, Port

__all__ = ["Link", "LinkError", "LinkStatistics", "PayloadSize", "Port"]

MAX_WAITING = 100
"""Requests from the first one without an answer: the board answers again what is 127 back."""

READ_AHEAD = 8192
"""Bytes of replies that may be on their way: what every serial driver has room for."""

TRIES = 3
"""Time-outs at least, before the board is gone."""

BACK_OFF = 4
"""A time-out grows to so many times the first one, while nothing comes."""

JITTER = 5
"""An answer may be later than others by this part of the patience."""

_SEQUENCES = 256
_REQUEST = struct.Struct("<BBHI")
_REPLY = struct.Struct("<BBH")
_REFUSED = {
    Reply.BAD_REQUEST.value: "it does not know this request: host and bitstream do not fit, build "
    "the bitstream again",
    Reply.BAD_ADDRESS.value: "nothing is at this address of the board: the bitstream's manifest "
    "names another memory, build the bitstream again",
}


@dataclasses.dataclass(slots=True, eq=False)
class _Request:
    """A request without an answer; ``sink`` takes the data of its reply."""

    sequence: int
    op: LinkOp
    address: int
    length: int
    frame: bytes
    size: int
    sink: memoryview | None
    stamp: int = 0
    sent: int = 0
    alone: bool = False
    when: float = 0.0

    @property
    def reply_bytes(self) -> int:
        return self.length if self.sink is not None else 0


class Link:
    """The host's end of a link. `hello` comes first, and again after a `LinkError`.

    Writes return when they are sent; whether they were carried out shows in the next read or
    `flush`, and the board keeps the order of all. Reads of one call are under way together.

    Parameters
    ----------
    port : Port
    baud : int
        Bits a second of the line, ten of which are a byte.
    patience : float
        Seconds after which a reply is late, besides the time that its bytes take.
    give_up : float
        Seconds without any reply after which the board is gone.
    clock : callable
        Returns seconds.
    seed : int
        Of the first sequence; at random if not given.

    Members
    -------
    statistics : LinkStatistics
    """

    def __init__(
        self,
        port: Port,
        *,
        baud: int = 3_000_000,
        patience: float = 0.05,
        give_up: float = 4.0,
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
    ) -> None:
        self.statistics = LinkStatistics()
        self._port = port
        self._byte_seconds = 10 / baud
        self._patience = patience
        self._give_up = give_up
        self._clock = clock
        self._random = random.Random(seed)
        self._frames = FrameReader()
        self._sizes = {LinkOp.READ_MEMORY: PayloadSize(), LinkOp.WRITE_MEMORY: PayloadSize()}
        self._unanswered: dict[int, _Request] = {}
        self._greeted = False
        self._next = 0
        self._stamp = 0
        self._window = self._replies = 0
        self._quiet_since = self._progress = 0.0
        self._latency = patience
        # Since the last answer: time-outs, frames that are none, and bytes.
        self._late = self._strange = self._unknown = 0
        self._refusal = ""

    def hello(self) -> None:
        """Begin anew, whatever was before.

        Raises
        ------
        LinkError
            If nothing answers, or another version of the protocol.
        """
        self._drop_all()
        self._frames = FrameReader()
        self._next = self._random.randrange(_SEQUENCES)
        self._greeted = True
        version = int.from_bytes(self._read(LinkOp.HELLO, [(0, 4)]), "little")
        if version != LINK_VERSION:
            self._greeted = False
            if not version:
                # A HELLO reads as an answer, with its address as the version.
                raise LinkError(
                    "this is no board: the port sends back what it is sent; next: check the port"
                )
            raise LinkError(
                f"the board speaks version {version} of the link's protocol, this host version "
                f"{LINK_VERSION}; next: build the bitstream again, with: deepseek-host build"
            )

    def read_registers(self, addresses: Sequence[int]) -> list[int]:
        """Read 32-bit registers, in this order."""
        spans: list[tuple[int, int]] = []
        for address in addresses:
            begin, count = spans[-1] if spans else (0, 0)
            if spans and address == begin + count and count < MAX_DATA:
                spans[-1] = (begin, count + 4)
            else:
                spans.append((address, 4))
        data = self._read(LinkOp.READ_CSR, spans)
        return list(struct.unpack(f"<{len(addresses)}I", data))

    def write_register(self, address: int, value: int) -> None:
        """Write a 32-bit register."""
        if not 0 <= value < 1 << 32:
            raise ValueError(f"a register takes 32 bits, not {value!r}")
        self._send(LinkOp.WRITE_CSR, address, 4, value.to_bytes(4, "little"), None)
        self.statistics.data_written += 4

    def read_memory(self, address: int, count: int) -> bytes:
        """Read card memory."""
        return self._read(LinkOp.READ_MEMORY, [(address, count)])

    def write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write card memory."""
        view = memoryview(data).cast("B")
        size, at = self._sizes[LinkOp.WRITE_MEMORY], 0
        while at < len(view):
            # Whole fractions of the window, headers included.
            piece = bytes(view[at : at + size.size - HEADER_BYTES])
            self._send(LinkOp.WRITE_MEMORY, address + at, len(piece), piece, None)
            at += len(piece)
        self.statistics.data_written += len(view)

    def flush(self) -> None:
        """Wait until the board has carried out everything.

        Raises
        ------
        LinkError
            If it does not, or has refused something.
        """
        self._await(lambda: not self._unanswered)
        if self._refusal:
            refusal, self._refusal = self._refusal, ""
            raise LinkError(refusal)

    def _read(self, op: LinkOp, spans: Sequence[tuple[int, int]]) -> bytes:
        data = bytearray(sum(count for _, count in spans))
        view, filled = memoryview(data), 0
        for address, count in spans:
            end = filled + count
            while filled < end:
                limit = self._sizes[op].size if op in self._sizes else MAX_DATA
                piece = min(end - filled, limit)
                self._send(op, address, piece, b"", view[filled : filled + piece])
                address += piece
                filled += piece
        self.flush()
        self.statistics.data_read += len(data)
        return bytes(data)

    def _send(
        self, op: LinkOp, address: int, length: int, data: bytes, sink: memoryview | None
    ) -> None:
        """Send a request, when there is room for it."""
        if not self._greeted:
            raise LinkError("the link is down; next: open the card again")
        size = HEADER_BYTES + len(data)
        reply = length if sink is not None else 0
        window, ahead = self._room(op, size, reply)
        self._await(
            lambda: (
                not self._unanswered
                or (
                    self._window + size <= window
                    and self._replies + reply <= ahead
                    and (self._next - next(iter(self._unanswered))) % _SEQUENCES < MAX_WAITING
                    # Reads are left behind only if a call was interrupted.
                    and not (sink is None and self._replies)
                )
            )
        )
        content = _REQUEST.pack(self._next, op.value, length, address) + data
        frame = encode_frame(content)
        request = _Request(self._next, op, address, length, frame, size, sink)
        if not self._unanswered:
            request.alone = True
        self._unanswered[self._next] = request
        self._next = (self._next + 1) % _SEQUENCES
        self._window += size
        self._replies += reply
        self.statistics.requests += 1
        self._transmit(request)

    def _room(self, op: LinkOp, size: int, reply: int) -> tuple[int, int]:
        """Bytes of requests, and of their replies, that may be on their way.

        What follows a lost request is lost, too. So on a bad line they are only as many as the
        line carries until an answer comes.
        """
        if op not in self._sizes or self._sizes[op].clean:
            return WINDOW_BYTES, READ_AHEAD
        flight = round(self._latency / self._byte_seconds)
        return min(WINDOW_BYTES, 3 * size + flight), min(READ_AHEAD, 3 * reply + flight)

    def _transmit(self, request: _Request) -> None:
        self._stamp += 1
        request.stamp = self._stamp
        request.sent += 1
        if request.sent > 1:
            self.statistics.repeated += 1
        self.statistics.bytes_sent += len(request.frame)
        try:
            self._port.write(request.frame)
        except LinkError:
            self._drop_all()
            raise
        self._quiet_since = request.when = self._clock()

    def _await(self, done: Callable[[], bool]) -> None:
        """Receive until something is so."""
        self._progress = self._clock()
        while not done():
            self._receive()

    def _receive(self) -> None:
        """Take what has come; send again what is lost."""
        try:
            data = self._port.read()
        except LinkError:
            self._drop_all()
            raise
        self._unknown += len(data)
        self.statistics.bytes_received += len(data)
        before = self._frames.dropped
        for content in self._frames.feed(data):
            self._take(content)
        self.statistics.damaged += self._frames.dropped - before
        if self._unanswered:
            self._watch(idle=not data)

    def _watch(self, *, idle: bool) -> None:
        """Send everything again if the answer is late; raise if it does not come at all."""
        now = self._clock()
        line = self._byte_seconds * (self._window + self._replies)
        patience = min(self._patience, self._patience / JITTER + 4 * self._latency)
        late = (patience + line) * min(1 << self._late, BACK_OFF)
        # A host that was stopped for a while tries again, too.
        if now - self._progress > self._give_up + line and (self._late >= TRIES or not idle):
            self._lose()
        if not idle or now - self._quiet_since < late:
            return
        self._late += 1
        self.statistics.timeouts += 1
        oldest = next(iter(self._unanswered.values()))
        self._tell(oldest, lost=True)
        for request in list(self._unanswered.values()):
            self._transmit(request)

    def _take(self, content: bytes) -> None:
        """Take a frame from the board."""
        if len(content) < _REPLY.size:
            self._strange += 1
            return
        sequence, reply, length = _REPLY.unpack_from(content)
        data = content[_REPLY.size :]
        if len(data) != length:
            self._strange += 1
        elif reply == Reply.RESEND.value:
            self._go_back(sequence)
        elif sequence in self._unanswered:
            self._answered(self._unanswered[sequence], reply, data)

    def _answered(self, request: _Request, reply: int, data: bytes) -> None:
        expected = request.reply_bytes if reply == Reply.OK.value else 0
        if len(data) != expected or reply not in (Reply.OK.value, *_REFUSED):
            self._strange += 1
            return
        del self._unanswered[request.sequence]
        self._window -= request.size
        self._replies -= request.reply_bytes
        self._late = self._strange = self._unknown = 0
        self._progress = self._quiet_since = self._clock()
        if reply == Reply.OK.value:
            if request.sink is not None:
                request.sink[:] = data
        elif not self._refusal:
            self._refusal = (
                f"the board refused {request.op.name} of {request.length} bytes at "
                f"{request.address:#x}: {_REFUSED[reply]}"
            )
        if request.sent == 1:
            self._tell(request, lost=False)
            if request.alone:
                self._latency = min(self._latency, self._progress - request.when)
        # Answers come in the order of requests: those that were sent before this one are lost.
        for earlier in [r for r in self._unanswered.values() if r.stamp < request.stamp]:
            self._tell(earlier, lost=True)
            self._transmit(earlier)

    def _go_back(self, sequence: int) -> None:
        """The board misses a request: send it again, and those after it, and unanswered ones."""
        if sequence not in self._unanswered:
            # An old one that was late; or the board has begun anew, and will say nothing else.
            self._strange += 1
            return
        self.statistics.resends += 1
        self._tell(self._unanswered[sequence], lost=True)
        for request in list(self._unanswered.values()):
            self._transmit(request)

    def _tell(self, request: _Request, *, lost: bool) -> None:
        if request.op in self._sizes:
            self._sizes[request.op].tell(lost=lost)

    def _lose(self) -> None:
        strange, unknown = self._strange, self._unknown
        silent = f"the board has not answered for {self._give_up:.3g} s"
        self._drop_all()
        if strange:
            raise LinkError(
                f"{silent}, and speaks of other requests: it was reset or loaded again, or another "
                "program uses the port; next: run the command again, with nothing else on the port"
            )
        if unknown:
            raise LinkError(
                f"{silent}, though {unknown} bytes came: the line is noisy, its speed is wrong, or "
                "this is no card; next: check the port, the bitstream and the cable"
            )
        raise LinkError(
            f"{silent}; next: check that the port is the board's, that the bitstream is loaded, "
            "and the cable"
        )

    def _drop_all(self) -> None:
        self._unanswered.clear()
        self._greeted = False
        self._window = self._replies = self._late = self._strange = self._unknown = 0
        self._refusal = ""
