"""What every bench needs: clock and reset, seeds, packing, streams with stalls, deadlines.

Timing. All inputs change just after the rising edge of the clock (`tick`), and everything is
sampled at its falling edge (`sample`), where inputs and what follows from them have settled: the
values there are those that the next rising edge acts on. A bench that keeps to this has no races,
whatever combinational paths the design has. The streams here keep to it.
"""

import collections
import enum
import json
import os
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

import cocotb
import numpy as np
from amaranth.hdl import Shape
from amaranth.lib import data
from cocotb.clock import Clock
from cocotb.handle import SimHandleBase
from cocotb.triggers import Event, FallingEdge, RisingEdge, SimTimeoutError, with_timeout

from ...rtl.config import CardConfig
from ...rtl.config import preset as named_preset

__all__ = [
    "CLOCK_NS",
    "StreamSink",
    "StreamSource",
    "bench_config",
    "pack",
    "rng",
    "sample",
    "start",
    "tick",
    "unpack",
    "within",
]

CLOCK_NS = 10
"""Period of the clock."""

T = TypeVar("T")


def bench_config() -> CardConfig:
    """Return the configuration that `run_bench` was given as ``preset``."""
    text = os.environ.get("CARD_PRESET")
    if not text:
        raise RuntimeError("this bench needs a configuration: run_bench(..., preset=...)")
    return CardConfig(**json.loads(text)) if text.startswith("{") else named_preset(text)


def rng() -> np.random.Generator:
    """Return a generator seeded from this test's seed: equal for equal seeds, unlike per test."""
    return np.random.default_rng(cocotb.RANDOM_SEED)


async def start(dut: Any, *, reset_cycles: int = 2) -> None:
    """Start the clock, and reset the design if it has a reset. Ends at a `tick`."""
    Clock(dut.clk, CLOCK_NS, "ns").start()
    if _port(dut, "rst") is not None:
        dut.rst.value = 1
        for _ in range(reset_cycles):
            await RisingEdge(dut.clk)
        dut.rst.value = 0
    await RisingEdge(dut.clk)


async def tick(dut: Any, cycles: int = 1) -> None:
    """Wait for rising edges. After it, set inputs, and read nothing."""
    for _ in range(cycles):
        await RisingEdge(dut.clk)


async def sample(dut: Any) -> None:
    """Wait for the falling edge. After it, read what the next rising edge acts on; set nothing."""
    await FallingEdge(dut.clk)


async def within(cycles: int, awaitable: Awaitable[T], what: str) -> T:
    """Return what ``awaitable`` returns; fail if that takes more than ``cycles`` cycles.

    Parameters
    ----------
    cycles : int
    awaitable : awaitable
    what : str
        What is waited for; part of the message.
    """
    try:
        return await with_timeout(awaitable, cycles * CLOCK_NS, "ns")
    except SimTimeoutError:
        raise AssertionError(f"{what}: not within {cycles} cycles") from None


def _pack(shape: Any, value: Any, where: str) -> int:
    if isinstance(shape, type) and issubclass(shape, data.Struct | data.Union):
        shape = data.Layout.cast(shape)
    if isinstance(shape, data.ArrayLayout):
        items = list(value)
        if len(items) != shape.length:
            raise ValueError(f"{where} takes {shape.length} items, not {len(items)!r}")
        fields: Mapping[Any, Any] = dict(enumerate(items))
    elif isinstance(shape, data.Layout) and isinstance(value, Mapping):
        fields = value
    else:
        return _pack_number(Shape.cast(shape), value, where)
    result = 0
    members = dict(shape)
    for name, item in fields.items():
        if name not in members:
            raise ValueError(f"{where or 'the layout'} has no field {name!r}")
        field = members[name]
        result |= _pack(field.shape, item, f"{where}.{name}") << field.offset
    return result


def _pack_number(shape: Shape, value: Any, where: str) -> int:
    number = int(value.value if isinstance(value, enum.Enum) else value)
    low = -(1 << shape.width >> 1) if shape.signed else 0
    if not low <= number < low + (1 << shape.width):
        raise ValueError(f"{where or 'value'} takes {shape!r}, not {number!r}")
    return number & ((1 << shape.width) - 1)


def pack(layout: Any, fields: Mapping[str, Any] | Sequence[Any] | None = None, **more: Any) -> int:
    """Return a value of an Amaranth layout as a number.

    Parameters
    ----------
    layout : Layout or Struct or Union class
    fields, **more
        Integers, enum members, and for nested layouts mappings or sequences (or their number).
        Fields that are absent are zero. One that does not fit raises `ValueError`.
    """
    if fields is not None and not isinstance(fields, Mapping):
        return _pack(data.Layout.cast(layout), fields, "")
    return _pack(data.Layout.cast(layout), {**(fields or {}), **more}, "")


def unpack(layout: Any, value: int) -> Any:
    """Return the fields of a number that has an Amaranth layout.

    Structures become dictionaries, arrays lists, all else integers, signed where the shape is;
    an enum field is an integer too.
    """
    if isinstance(layout, type) and issubclass(layout, data.Struct | data.Union):
        layout = data.Layout.cast(layout)
    shape = Shape.cast(layout)
    value &= (1 << shape.width) - 1
    if isinstance(layout, data.Layout):
        items = {name: unpack(field.shape, value >> field.offset) for name, field in layout}
        return list(items.values()) if isinstance(layout, data.ArrayLayout) else items
    if shape.signed and value >> (shape.width - 1):
        value -= 1 << shape.width
    return value


def _port(dut: Any, name: str) -> Any:
    """Return a port, or None where the design has none of that name."""
    try:
        handle = getattr(dut, name)
    except AttributeError:
        return None
    assert isinstance(handle, SimHandleBase)
    return handle


class _Stream:
    """What both ends of a stream share."""

    def __init__(self, dut: Any, name: str, stall: float, rng: np.random.Generator | None) -> None:
        if not 0 <= stall < 1:
            raise ValueError(f"stall must be from 0 to below 1, not {stall!r}")
        self.name = name
        self.stall = stall
        self._clk = dut.clk
        self._rng = rng if rng is not None else np.random.default_rng(cocotb.RANDOM_SEED)
        self._payload = _port(dut, f"{name}__payload")
        self._valid = _port(dut, f"{name}__valid")
        self._ready = _port(dut, f"{name}__ready")
        if self._payload is None and self._valid is None:
            raise ValueError(f"the design has no stream called {name!r}")

    def _go(self) -> bool:
        """Draw whether to go on in this cycle."""
        return not self.stall or bool(self._rng.random() >= self.stall)


class StreamSource(_Stream):
    """Sends payloads into an input stream of the design, in order.

    A payload is offered until it is accepted; between payloads the payload port carries noise.
    Create it after `start`.

    Parameters
    ----------
    dut
    name : str
        Path of the stream's port, joined with double underscores.
    stall : float
        Probability of a pause in each cycle between payloads. May be changed at any time.
    rng : numpy.random.Generator, optional
        Default: one from the test's seed.
    """

    def __init__(
        self, dut: Any, name: str, *, stall: float = 0.0, rng: np.random.Generator | None = None
    ) -> None:
        super().__init__(dut, name, stall, rng)
        self._queue: collections.deque[tuple[int, Event]] = collections.deque()
        self.sent = 0
        self._offered = False
        if self._valid is not None:
            self._valid.value = 0
        self._task = cocotb.start_soon(self._run())

    @property
    def idle(self) -> bool:
        """Whether all that was put has been accepted."""
        return not self._queue

    def put(self, payload: int) -> Event:
        """Queue a payload, and return the event of its being accepted."""
        event = Event()
        self._queue.append((int(payload), event))
        return event

    async def send(self, payload: int) -> None:
        """Send a payload, and wait until it is accepted. Ends at a `tick`."""
        await self.put(payload).wait()

    async def drain(self) -> None:
        """Wait until all that was put is accepted."""
        if self._queue:
            await self._queue[-1][1].wait()

    def _noise(self) -> None:
        if self._payload is not None:
            width = len(self._payload)
            value = int.from_bytes(self._rng.bytes((width + 7) // 8), "little")
            self._payload.value = value & ((1 << width) - 1)

    async def _run(self) -> None:
        while True:
            if self._queue and not self._offered and self._go():
                self._offered = True
                if self._payload is not None:
                    self._payload.value = self._queue[0][0]
                if self._valid is not None:
                    self._valid.value = 1
            await FallingEdge(self._clk)
            taken = self._offered and (self._ready is None or int(self._ready.value) == 1)
            await RisingEdge(self._clk)
            if taken:
                self._offered = False
                self.sent += 1
                if self._valid is not None:
                    self._valid.value = 0
                self._noise()
                self._queue.popleft()[1].set()


class StreamSink(_Stream):
    """Takes payloads from an output stream of the design, and checks the stream's contract.

    The contract: what is valid and not taken stays valid and keeps its payload. Create it after
    `start`.

    Parameters
    ----------
    dut
    name : str
        Path of the stream's port, joined with double underscores.
    stall : float
        Probability, in each cycle, of not being ready. May be changed at any time; of no effect on
        a stream that is always ready.
    rng : numpy.random.Generator, optional
        Default: one from the test's seed.

    Attributes
    ----------
    items : list of int
        Payloads taken so far, without those that `get` has returned.
    received : int
        How many were taken in all.
    """

    def __init__(
        self, dut: Any, name: str, *, stall: float = 0.0, rng: np.random.Generator | None = None
    ) -> None:
        super().__init__(dut, name, stall, rng)
        self.items: list[int] = []
        self.received = 0
        self._arrival = Event()
        if self._ready is not None:
            self._ready.value = 0
        self._task = cocotb.start_soon(self._run())

    async def get(self) -> int:
        """Return and remove the oldest payload, waiting for it if needed."""
        await self.wait(1)
        return self.items.pop(0)

    async def take(self, count: int) -> list[int]:
        """Return and remove the oldest ``count`` payloads, waiting for them if needed."""
        await self.wait(count)
        result, self.items = self.items[:count], self.items[count:]
        return result

    async def wait(self, count: int) -> None:
        """Wait until there are ``count`` payloads in `items`."""
        while len(self.items) < count:
            self._arrival.clear()
            await self._arrival.wait()

    async def _run(self) -> None:
        kept: int | None = None
        while True:
            go = True
            if self._ready is not None:
                go = self._go()
                self._ready.value = int(go)
            await FallingEdge(self._clk)
            valid = self._valid is None or int(self._valid.value) == 1
            payload = int(self._payload.value) if valid and self._payload is not None else 0
            if kept is not None:
                assert valid, f"{self.name}: valid fell before the transfer"
                assert payload == kept, (
                    f"{self.name}: payload changed before the transfer, {kept:#x} to {payload:#x}"
                )
            kept = payload if valid and not go else None
            await RisingEdge(self._clk)
            if valid and go:
                self.items.append(payload)
                self.received += 1
                self._arrival.set()
