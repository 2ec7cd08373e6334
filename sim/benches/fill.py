"""Bench of the fill path: windows of every shape and format, as operand words in the ring."""

import collections

import cocotb
import ml_dtypes
import numpy as np
from cocotb.triggers import FallingEdge, RisingEdge

from ...rtl.array.serializer import SETS
from ...rtl.config import MAX_K, RELEASE_WORDS
from ...rtl.core.ports import READ_LATENCY
from ...rtl.isa import BITS, INPUT_FORMATS, LANES, Format, MatmulBody, Mode, Status, array_mode
from .lib import StreamSource, bench_config, pack, rng, start, tick, unpack, within
from .prepared import word_layout
from .units import banks_at

PAIRS = sorted(
    {
        (resident, mode)
        for stream in INPUT_FORMATS
        for resident in INPUT_FORMATS
        if (mode := array_mode(stream, resident)) is not None
    },
    key=lambda pair: (pair[0].value, pair[1].value),
)
"""Every resident format in every mode that it is widened to."""

FLOATS = {
    Format.FP16: np.float16,
    Format.BF16: ml_dtypes.bfloat16,
    Format.E4M3: ml_dtypes.float8_e4m3fn,
    Format.E5M2: ml_dtypes.float8_e5m2,
}


STRIDES = ("x_run_stride", "x_run_outer_stride", "x_inner_stride", "x_outer_stride")


def _fields(r, resident, mode, **fields):
    """Return the body's fields for a resident format and a mode: any stream format that fits."""
    streams = [each for each in INPUT_FORMATS if array_mode(each, resident) == mode]
    formats = {
        "stream_format": streams[int(r.integers(len(streams)))].value,
        "in_format": resident.value,
    }
    return {"runs_inner": 1, **dict.fromkeys(STRIDES, 0), **fields, **formats}


def _widened(raw, resident, mode):
    """Return numbers, given by their bits, as the array's mode has them; NaNs are all equal."""
    if resident in FLOATS:
        size = np.uint16 if BITS[resident] == 16 else np.uint8
        value = raw.astype(size).view(FLOATS[resident])
    elif resident is Format.INT4:
        value = ((raw ^ 8) - 8).astype(np.float32)
    else:
        value = raw.astype(np.int8).astype(np.float32)
    if mode in (Mode.INT4, Mode.INT8):
        return value.astype(int) & ((1 << 16 // LANES[mode]) - 1)
    kind = np.float16 if mode is Mode.FP16 else ml_dtypes.bfloat16
    return _one_nan(value.astype(kind).view(np.uint16).astype(int), mode)


def _one_nan(bits, mode):
    infinity = {Mode.FP16: 0x7C00, Mode.BF16: 0x7F80}[mode]
    return np.where((bits & 0x7FFF) > infinity, 0xFFFF, bits)


def _window(r, config, resident, mode, k_most=300):
    """Return the fields of a random window."""
    numbers = 1 if BITS[resident] < 16 else 2  # alignment
    per_byte = 8 / BITS[resident]
    run_bytes = int(r.choice([1, 2, 3, 7, 8, 16, 17, 21, 32, 40, 128])) * numbers
    run = int(run_bytes * per_byte)
    runs = int(r.integers(1, max(2, min(12, k_most // run + 1))))
    span = int(r.choice([4, 60, 400]))
    wide = config.cols * LANES[mode]
    return _fields(
        r,
        resident,
        mode,
        k=runs * run,
        n=int(r.choice([1, int(r.integers(1, wide + 1)), int(r.integers(wide, 3 * wide))])),
        n_inner=int(r.choice([1, int(r.integers(1, 12)), 1000])),
        run_bytes=run_bytes,
        runs_inner=int(r.choice([1, 2, 3, 5, runs, 60000])),
        **{name: int(r.integers(-span, span)) * numbers for name in STRIDES},
    )


def _offsets(fields, resident):
    """Return the byte offset of element k of column j from X, [j, k], as `MatmulBody` says."""
    j = np.arange(fields["n"])[:, None]
    k = np.arange(fields["k"])[None, :]
    run = fields["run_bytes"] * 8 // BITS[resident]
    q = k // run
    return (
        (j // fields["n_inner"]) * fields["x_outer_stride"]
        + (j % fields["n_inner"]) * fields["x_inner_stride"]
        + (q // fields["runs_inner"]) * fields["x_run_outer_stride"]
        + (q % fields["runs_inner"]) * fields["x_run_stride"]
        + (k % run) * BITS[resident] // 8
    )


def _place(r, config, fields, resident):
    """Return a random address at which the window lies within the scratchpad, or None."""
    offsets = _offsets(fields, resident)
    size = 2 if BITS[resident] == 16 else 1
    low, high = -int(offsets.min()), config.scratchpad_bytes - size - int(offsets.max())
    if low > high:
        return None
    at = int(r.choice([low, high, int(r.integers(low, high + 1))]))
    return at if size == 1 else at & ~1


def _expected(memory, x, fields, resident, mode, config):
    """Return the numbers[block, k, column, lane] of an iteration; -1 beyond the last column."""
    address = x + _offsets(fields, resident)
    raw = memory[address].astype(int)
    if BITS[resident] == 16:
        raw |= memory[address + 1].astype(int) << 8
    elif BITS[resident] == 4:
        raw = raw >> 4 * (np.arange(fields["k"])[None, :] & 1) & 15
    width = config.cols * LANES[mode]
    blocks = -(-fields["n"] // width)
    padded = np.full((blocks * width, fields["k"]), -1)
    padded[: fields["n"]] = _widened(raw, resident, mode)
    return padded.reshape(blocks, config.cols, LANES[mode], -1).transpose(0, 3, 1, 2)


class Surroundings:
    """The scratchpad, the ring and the engines around the fill path, cycle by cycle.

    Reads are answered after `READ_LATENCY` cycles. Words must come in step, at the ring addresses
    that the blocks' lengths give, and never where what was there is not released yet. Units of
    `RELEASE_WORDS` are released some time after they are complete.

    Attributes
    ----------
    stall : float
        Probability that the read port is not ready.
    keep : int
        Units that are released only when no word has come for a while.
    pause : float
        Probability that a release that could come does not in this cycle.
    words : list of tuple
        Values of all columns.
    done : list of int
        How many words there were at each pulse of ``done``.
    cycle, first, last : int
        The present cycle; those of the first and the newest word.
    reads, first_read, last_read : int
        How many reads were accepted, and the cycles of the first and the newest.
    """

    def __init__(self, dut, config, memory, r):
        self.dut, self.config, self.memory, self.r = dut, config, memory, r
        self.stall, self.pause, self.keep = 0.0, 0.0, 0
        self.layout = word_layout(config)
        self.ports = [getattr(dut, f"fill__{c}") for c in range(config.cols)]
        self.claimed = self.complete = self.released = 0
        self.address = 0
        self.blocks: collections.deque[int] = collections.deque()
        self.block_left = 0
        self.cycle = 0
        self.clear()
        cocotb.start_soon(self._run())

    def clear(self):
        """Forget what came so far."""
        self.words, self.reads, self.done = [], 0, []
        self.first = self.last = self.first_read = self.last_read = -1
        self.started: list[int] = []

    def _read(self, ready):
        dut, config = self.dut, self.config
        if not (ready and int(dut.read__valid.value)):
            return None
        self.first_read = self.cycle if not self.reads else self.first_read
        self.reads += 1
        self.last_read = self.cycle
        at, width = 16 * int(dut.read__address.value), 2 * config.fill_bytes
        span = np.take(self.memory, np.arange(at, at + width), mode="wrap")
        # What was not asked for is not there.
        needed = int(dut.read__needed.value)
        banks = banks_at(config, at // 16, width // 16, needed)
        assert int(dut.read__banks.value) == banks
        lanes = np.repeat([needed >> i & 1 for i in range(width // 16)], 16).astype(bool)
        noise = self.r.integers(0, 256, width, np.uint8)
        return int.from_bytes(np.where(lanes, span, noise).tobytes(), "little")

    def _word(self):
        columns = self.config.cols
        valid = self.layout["valid"].offset
        if not int(self.ports[0].value) >> valid & 1:
            other = self.ports[self.cycle % columns]
            assert not int(other.value) >> valid & 1, "columns are not in step"
            return
        packed = [int(port.value) for port in self.ports]
        assert len({value >> 16 for value in packed}) == 1, "columns are not in step"
        if not self.block_left:
            assert self.blocks, "more words than there are"
            self.block_left = self.blocks.popleft()
            self.address = -(-self.address // RELEASE_WORDS) * RELEASE_WORDS
        address = unpack(self.layout, packed[0])["address"]
        assert address == self.address % self.config.operand_depth
        self.claimed += self.address % RELEASE_WORDS == 0
        held = self.claimed - self.released
        assert held <= self.config.operand_depth // RELEASE_WORDS, "overwritten before release"
        self.address += 1
        self.block_left -= 1
        self.complete += self.address % RELEASE_WORDS == 0 or not self.block_left
        self.words.append(tuple(value & 0xFFFF for value in packed))
        self.first = self.cycle if self.first < 0 else self.first
        self.last = self.cycle

    async def _run(self):
        dut, r = self.dut, self.r
        pipeline = [None] * READ_LATENCY
        release = 0
        noise = int.from_bytes(r.bytes(2 * self.config.fill_bytes), "little")
        while True:
            due = pipeline.pop()
            dut.read__data_valid.value = int(due is not None)
            dut.read__data.value = noise if due is None else due
            ready = not self.stall or int(r.random() >= self.stall)
            dut.read__ready.value = int(ready)
            self.released += release
            idle = self.cycle - self.last > 20
            held = self.complete - self.released
            release = int(held > (0 if idle else self.keep) and r.random() >= self.pause)
            dut.release.value = release
            await FallingEdge(dut.clk)
            pipeline.insert(0, self._read(ready))
            if int(dut.start__valid.value) and int(dut.start__ready.value):
                self.started.append(self.cycle)
            self._word()
            if int(dut.done.value):
                self.done.append(len(self.words) if self.last == self.cycle else -1)
            self.cycle += 1
            await RisingEdge(dut.clk)

    async def wait(self, words):
        """Wait until there are so many words, and that no more come."""
        while len(self.words) < words:
            await tick(self.dut)
        await tick(self.dut, 12)
        assert len(self.words) == words


async def _prepare(dut):
    config, r = bench_config(), rng()
    for name in ("release", "read__ready", "read__data_valid", "start__valid"):
        getattr(dut, name).value = 0
    dut.body.value = 0
    await start(dut)
    memory = r.integers(0, 256, config.scratchpad_bytes, np.uint8)
    return config, r, memory, Surroundings(dut, config, memory, r)


async def _run(dut, env, source, fields, resident, mode, addresses):
    """Run iterations of one command, and compare every word."""
    await _follow(dut, env, source, mode, [(fields, resident, addresses)])


async def _follow(dut, env, source, mode, commands):
    """Run commands of one mode (fields, resident format, addresses); compare every word."""
    config = env.config
    expected = [
        (command, [_expected(env.memory, x, *command[:2], mode, config) for x in command[2]])
        for command in commands
    ]
    env.clear()
    reads, counts = 0, []
    for (fields, resident, _), iterations in expected:
        run = fields["run_bytes"] * 8 // BITS[resident]
        chunks = -(-fields["run_bytes"] // config.fill_bytes) * (fields["k"] // run)
        for words in iterations:
            blocks, k = words.shape[:2]
            env.blocks.extend([k] * blocks)
            counts.append(blocks * k)
            reads += chunks * config.cols * LANES[mode] * blocks

    async def give():
        for fields, _, addresses in commands:
            dut.body.value = pack(MatmulBody, fields)
            events = [source.put(x) for x in addresses]
            await events[-1].wait()
            # The body is needed in the cycle of the start only.
            dut.body.value = int.from_bytes(env.r.bytes(64), "little")

    async def finish():
        await give()
        await env.wait(sum(counts))

    await within(20 * (reads + sum(counts)) + 2000, finish(), f"{commands}")
    assert env.done == np.cumsum(counts).tolist()
    words = np.array(env.words)
    bits = 16 // LANES[mode]
    for (fields, resident, _), iterations in expected:
        for wanted_words in iterations:
            blocks, k = wanted_words.shape[:2]
            got, words = words[: blocks * k].reshape(blocks, k, config.cols), words[blocks * k :]
            checked = 0
            for lane in range(LANES[mode]):
                wanted = wanted_words[..., lane]
                part = got >> bits * lane & ((1 << bits) - 1)
                if bits == 16:
                    part = _one_nan(part, mode)
                real = wanted >= 0
                assert (part[real] == wanted[real]).all(), f"{lane}, {resident}, {mode}: {fields}"
                checked += int(real.sum())
            assert checked == fields["n"] * k
    assert not len(words)


@cocotb.test()
async def windows(dut):
    """Random windows in every format and mode, a few iterations each, with all kinds of stalls."""
    config, r, _, env = await _prepare(dut)
    source = StreamSource(dut, "start", rng=r)
    for turn in range(4 * len(PAIRS)):
        resident, mode = PAIRS[turn % len(PAIRS)]
        env.stall = float(r.choice([0.0, 0.0, 0.4, 0.8]))
        env.pause = float(r.choice([0.0, 0.5, 0.95]))
        env.keep = int(r.choice([0, 3, config.operand_depth // RELEASE_WORDS]))
        source.stall = float(r.choice([0.0, 0.5]))
        addresses: list = [None]
        while None in addresses:
            fields = _window(r, config, resident, mode)
            iterations = int(r.integers(1, 4))
            addresses = [_place(r, config, fields, resident) for _ in range(iterations)]
        await _run(dut, env, source, fields, resident, mode, addresses)


@cocotb.test()
@cocotb.parametrize(mode=list(Mode))
async def commands_follow(dut, mode):
    """Commands with different windows and formats of one mode follow each other at once."""
    config, r, _, env = await _prepare(dut)
    source = StreamSource(dut, "start", rng=r)
    formats = [resident for resident, its_mode in PAIRS if its_mode is mode]
    for stall in (0.0, 0.0, 0.5):
        env.stall, env.pause, env.keep = stall, stall, int(r.choice([0, 3]))
        commands: list = []
        while len(commands) < 8:
            resident = formats[int(r.integers(len(formats)))]
            fields = _window(r, config, resident, mode, k_most=60)
            addresses = [_place(r, config, fields, resident) for _ in range(r.integers(1, 3))]
            if None not in addresses:
                commands.append((fields, resident, addresses))
        await _follow(dut, env, source, mode, commands)


@cocotb.test()
async def every_number(dut):
    """Every number of up to 8 bits in every lane and mode, and some of 16 bits."""
    config, r, memory, env = await _prepare(dut)
    source = StreamSource(dut, "start", rng=r)
    memory[:256] = np.arange(256)
    for resident, mode in PAIRS:
        k, n = 256 * 8 // BITS[resident], config.cols * LANES[mode]
        fields = _fields(r, resident, mode, k=k, n=n, n_inner=n, run_bytes=256)
        await _run(dut, env, source, fields, resident, mode, [0])


@cocotb.test()
async def longest(dut):
    """A long K goes round and round the ring, the longest where there are few columns."""
    config, r, _, env = await _prepare(dut)
    source = StreamSource(dut, "start", rng=r)
    resident = Format.INT4 if config.cols > 4 else Format.FP16
    mode = array_mode(resident, resident)
    run_bytes = 1024
    fields = _fields(
        r,
        resident,
        mode,
        k=MAX_K if config.cols == 4 else 5 * config.operand_depth,
        n=3,
        n_inner=2,
        run_bytes=run_bytes,
        runs_inner=5,
        x_run_stride=run_bytes,
        x_run_outer_stride=-300,
        x_inner_stride=2,
        x_outer_stride=18,
    )
    env.pause, env.keep = 0.2, config.operand_depth // RELEASE_WORDS - 5
    await _run(dut, env, source, fields, resident, mode, [8000])


@cocotb.test()
async def read_ahead(dut):
    """With nothing released the ring is filled, all sets of the columns are, and that is all."""
    config, r, _, env = await _prepare(dut)
    n, k = config.cols * LANES[Mode.INT8], 3 * config.operand_depth
    fields = _fields(r, Format.INT8, Mode.INT8, k=k, n=n, n_inner=n, run_bytes=k, x_inner_stride=1)
    dut.body.value = pack(MatmulBody, fields)
    env.blocks.append(k)
    env.pause = 1.0
    StreamSource(dut, "start", rng=r).put(0)
    await within(3 * config.operand_depth, env.wait(config.operand_depth), "a full ring")
    await tick(dut, SETS * n)
    assert len(env.words) == config.operand_depth
    assert env.reads == (config.operand_depth // config.fill_bytes + SETS) * n


@cocotb.test()
async def first_word(dut):
    """The first word comes when one chunk of each block column could be read."""
    config, r, _, env = await _prepare(dut)
    source = StreamSource(dut, "start", rng=r)
    for resident, mode in PAIRS:
        width = config.cols * LANES[mode]
        for n in (1, 2, width, width + 1):
            run_bytes = 6
            k = run_bytes * 8 // BITS[resident]
            fields = _fields(
                r, resident, mode, k=k, n=n, n_inner=50, run_bytes=run_bytes, x_inner_stride=16
            )
            await _run(dut, env, source, fields, resident, mode, [0])
            latency = env.first - env.started[0]
            what = f"{resident}, {mode}, {n} columns: {latency}"
            assert latency == min(n, width) + READ_LATENCY + 10, what


@cocotb.test()
async def speed(dut):
    """Where reads can keep up there is no bubble between words, else none between reads."""
    config, r, _, env = await _prepare(dut)
    source = StreamSource(dut, "start", rng=r)
    for resident, mode in PAIRS:
        width = config.cols * LANES[mode]
        strides = {"x_run_stride": 1000, "x_run_outer_stride": 3000, "x_inner_stride": 128}
        run_bytes = 5 * config.fill_bytes
        k, n = run_bytes * 8 // BITS[resident], 2 * width - int(r.integers(width))
        fields = _fields(r, resident, mode, k=k, n=n, n_inner=8, run_bytes=run_bytes, **strides)
        await _run(dut, env, source, fields, resident, mode, [4096, 64, 6])
        spent = env.last - env.first + 1
        assert spent == len(env.words), f"{spent} cycles for {len(env.words)} words"
        # In every chunk more reads than words.
        runs, run_bytes = 9, min(config.fill_bytes, width * BITS[resident] // 8) // 2
        k = runs * run_bytes * 8 // BITS[resident]
        fields |= {"k": k, "n": 2 * width, "run_bytes": run_bytes, "runs_inner": 4}
        await _run(dut, env, source, fields, resident, mode, [4096, 64, 6])
        spent = env.last_read - env.first_read + 1
        assert env.reads == 3 * runs * 2 * width
        assert spent <= env.reads + 2 * 5, f"{spent} cycles for {env.reads} reads"
        rest = len(env.words) // (3 * 2 * runs) + READ_LATENCY + 4
        assert env.last - env.last_read <= rest, f"{env.last - env.last_read} cycles for the rest"


@cocotb.test()
@cocotb.parametrize(x=["end", "far", "before", "column"])
async def outside(dut, x):
    """A window that leaves the scratchpad is an error, and is not read."""
    config, r, _, env = await _prepare(dut)
    address = {"end": config.scratchpad_bytes - 3, "far": 1 << 31, "before": 0xFFFFFFFE}.get(x, 0)
    fields = {"k": 4, "n": 2, "n_inner": 2, "run_bytes": 4, "runs_inner": 1}
    fields["x_inner_stride"] = -2 if x == "column" else 0
    dut.body.value = pack(MatmulBody, fields)
    StreamSource(dut, "start", rng=r).put(address)

    async def failure():
        while True:
            await FallingEdge(dut.clk)
            if int(dut.error.value):
                return int(dut.status.value)

    assert await within(100, failure(), "the error") == Status.BAD_ADDRESS.value
    await tick(dut, 30)
    assert env.reads == (1 if x == "column" else 0)
    assert not env.words
