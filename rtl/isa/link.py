"""The framed byte protocol between host and board, as spoken over a serial line.

Frames are those of RFC 1662 ("PPP in HDLC-like framing"): `FLAG` before and after each (one flag
may do for both), `ESCAPE` and the byte exclusive-or `ESCAPE_XOR` for a byte that is one of the two,
and behind the content its check sequence, FCS-32: CRC-32 as in zlib, lowest byte first. What has a
wrong check sequence, is too short or too long, or ends behind an `ESCAPE`, is dropped without a
word.

The host asks, the board answers, in order. A request is a `RequestHeader`, then data if it writes;
a reply is a `ReplyHeader`, then data if that was asked for. Addresses and lengths count bytes.

The board carries out a request whose `sequence` is the next one (modulo 256), and answers one that
it has carried out already (up to 127 back) again: a read is read again, a write is not written
again. Of anything else it answers `Reply.RESEND` with the sequence that it expects, and then says
nothing to requests that are further and further ahead: they were on their way. So the host may send
on without waiting, and goes back to the first request without an answer after `RESEND` or a
time-out. It must not let a write follow a read that is not answered yet, nor have more than
`WINDOW_BYTES` of unanswered requests on their way, framing not counted: the line has no flow
control.
"""

from amaranth.hdl import unsigned
from amaranth.lib import data, enum

from .registers import Csr

__all__ = [
    "CSR_BYTES",
    "ESCAPE",
    "ESCAPE_XOR",
    "FLAG",
    "LINK_VERSION",
    "MAX_DATA",
    "SHELL_BASE",
    "WINDOW_BYTES",
    "CaptureControl",
    "LinkOp",
    "Reply",
    "ReplyHeader",
    "RequestHeader",
    "ShellCsr",
]

FLAG = 0x7E
ESCAPE = 0x7D
ESCAPE_XOR = 0x20

LINK_VERSION = 1

MAX_DATA = 1024
"""Most bytes of data in a frame."""

WINDOW_BYTES = 4096
"""What the board keeps of requests that wait, headers and data together."""

SHELL_BASE = 0x100
"""Registers from here on are the shell's (`ShellCsr`); those below are the card's (`Csr`)."""

CSR_BYTES = 0x1000
"""Space of the registers: what lies in it and is none reads as 0."""

assert max(Csr) < SHELL_BASE


class LinkOp(enum.Enum, shape=unsigned(8)):
    """What a request asks for."""

    HELLO = 0
    """Begin anew: whatever sequence this has, the next one follows it. Answers 4 bytes:
    LINK_VERSION, then zeros. Resets nothing else. Its length and address do not matter."""
    READ_CSR = 1
    """Read ``length`` / 4 registers from ``address`` on; both are multiples of 4."""
    WRITE_CSR = 2
    """Write registers in the same way, one after the other."""
    READ_MEMORY = 3
    WRITE_MEMORY = 4


class Reply(enum.Enum, shape=unsigned(8)):
    """How a request ended."""

    OK = 0
    RESEND = 1
    """A request is missing: ``sequence`` is the one that is expected. Without data."""
    BAD_REQUEST = 2
    """No such operation, a length of zero or above MAX_DATA, registers that are not whole, or a
    write whose data are not as long as it says (data behind other requests are ignored). Nothing
    was done; the sequence goes on."""
    BAD_ADDRESS = 3
    """Outside of card memory or of the registers. Nothing was done; the sequence goes on."""


class RequestHeader(data.Struct):
    """First 8 bytes of a request."""

    sequence: unsigned(8)
    op: LinkOp
    length: unsigned(16)
    """Bytes of data, to be read or written."""
    address: unsigned(32)


class ReplyHeader(data.Struct):
    """First 4 bytes of a reply."""

    sequence: unsigned(8)
    """Of the request."""
    reply: Reply
    length: unsigned(16)
    """Bytes of data behind the header: none unless a read was OK."""


class ShellCsr(enum.IntEnum):
    """Registers of what is around the card on a board: 32 bits at these byte addresses."""

    CLOCK_HZ = 0x100
    """Frequency of the card's clock."""
    CYCLES = 0x104
    """Cycles of the card since power-up, 64 bits: reading the low word holds the high one."""
    CYCLES_HIGH = 0x108
    FRAMES_DROPPED = 0x10C
    """Frames dropped since power-up, modulo 2^32: check sequence or length was wrong, or there was
    no room for more."""
    SHELL_STATE = 0x110
    """Bit 0: the card's interrupt line."""

    CAPTURE_CONTROL = 0x140
    """Write: `CaptureControl`. Read: bit 0, a capture runs; bit 1, the newest one has triggered."""
    CAPTURE_DEPTH = 0x144
    """Samples that are kept, a power of two."""
    CAPTURE_AFTER = 0x148
    """Samples to store after the trigger; fewer than CAPTURE_DEPTH."""
    CAPTURE_MASK = 0x14C
    """The trigger: `Probe` and this mask, 64 bits, are equal to CAPTURE_VALUE."""
    CAPTURE_MASK_HIGH = 0x150
    CAPTURE_VALUE = 0x154
    CAPTURE_VALUE_HIGH = 0x158
    CAPTURE_COUNT = 0x15C
    """Samples held, the oldest one at index CAPTURE_FIRST; indices count modulo CAPTURE_DEPTH."""
    CAPTURE_FIRST = 0x160
    CAPTURE_TRIGGER = 0x164
    """Index of the sample that triggered."""
    CAPTURE_INDEX = 0x168
    """Which sample the next three registers show, from three cycles after the write on."""
    CAPTURE_DATA = 0x16C
    """The `Probe`, 64 bits."""
    CAPTURE_DATA_HIGH = 0x170
    CAPTURE_AGE = 0x174
    """Cycles since the sample before; 0 of the one with which the capture began."""


class CaptureControl(enum.IntFlag, shape=unsigned(3)):
    """What a write to `ShellCsr.CAPTURE_CONTROL` does."""

    ARM = 1
    """Forget all samples and start."""
    TRIGGER = 2
    """Trigger in any case."""
    STOP = 4
