"""Bench of the register between two streams."""

from typing import Any

import cocotb

from .lib import StreamSink, StreamSource, rng, sample, start, tick, within

BITS = 23
COUNT = 300


@cocotb.test()
@cocotb.parametrize(stalls=[(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.4, 0.4), (0.0, 0.95)])
async def passes_everything(dut: Any, stalls: tuple[float, float]) -> None:
    """All items, in order, whatever waits."""
    r = rng()
    await start(dut)
    source = StreamSource(dut, "source", stall=stalls[0], rng=r)
    sink = StreamSink(dut, "target", stall=stalls[1], rng=r)
    items = r.integers(1 << BITS, size=COUNT).tolist()
    for item in items:
        source.put(item)
    assert await within(40 * COUNT, sink.take(COUNT), "items") == items
    assert source.idle and not sink.items


@cocotb.test()
async def an_item_a_cycle(dut: Any) -> None:
    """Also after the target has waited."""
    await start(dut)
    source, sink = StreamSource(dut, "source"), StreamSink(dut, "target")
    for wait in (0, 1, 2, 7):
        sink.stall = 1.0
        for item in range(COUNT):
            source.put(item)
        for _ in range(wait):
            await tick(dut)
        sink.stall = 0.0
        assert await within(COUNT + 4, sink.take(COUNT), "items") == list(range(COUNT))


@cocotb.test()
async def nothing_leads_through(dut: Any) -> None:
    """Neither of the sides sees in a cycle what the other one does in it."""
    r = rng()
    await start(dut)

    async def seen() -> tuple[int, ...]:
        await sample(dut)
        ports = (dut.source__ready, dut.target__valid, dut.target__payload)
        return tuple(int(port.value) for port in ports)

    for _ in range(100):
        dut.source__valid.value = int(r.integers(2))
        dut.target__ready.value = int(r.integers(2))
        await tick(dut)
        before = await seen()
        dut.source__valid.value = int(r.integers(2))
        dut.source__payload.value = int(r.integers(1 << BITS))
        dut.target__ready.value = int(r.integers(2))
        await cocotb.triggers.Timer(1, "ns")
        ports = (dut.source__ready, dut.target__valid, dut.target__payload)
        assert tuple(int(port.value) for port in ports) == before


@cocotb.test()
async def holds(dut: Any) -> None:
    """With ``hold`` nothing is taken, and all comes out in order without it."""
    r = rng()
    await start(dut)
    source = StreamSource(dut, "source", stall=0.2, rng=r)
    items = r.integers(1 << BITS, size=COUNT).tolist()
    for item in items:
        source.put(item)
    seen = []
    for _ in range(20 * COUNT):
        hold, ready = (int(bit) for bit in r.integers(2, size=2))
        dut.hold.value, dut.target__ready.value = hold, ready
        await sample(dut)
        if int(dut.target__valid.value) and ready and not hold:
            seen.append(int(dut.target__payload.value))
        await tick(dut)
    assert seen == items
