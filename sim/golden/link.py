"""The serial link between host and board: framing, and the board's side of the protocol.

Written from the description in ``docs/isa.md``; bytes in, bytes out, without time. Numbers are
little-endian.
"""

import dataclasses
from collections.abc import Callable

__all__ = [
    "BAD_ADDRESS",
    "BAD_REQUEST",
    "HELLO",
    "OK",
    "READ_CSR",
    "READ_MEMORY",
    "RESEND",
    "WINDOW_BYTES",
    "WRITE_CSR",
    "WRITE_MEMORY",
    "Board",
    "Deframer",
    "ReplyFrame",
    "check_sequence",
    "frame",
    "request",
]

FLAG = 0x7E
ESCAPE = 0x7D
ESCAPE_XOR = 0x20

VERSION = 1
MAX_DATA = 1024
WINDOW_BYTES = 4096
CSR_BYTES = 0x1000
HEADER_BYTES = 8

HELLO, READ_CSR, WRITE_CSR, READ_MEMORY, WRITE_MEMORY = range(5)
OK, RESEND, BAD_REQUEST, BAD_ADDRESS = range(4)


def check_sequence(content: bytes) -> bytes:
    """Return FCS-32 of ``content``: the division of RFC 1662, bit by bit."""
    register = 0xFFFFFFFF
    for byte in content:
        for bit in range(8):
            carry = (register ^ byte >> bit) & 1
            register = register >> 1 ^ carry * 0xEDB88320
    return (register ^ 0xFFFFFFFF).to_bytes(4, "little")


def frame(content: bytes) -> bytes:
    """Return ``content`` as a frame, with a flag on both sides."""
    line = bytearray([FLAG])
    for byte in content + check_sequence(content):
        line += bytes([ESCAPE, byte ^ ESCAPE_XOR]) if byte in (FLAG, ESCAPE) else bytes([byte])
    line.append(FLAG)
    return bytes(line)


def request(sequence: int, op: int, address: int = 0, length: int = 0, data: bytes = b"") -> bytes:
    """Return the content of a request. ``length`` need not be that of ``data``."""
    header = bytes([sequence & 0xFF, op]) + length.to_bytes(2, "little")
    return header + address.to_bytes(4, "little") + data


@dataclasses.dataclass(frozen=True)
class ReplyFrame:
    """A reply, taken apart. Raises ValueError where its length is not what it says."""

    sequence: int
    reply: int
    data: bytes

    @classmethod
    def parse(cls, content: bytes) -> "ReplyFrame":
        """Take the content of a frame apart."""
        if len(content) < 4 or int.from_bytes(content[2:4], "little") != len(content) - 4:
            raise ValueError(f"a reply must be as long as it says, not {content[:4]!r}...")
        return cls(content[0], content[1], content[4:])


class Deframer:
    """Takes frames out of bytes.

    What lies between two flags is a frame, unless there is nothing.

    Parameters
    ----------
    shortest, longest : int
        Bytes of content that a good frame has.

    Attributes
    ----------
    dropped : int
        Frames with a wrong check sequence or length, or that ended behind an escape.
    """

    def __init__(self, *, shortest: int = 0, longest: int = 1 << 32) -> None:
        self.shortest = shortest
        self.longest = longest
        self.dropped = 0
        self._line = bytearray()

    def receive(self, line: bytes) -> list[bytes]:
        """Take further bytes; return the contents of the good frames that they end."""
        frames = []
        for byte in line:
            if byte != FLAG:
                self._line.append(byte)
                continue
            if self._line:
                content = self._content(bytes(self._line))
                if content is None:
                    self.dropped += 1
                else:
                    frames.append(content)
            self._line.clear()
        return frames

    def _content(self, line: bytes) -> bytes | None:
        plain = bytearray()
        escaped = False
        for byte in line:
            if byte == ESCAPE and not escaped:
                escaped = True
                continue
            plain.append(byte ^ ESCAPE_XOR if escaped else byte)
            escaped = False
        content, fcs = bytes(plain[:-4]), bytes(plain[-4:])
        if escaped or not self.shortest <= len(content) <= self.longest:
            return None
        return content if fcs == check_sequence(content) else None


class Board:
    """A board behind the line, which carries a frame out before the next one arrives.

    Parameters
    ----------
    memory_bytes : int
    read_csr : callable
        From address to value. Default: registers that keep what is written.
    write_csr : callable
        Takes address and value.

    Attributes
    ----------
    memory : bytearray
    dropped : int
    expected : int
        Sequence of the next request.
    """

    def __init__(
        self,
        memory_bytes: int,
        *,
        read_csr: Callable[[int], int] | None = None,
        write_csr: Callable[[int, int], None] | None = None,
    ) -> None:
        self.memory = bytearray(memory_bytes)
        registers: dict[int, int] = {}
        self._read_csr = read_csr or (lambda address: registers.get(address, 0))
        self._write_csr = write_csr or registers.__setitem__
        self._deframer = Deframer(shortest=HEADER_BYTES, longest=HEADER_BYTES + MAX_DATA)
        self.expected = 0
        self._ahead: int | None = None

    @property
    def dropped(self) -> int:
        """Frames dropped so far."""
        return self._deframer.dropped

    def receive(self, line: bytes) -> bytes:
        """Take further bytes; return those of the replies."""
        replies = (self.carry_out(content) for content in self._deframer.receive(line))
        return b"".join(frame(reply) for reply in replies if reply is not None)

    def carry_out(self, content: bytes) -> bytes | None:
        """Carry out a request, and return the reply's content, if there is one."""
        sequence, op = content[0], content[1]
        length = int.from_bytes(content[2:4], "little")
        address = int.from_bytes(content[4:8], "little")
        data = content[8:]
        distance = (sequence - self.expected) % 256
        fits = op == HELLO or distance == 0
        if not fits and distance <= 128:
            going_on = self._ahead is not None and distance > self._ahead
            self._ahead = distance
            return None if going_on else bytes([self.expected, RESEND, 0, 0])
        self._ahead = None
        if fits:
            self.expected = (sequence + 1) % 256
        reply = self._check(op, length, address, len(data))
        result = b""
        if reply == OK:
            result = self._run(op, length, address, data, write=fits)
        return bytes([sequence, reply]) + len(result).to_bytes(2, "little") + result

    def _check(self, op: int, length: int, address: int, data_bytes: int) -> int:
        if op == HELLO:
            return OK
        registers = op in (READ_CSR, WRITE_CSR)
        if op > WRITE_MEMORY or not 1 <= length <= MAX_DATA:
            return BAD_REQUEST
        if registers and (address % 4 or length % 4):
            return BAD_REQUEST
        if op in (WRITE_CSR, WRITE_MEMORY) and data_bytes != length:
            return BAD_REQUEST
        if address + length > (CSR_BYTES if registers else len(self.memory)):
            return BAD_ADDRESS
        return OK

    def _run(self, op: int, length: int, address: int, data: bytes, *, write: bool) -> bytes:
        words = range(0, length, 4)
        if op == HELLO:
            return bytes([VERSION, 0, 0, 0])
        if op == READ_MEMORY:
            return bytes(self.memory[address : address + length])
        if op == READ_CSR:
            return b"".join(self._read_csr(address + at).to_bytes(4, "little") for at in words)
        if write and op == WRITE_MEMORY:
            self.memory[address : address + length] = data
        elif write:
            for at in words:
                self._write_csr(address + at, int.from_bytes(data[at : at + 4], "little"))
        return b""
