"""A small component with every kind of port that a bench meets, and a bench for it.

They check the runner and the bench library themselves; the component can be built with faults that
the bench has to find.
"""

from typing import Any

import cocotb
from amaranth.hdl import Module, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .lib import StreamSink, StreamSource, bench_config, pack, rng, start, unpack, within

__all__ = ["ITEM", "Toy", "noisy_traffic", "smooth_traffic", "waiting_ends"]


ITEM = data.StructLayout({"tag": unsigned(5), "terms": data.ArrayLayout(signed(20), 4)})
"""What `Toy` takes."""


class Toy(wiring.Component):
    """Sums the terms of each item and adds two offsets.

    Parameters
    ----------
    fault : str, optional
        ``"drop"`` loses an item in eight, ``"change"`` alters a sum that is not taken at once,
        ``"hang"`` accepts nothing.

    Members
    -------
    request : ``In(stream of ITEM)``
    sums : ``Out(stream of signed(24))``
        One cycle after the request.
    tags : ``Out(stream of unsigned(5), always ready)``
        With the sum's first cycle.
    offset : ``In(signed(8)).array(2)``
    """

    def __init__(self, *, fault: str = "") -> None:
        self.fault = fault
        super().__init__(
            {
                "request": In(stream.Signature(ITEM)),
                "sums": Out(stream.Signature(signed(24))),
                "tags": Out(stream.Signature(unsigned(5), always_ready=True)),
                "offset": In(signed(8)).array(2),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        accept = self.request.valid & self.request.ready
        if self.fault != "hang":
            m.d.comb += self.request.ready.eq(~self.sums.valid | self.sums.ready)
        m.d.sync += self.tags.valid.eq(accept)
        m.d.sync += self.tags.payload.eq(self.request.payload.tag)
        with m.If(self.request.ready):
            m.d.sync += self.sums.valid.eq(self.request.valid)
        count = Signal(3)
        with m.If(accept):
            total = sum(iter(self.request.payload.terms), self.offset[0] + self.offset[1])
            m.d.sync += [self.sums.payload.eq(total), count.eq(count + 1)]
            if self.fault == "drop":
                with m.If(count == 7):
                    m.d.sync += self.sums.valid.eq(0)
        if self.fault == "change":
            with m.If(self.sums.valid & ~self.sums.ready):
                m.d.sync += self.sums.payload.eq(self.sums.payload + 1)
        return m


async def _traffic(dut: Any, stall: float, cycles: int) -> None:
    await start(dut)
    r = rng()
    source = StreamSource(dut, "request", stall=stall, rng=r)
    sums = StreamSink(dut, "sums", stall=stall, rng=r)
    tags = StreamSink(dut, "tags", rng=r)
    assert len({x.name for x in (source, sums, tags)}) == 3
    dut.offset__0.value, dut.offset__1.value = -5, 100
    count = 20 * bench_config().rows
    sent = []
    for _ in range(count):
        terms = r.integers(-(1 << 19), 1 << 19, 4).tolist()
        sent.append({"tag": int(r.integers(32)), "terms": terms})
        source.put(pack(ITEM, sent[-1]))
    assert source.sent == 0
    got = await within(cycles * count, sums.take(count), "all sums")
    assert [unpack(signed(24), value) for value in got] == [sum(x["terms"]) + 95 for x in sent]
    assert tags.items == [x["tag"] for x in sent]
    assert source.sent == sums.received == count
    assert source.idle


@cocotb.test()
async def noisy_traffic(dut: Any) -> None:
    """Sums and tags are right and in order, with pauses on both sides."""
    await _traffic(dut, 0.4, 10)


@cocotb.test()
async def smooth_traffic(dut: Any) -> None:
    """The same without pauses: nearly one item a cycle."""
    await _traffic(dut, 0.0, 2)


@cocotb.test()
async def waiting_ends(dut: Any) -> None:
    """`within` gives up, and `send` returns when the payload is accepted."""
    await start(dut)
    sums = StreamSink(dut, "sums")
    try:
        await within(20, sums.get(), "a sum that never comes")
    except AssertionError as error:
        assert str(error) == "a sum that never comes: not within 20 cycles"
    else:
        raise AssertionError("within did not give up")
    source = StreamSource(dut, "request")
    dut.offset__0.value = dut.offset__1.value = 0
    await within(20, source.send(pack(ITEM, terms=[1, 2, 3, -7])), "acceptance")
    assert unpack(signed(24), await within(20, sums.get(), "the sum")) == -1
