"""What surrounds a row engine in its bench: the scratchpad, the array and the epilogue lane."""

import cocotb
from cocotb.triggers import FallingEdge, RisingEdge

from ...rtl.array.ports import stream_layout, visit_layout
from ...rtl.array.row_engine import engine_start_layout
from ...rtl.config import RELEASE_WORDS
from ...rtl.core.ports import READ_LATENCY
from ...rtl.isa import BITS, INPUT_FORMATS, Format, MatmulBody, MatmulFlag, array_mode
from .lib import StreamSink, StreamSource, bench_config, pack, rng, start, tick, unpack, within
from .streams import Blob

__all__ = ["ArrayModel", "EngineBench", "FetchModel"]

PAIRS = [(s, x) for s in INPUT_FORMATS for x in INPUT_FORMATS if array_mode(s, x) is not None]

STATES = ("active", "stall_stream", "stall_fill", "stall_drain")


class FetchModel:
    """Answers fetches, in order, no sooner than ports and banks do."""

    def __init__(self, dut, r, stall):
        self.dut, self.r, self.stall = dut, r, stall
        self.memory = {}
        self.open = False  # every granule may be read

    async def run(self):
        dut, r = self.dut, self.r
        waiting = []
        now, was_due = 0, True
        while True:
            ready = int(not self.stall or r.random() >= self.stall)
            dut.fetch__ready.value = ready
            due = bool(waiting) and waiting[0][0] <= now
            if due or was_due:
                entry, value = waiting.pop(0)[1:] if due else (0, int(r.integers(1 << 62)))
                dut.fetch__entry_valid.value = int(due and entry)
                dut.fetch__granule_valid.value = int(due and not entry)
                dut.fetch__data.value = value
            was_due = due
            await FallingEdge(dut.clk)
            if ready and int(dut.fetch__valid.value):
                address = int(dut.fetch__address.value)
                assert self.open or address in self.memory, f"granule {address} is not its own"
                last = waiting[-1][0] if waiting else 0
                late = int(r.integers(7)) if r.random() < self.stall else 0
                when = max(now + 1 + READ_LATENCY, last + 1) + late
                waiting.append((when, int(dut.fetch__entry.value), self.memory.get(address, 0)))
            await RisingEdge(dut.clk)
            now += 1


class ArrayModel:
    """Fills the ring and takes what the engine issues.

    Checks that operands are in the ring when they are read, that words are handed back after their
    last use and after they have arrived, the credits and the distance of visits, and that at most
    one state is shown in a cycle. The fill never goes further than the words that were handed back
    allow. A ``position`` counts words of the ring from reset on.
    """

    def __init__(self, dut, config, r):
        self.dut, self.config, self.r = dut, config, r
        self.stall = 0.0
        self.lane_stall = 0.0  # of the lane's credits, if not as the rest
        layout = stream_layout(config)
        self._valid, self._release = layout["valid"].offset, layout["release"].offset
        self._layout = layout
        self.blocks: list[int] = []  # words of each block that is still to be filled
        self.position = 0  # of the next word to be filled, from reset on
        self.units = 0  # handed back
        self.credits, self.owed = 2, 0
        self.cycle, self.last, self.first = 0, -1000, None
        self.expected = []  # (absolute position, weight)
        self.at = 0
        self.counts = dict.fromkeys((*STATES, "idle"), 0)

    async def run(self):
        dut, r = self.dut, self.r
        depth = self.config.operand_depth
        while True:
            fill = bool(self.blocks) and self.position < depth + RELEASE_WORDS * self.units
            fill = fill and (not self.stall or r.random() >= self.stall)
            credit = self.owed > 0 and r.random() >= (self.lane_stall or self.stall)
            dut.filled.value, dut.credit.value = int(fill), int(credit)
            self.owed -= credit
            await FallingEdge(dut.clk)
            word = int(dut.stream.value)
            if word >> self._release & 1:
                self.units += 1
                assert RELEASE_WORDS * self.units <= self.position, "released before it arrived"
            if word >> self._valid & 1:
                self._check(unpack(self._layout, word))
            self._watch()
            await RisingEdge(dut.clk)
            if fill:
                self._fill()
            self.credits += credit
            self.cycle += 1

    def _fill(self):
        self.blocks[0] -= 1
        self.position += 1
        if not self.blocks[0]:
            self.blocks.pop(0)
            self.position = -(-self.position // RELEASE_WORDS) * RELEASE_WORDS

    def _check(self, got):
        assert self.at < len(self.expected), "a weight too many"
        position, want = self.expected[self.at]
        assert got["value"] & want.mask == want.value & want.mask
        assert got["address"] == position % self.config.operand_depth
        assert (got["first"], got["last"]) == (want.first, want.last)
        assert position < self.position, "a weight before its operand"
        assert position >= RELEASE_WORDS * self.units, "a weight after its operand was handed back"
        if self.first is None:
            self.first = self.cycle
        self.at += 1
        if want.last:
            assert self.cycle - self.last >= self.config.min_visit, "visits end too close"
            assert self.credits > 0, "a visit without a credit"
            self.last = self.cycle
            self.credits -= 1
            self.owed += 1

    def _watch(self):
        states = [name for name in STATES if int(getattr(self.dut, name).value)]
        assert len(states) <= 1, f"{states} at once"
        self.counts[states[0] if states else "idle"] += 1


class EngineBench:
    """One engine with everything around it."""

    def __init__(self, dut):
        self.dut, self.config, self.r = dut, bench_config(), rng()

    async def begin(self):
        dut = self.dut
        for name in ("filled", "credit", "body__0", "body__1", "index", "fetch__ready"):
            getattr(dut, name).value = 0
        dut.fetch__entry_valid.value = dut.fetch__granule_valid.value = 0
        await start(dut)
        self.source = StreamSource(dut, "start", rng=self.r)
        self.sink = StreamSink(dut, "visit", rng=self.r)
        self.scratchpad = FetchModel(dut, self.r, 0.0)
        self.array = ArrayModel(dut, self.config, self.r)
        cocotb.start_soon(self.scratchpad.run())
        cocotb.start_soon(self.array.run())
        self.turn = 0  # of the iteration that starts next
        self.next_row = None  # the engine's first one, if rows are dealt on

    def stall(self, probability):
        """Set the probability of a pause, everywhere."""
        for part in (self.source, self.sink, self.scratchpad, self.array):
            part.stall = probability

    def pair(self, stream_format=None, mode=None):
        """Return a random pair of input formats."""
        pairs = [
            pair
            for pair in PAIRS
            if stream_format in (None, pair[0]) and mode in (None, array_mode(*pair))
        ]
        return pairs[self.r.integers(len(pairs))]

    def draw(
        self, pair, encoding, *, k, n, entries, slice=None, iterations=1, index, base=None,
        deal_on=False, **more,
    ):  # fmt: skip
        """Return the iterations of a command: for each its body, and its blob.

        Parameters are those of `command`; the first blob is at granule ``base`` or behind
        it. What is drawn is to be run in the same order.
        """
        r = self.r
        if entries > self.config.rows:
            slice = min(slice or k, self.config.operand_depth)
        out_format = Format(int(r.integers(8)))
        fields = {
            "k": k,
            "n": n,
            "entries": entries,
            "slice": slice or k,
            "stream_format": pair[0],
            "in_format": pair[1],
            "encoding": encoding,
        }
        flags = MatmulFlag.DEAL_ON.value if deal_on else 0
        body = pack(MatmulBody, fields, out_format=out_format, flags=flags)
        rows = self.config.rows
        blobs = []
        base = int(r.integers(64)) * 4 if base is None else base
        for _ in range(iterations):
            on = deal_on and self.next_row is not None
            engine = (index - self.next_row) % rows if on else 0
            blob = Blob(
                config=self.config, r=r, index=index, base=base, output=int(r.integers(1 << 32)),
                first=engine,
                alignment=max(BITS[out_format] // 8, 1), **fields, **more,
            )  # fmt: skip
            base = max(blob.memory, default=base) + 1
            blobs.append((body, blob))
            self.next_row = (index - engine - blob.blocks * entries) % rows
        assert base <= 1 << self.config.granule_addr_width, "the blobs leave the scratchpad"
        return blobs

    async def command(
        self, pair, encoding, *, k, n, entries,
        slice=None, iterations=1, index=None, fill_first=False, **more,
    ):  # fmt: skip
        """Run a command, and check all that the engine does.

        Parameters
        ----------
        pair : tuple of Format
            Of the stream, of the resident operand.
        encoding : Encoding
        k, n, entries, slice : int
            As in the body. ``slice`` is cut to what the ring allows; its default is ``k``.
        iterations : int
            Each with a blob of its own.
        index : int, optional
            Which engine this is.
        fill_first : bool
            Fill the ring before the start.
        **more
            Attributes of `Blob`.
        """
        index = int(self.r.integers(self.config.rows)) if index is None else index
        drawn = self.draw(
            pair, encoding, k=k, n=n, entries=entries, slice=slice, iterations=iterations,
            index=index, **more,
        )  # fmt: skip
        await self.run(drawn, index, fill_first=fill_first)

    async def run(self, iterations, index, *, fill_first=False):
        """Run iterations of one or several commands with the same mode; check all.

        At most two are under way: each starts as soon as the one before the last is through.

        Parameters
        ----------
        iterations : list of (body, Blob), from `draw`
        index : int
        fill_first : bool
            Fill the ring before the start.
        """
        dut, array = self.dut, self.array
        dut.index.value = index
        blobs = [blob for _, blob in iterations]
        self.scratchpad.memory.clear()
        first = len(array.expected)
        at = array.position
        ends = []  # weights and visits up to the end of each iteration
        visits = 0
        for blob in blobs:
            self.scratchpad.memory |= blob.memory
            array.expected += [(at + w.position, w) for w in blob.weights]
            array.blocks += [blob.k] * blob.blocks
            at += blob.blocks * blob.units * RELEASE_WORDS
            visits += len(blob.descriptors)
            ends.append((len(array.expected), visits))
        # The mode comes from either of them.
        dut.body__0.value = dut.body__1.value = iterations[0][0]
        if fill_first:
            while array.position < min(at, array.units * RELEASE_WORDS + self.config.operand_depth):
                await tick(dut)
        else:
            await tick(dut)
        array.first = None
        array.counts = dict.fromkeys(array.counts, 0)
        began = array.cycle

        async def starts():
            for number, (body, blob) in enumerate(iterations):
                if number > 1:
                    weights, seen = ends[number - 2]
                    while array.at < weights or len(self.sink.items) < seen:
                        await tick(dut)
                getattr(dut, f"body__{self.turn}").value = body
                self.turn ^= 1
                word = pack(engine_start_layout(self.config), blob=blob.base, output=blob.output)
                await self.source.put(word).wait()

        async def finish():
            await starts()
            while array.units * RELEASE_WORDS < at or array.owed:
                await tick(dut)

        words = sum(blob.blocks * blob.k for blob in blobs)
        total = len(array.expected) - first
        await within(40 * (words + total) + 300 * visits + 2000, finish(), "the engine")
        await tick(dut, 3)
        assert array.at == len(array.expected)
        assert not array.blocks and array.units * RELEASE_WORDS == at == array.position
        wanted = [descriptor for blob in blobs for descriptor in blob.descriptors]
        seen = [unpack(visit_layout(), item) for item in self.sink.items]
        self.sink.items.clear()
        assert len(seen) == len(wanted)
        for got, want in zip(seen, wanted, strict=True):
            assert {name: got[name] for name in want} == want
        assert array.counts["active"] == total
        self.latency = None if array.first is None else array.first - began
