"""A memory for the shell that is ready when it likes, in RTL."""

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from deepseek.rtl.memory.held import access_layout


class SlowMemory(wiring.Component):
    """Takes an access in a third of the cycles, as a generator of random bits has it, and answers
    ``latency`` cycles later."""

    def __init__(self, config, *, latency, seed):
        self.config = config
        self._latency, self._seed = latency, seed
        super().__init__(
            {
                "request": In(stream.Signature(access_layout(config))),
                "read": Out(stream.Signature(unsigned(8 * config.bus_bytes), always_ready=True)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        request, read = self.request, self.read
        nbytes = self.config.bus_bytes
        m.submodules.words = words = Memory(
            shape=unsigned(8 * nbytes), depth=self.config.memory_bytes // nbytes, init=[]
        )
        writer, reader = words.write_port(granularity=8), words.read_port()
        noise = Signal(31, init=self._seed)  # x^31 + x^28 + 1
        taken = request.valid & request.ready
        m.d.sync += noise.eq(Cat(noise[27] ^ noise[30], noise))
        m.d.comb += [
            request.ready.eq((noise[:4] & noise[20:24]) == 0),
            writer.addr.eq(request.payload.address),
            writer.data.eq(request.payload.data),
            writer.en.eq((taken & request.payload.write).replicate(nbytes) & request.payload.mask),
            reader.addr.eq(request.payload.address),
            reader.en.eq(1),
        ]
        valid, data = taken & ~request.payload.write, reader.data
        for i in range(self._latency):
            late = Signal(name=f"valid_{i}")
            m.d.sync += late.eq(valid)
            valid = late
            if i:
                word = Signal.like(reader.data, name=f"data_{i}")
                m.d.sync += word.eq(data)
                data = word
        m.d.comb += [read.valid.eq(valid), read.payload.eq(data)]
        return m
