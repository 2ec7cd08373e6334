"""The queue of a controller's bursts, and what its three places read of it."""

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory

from ..tech import KEEP

__all__ = ["Bursts"]


class Bursts:
    """Takes bursts of ``request`` into a queue of ``depth``, a power of two, in ``m``.

    A place that is free may be written at any time.

    Attributes
    ----------
    done : Signal
        Set it when the oldest burst leaves.
    """

    def __init__(self, m: Module, depth: int, request: stream.Interface) -> None:
        self._m = m
        index_bits = (depth - 1).bit_length()
        self.done = Signal(name="burst_done")
        m.submodules.queue = self._queue = Memory(shape=request.p.shape(), depth=depth, init=[])
        write = self._queue.write_port()
        self._tail = tail = Signal(index_bits + 1, name="tail")
        held = Signal(index_bits + 1, name="held")
        put = Signal(name="put")
        comes = Signal(name="comes")  # one more is here than is held: taken late, a cycle before
        m.d.comb += [
            request.ready.eq(~(held[-1] | (held[:-1].all() & comes))),
            put.eq(request.valid & request.ready),
            write.addr.eq(tail),
            write.data.eq(request.payload),
            write.en.eq(request.ready),
        ]
        # Without an enable: whether a burst comes is known late.
        less = self.done & ~comes
        m.d.sync += [
            tail.eq(tail + put),
            comes.eq(put),
            held.eq(held + Cat(comes ^ self.done, less.replicate(index_bits))),
        ]

    def at(self, number: Value, name: str) -> tuple[Value, data.View]:
        """Return whether the burst of that number, which counts on beyond the depth, is here, and
        the burst."""
        port = self._queue.read_port(domain="comb")
        # Compared by twos of bits: synthesis would make a chain.
        different = number[: len(self._tail)] ^ self._tail
        parts = range(0, len(different), 2)
        differs = Signal(len(parts), name=f"{name}_differs", attrs=KEEP)
        self._m.d.comb += [
            port.addr.eq(number[: len(self._tail) - 1]),
            differs.eq(Cat(different[low : low + 2].any() for low in parts)),
        ]
        return differs.any(), port.data
