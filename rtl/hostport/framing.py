"""Frames of RFC 1662 with FCS-32, taken out of a stream of bytes and put into one."""

from collections.abc import Iterable

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..isa.link import ESCAPE, ESCAPE_XOR, FLAG

__all__ = ["FCS_BYTES", "Deframer", "Framer", "item_layout"]

FCS_BYTES = 4

_POLYNOMIAL = 0xEDB88320  # of CRC-32, lowest bit first
_CRC_INIT = 0xFFFFFFFF
_CRC_GOOD = 0xDEBB20E3
"""What is left behind content and check sequence, if they fit."""


def _bit_table() -> tuple[int, ...]:
    """Return what each bit of a byte does to the CRC after eight steps."""
    table = []
    for bit in range(8):
        crc = 1 << bit
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


def _crc_step(crc: Value, mixed: Value) -> Value:
    """Return the CRC a byte later; ``mixed`` is that byte exclusive-or the CRC's lowest one."""
    table = _bit_table()
    shifted = crc >> 8

    def parity(bits: Iterable[Value]) -> Value:
        result: Value = Const(0, 1)
        for bit in bits:
            result = result ^ bit
        return result

    return Cat(
        shifted[n] ^ parity(mixed[bit] for bit in range(8) if table[bit] >> n & 1)
        for n in range(32)
    )


class Deframer(wiring.Component):
    """Takes frames out of bytes, and checks them.

    What lies between two flags is a frame, unless there is nothing; what comes before the first
    flag is one, too. A frame that ends behind an `ESCAPE` is not good.

    Members
    -------
    bytes : ``In(stream, always_ready)``
        Up to a byte a cycle.
    content : ``Out(stream, always_ready)``
        Bytes of a frame without its check sequence, before it is known whether it is good.
    end : ``Out(1)``
        A frame has ended. Never in a cycle with ``content``, and none of that follows of it.
    good : ``Out(1)``
        With ``end``: its check sequence is right.
    """

    def __init__(self) -> None:
        byte = stream.Signature(unsigned(8), always_ready=True)
        super().__init__({"bytes": In(byte), "content": Out(byte), "end": Out(1), "good": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arriving = self.bytes.payload

        # First stage: undo the escapes.
        byte, valid, ended = Signal(8, reset_less=True), Signal(), Signal()
        escaped, started, aborted = Signal(), Signal(), Signal(reset_less=True)
        m.d.sync += [valid.eq(0), ended.eq(0)]
        with m.If(self.bytes.valid):
            with m.If(arriving == FLAG):
                m.d.sync += [ended.eq(started), aborted.eq(escaped)]
                m.d.sync += [escaped.eq(0), started.eq(0)]
            with m.Else():
                escape = Signal()
                m.d.comb += escape.eq((arriving == ESCAPE) & ~escaped)
                m.d.sync += [started.eq(1), escaped.eq(escape), valid.eq(~escape)]
            m.d.sync += byte.eq(arriving ^ Mux(escaped, ESCAPE_XOR, 0))

        # Second stage: check, and keep back the last bytes, which are the check sequence.
        crc = Signal(32, init=_CRC_INIT)
        kept = Signal(8 * FCS_BYTES, reset_less=True)
        held = Signal(FCS_BYTES)
        with m.If(ended):
            m.d.sync += [crc.eq(crc.init), held.eq(0)]
        with m.Elif(valid):
            m.d.sync += [
                crc.eq(_crc_step(crc, crc[:8] ^ byte)),
                kept.eq(Cat(kept[8:], byte)),
                held.eq(Cat(1, held)),
            ]
        m.d.comb += [
            self.content.payload.eq(kept[:8]),
            self.content.valid.eq(valid & held[-1]),
            self.end.eq(ended),
            self.good.eq((crc == _CRC_GOOD) & ~aborted),
        ]
        return m


def item_layout() -> data.StructLayout:
    """Layout of what a `Framer` takes: a byte, or the end of a frame."""
    return data.StructLayout({"byte": unsigned(8), "end": unsigned(1)})


class Framer(wiring.Component):
    """Makes frames.

    Members
    -------
    items : ``In(stream)``
        The bytes of a frame, then an item with ``end``, whose byte is ignored. The flag before the
        frame goes out when its first byte is there, and the next byte is taken as soon as the one
        before has gone to ``bytes``.
    bytes : ``Out(stream)``
        Up to a byte in three cycles.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "items": In(stream.Signature(item_layout())),
                "bytes": Out(stream.Signature(unsigned(8))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        item = self.items.payload
        crc = Signal(32, init=_CRC_INIT)
        count = Signal(range(FCS_BYTES))
        escaped = Signal()

        checking = Signal()
        byte, go, ready = Signal(8), Signal(), Signal()
        special = Signal(reset_less=True)  # the byte was looked at, and needs an escape
        looks, looked = Signal(), Signal()
        m.d.comb += [
            go.eq(~self.bytes.valid),
            byte.eq(Mux(checking, ~crc[:8], item.byte)),
            ready.eq(go & looked),
        ]
        m.d.sync += [special.eq((byte == FLAG) | (byte == ESCAPE)), looked.eq(looks & ~ready)]
        done = Signal()  # the byte goes out, not an escape before it
        # The item is done with. It is taken a cycle later, in which no other is looked at: there
        # is a byte to send, or the check sequence begins.
        passed = Signal()
        m.d.sync += self.items.ready.eq(passed)

        def send(value: Value | int) -> None:
            m.d.sync += [self.bytes.payload.eq(value), self.bytes.valid.eq(1)]

        def send_byte() -> None:
            m.d.comb += done.eq(~special | escaped)
            m.d.sync += escaped.eq(~done)
            send(Mux(done, byte ^ Mux(escaped, ESCAPE_XOR, 0), ESCAPE))

        with m.If(self.bytes.ready):
            m.d.sync += self.bytes.valid.eq(0)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += crc.eq(crc.init)
                with m.If(go & self.items.valid):
                    send(FLAG)
                    m.next = "BODY"
            with m.State("BODY"):
                with m.If(go & self.items.valid):
                    with m.If(item.end):
                        m.d.comb += passed.eq(1)
                        m.next = "CHECK"
                    with m.Else():
                        m.d.comb += looks.eq(1)
                with m.If(ready):
                    send_byte()
                    m.d.comb += passed.eq(done)
            with m.State("CHECK"):
                m.d.comb += [checking.eq(1), looks.eq(go)]
                with m.If(ready):
                    send_byte()
                    with m.If(done):
                        m.d.sync += count.eq(count + 1)
                        with m.If(count == FCS_BYTES - 1):
                            m.next = "CLOSE"
            with m.State("CLOSE"), m.If(go):
                send(FLAG)
                m.next = "IDLE"
        # A cycle later, which is in time; the check sequence leaves by shifting alone.
        mixed, step = Signal(8, reset_less=True), Signal()
        m.d.sync += [step.eq(done), mixed.eq(Mux(checking, 0, crc[:8] ^ item.byte))]
        with m.If(step):
            m.d.sync += crc.eq(_crc_step(crc, mixed))
        return m
