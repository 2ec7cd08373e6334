"""Frames of the host's link: bytes in, checked contents out (`rtl.isa.link` has the rules)."""

import zlib

from ...rtl.isa.link import ESCAPE, ESCAPE_XOR, FLAG, MAX_DATA

__all__ = ["CHECK_BYTES", "HEADER_BYTES", "FrameReader", "encode_frame"]

HEADER_BYTES = 8
"""Bytes of the longer of the two headers."""

CHECK_BYTES = 4

LONGEST = 2 * (HEADER_BYTES + MAX_DATA + CHECK_BYTES)
"""Bytes between two flags, if all of them are escaped."""

_FLAG, _ESCAPE = bytes([FLAG]), bytes([ESCAPE])
_ESCAPED_FLAG = bytes([ESCAPE, FLAG ^ ESCAPE_XOR])
_ESCAPED_ESCAPE = bytes([ESCAPE, ESCAPE ^ ESCAPE_XOR])


def encode_frame(content: bytes) -> bytes:
    """Return the bytes on the line for a content: flags, escapes and check sequence included."""
    checked = content + zlib.crc32(content).to_bytes(CHECK_BYTES, "little")
    escaped = checked.replace(_ESCAPE, _ESCAPED_ESCAPE).replace(_FLAG, _ESCAPED_FLAG)
    return _FLAG + escaped + _FLAG


class FrameReader:
    """Finds frames in the bytes of a line.

    Members
    -------
    dropped : int
        Frames with a wrong check sequence or length so far.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._begun = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes as they come; return the contents of the frames that they complete."""
        *whole, self._begun = (self._begun + data).split(_FLAG)
        if len(self._begun) > LONGEST:
            # A line without flags must not fill the memory; what is kept is too long for a frame.
            self._begun = self._begun[: LONGEST + 1]
        contents = []
        for escaped in whole:
            if not escaped:
                continue  # two flags in a row
            content = _decode(escaped)
            if content is None:
                self.dropped += 1
            else:
                contents.append(content)
        return contents


def _decode(escaped: bytes) -> bytes | None:
    """Return the content of a frame, None if it is damaged."""
    if len(escaped) > LONGEST:
        return None
    first, *rest = escaped.split(_ESCAPE)
    if not all(rest):
        return None  # an escape with nothing to escape
    checked = first + b"".join(bytes([part[0] ^ ESCAPE_XOR]) + part[1:] for part in rest)
    content, check = checked[:-CHECK_BYTES], checked[-CHECK_BYTES:]
    if not content or zlib.crc32(content).to_bytes(CHECK_BYTES, "little") != check:
        return None
    return content
