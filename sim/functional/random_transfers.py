"""Random transfers and vector operations for `RandomJobs`, and where their operands lie."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import SEMAPHORES, Format, Opcode, Queue, VectorOp
from .assemble import command, operand, semaphore
from .checks import PAIRS, steps_span
from .random_operands import aligned
from .random_tiles import RandomTiles

__all__ = ["LOADS", "RandomJob", "RandomTransfers"]

LOADS = (Queue.LOAD0, Queue.LOAD1)


@dataclasses.dataclass
class RandomJob:
    """A job: its commands without END, and the bytes that must be in card memory before it.

    ``blobs`` holds, for each MATMUL by its index, where its stream blob lies in memory, and which
    entries of its directory [slices, entries] are not empty. ``dump`` is where the whole scratchpad
    is stored.
    """

    commands: list[bytes] = dataclasses.field(default_factory=list)
    writes: list[tuple[int, npt.NDArray[np.uint8]]] = dataclasses.field(default_factory=list)
    blobs: dict[int, tuple[int, npt.NDArray]] = dataclasses.field(default_factory=dict)
    dump: int = -1


class RandomTransfers(RandomTiles):
    """Makes a job's operations one by one: all but products.

    Parameters
    ----------
    config : CardConfig
    rng : numpy.random.Generator
    base, nbytes : int
        The part of card memory that jobs may use. A job takes what it needs after the job before
        it, and begins again at ``base`` when that does not fit.
    largest : int
        About how many bytes a buffer of an operation has at most.
    """

    def __init__(
        self,
        config: CardConfig,
        rng: np.random.Generator,
        *,
        base: int,
        nbytes: int,
        largest: int = 4096,
    ) -> None:
        super().__init__(config, rng, largest)
        self.base, self.end = base, base + nbytes
        self._next = base
        self._job = RandomJob()
        self._phase()

    # Memory, scratchpad and semaphores.

    def _memory(self, nbytes: int) -> int:
        """Return the address of memory that nothing else of the job uses."""
        address = self._next
        self._next = address + aligned(nbytes) + GRANULE * self._int(0, 20)
        if self._next > self.end:
            raise ValueError(f"nbytes must hold a job, not {self.end - self.base!r}")
        return address

    def _data(self, data: npt.NDArray) -> int:
        """Put data into memory, and return their address."""
        raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        address = self._memory(raw.size)
        self._job.writes.append((address, raw))
        return address

    def _noise(self, nbytes: int) -> int:
        return self._data(self.rng.integers(0, 256, nbytes, np.uint8))

    def _phase(self) -> None:
        self._low, self._high = 0, self.config.scratchpad_bytes
        self._semaphores = self.rng.permutation(SEMAPHORES).tolist()

    def _barrier(self) -> None:
        self._job.commands.append(command(Opcode.BARRIER))
        self._phase()

    def _room(self, nbytes: int, semaphores: int) -> int:
        """Return the place of ``nbytes`` in the scratchpad, after a barrier if there is no more.

        Also sees to it that so many semaphores are left. The place is filled with noise, and the
        operation's loads have to wait for the first of its semaphores.
        """
        nbytes = aligned(nbytes)
        if nbytes > self._high - self._low or semaphores > len(self._semaphores):
            self._barrier()
        gap = GRANULE * self._int(0, 9)
        gap = gap if nbytes + gap <= self._high - self._low else 0
        if self._chance(0.3):
            self._high -= nbytes + gap
            return self._high
        self._low += nbytes + gap
        return self._low - nbytes

    def _semaphore(self) -> int:
        return self._semaphores.pop()

    def _give(self, index: int, value: int) -> None:
        """Add to a semaphore, in one command or in several."""
        parts = [value] if self._chance(0.7) else [1] * value
        for part in parts:
            self._job.commands.append(command(Opcode.SEMAPHORE, {"index": index, "value": part}))

    def _blank(
        self, place: int, nbytes: int, readers: int, source: int | None = None
    ) -> dict[str, int]:
        """Fill a place of the scratchpad with noise, or from ``source`` in memory.

        Returns what its ``readers`` wait for.
        """
        done = self._semaphore()
        body = {"x_bytes": aligned(nbytes), "y": 1, "z": 1}
        source = self._noise(aligned(nbytes)) if source is None else source
        signal = [semaphore(done)] * readers
        queue = LOADS[self._int(0, 1)]
        self._job.commands.append(
            command(Opcode.LOAD, body, queue=queue, operands=[source, place], signal=signal)
        )
        return semaphore(done, outer=True)

    def _shape(self, nbytes: int) -> tuple[dict[str, int], int, int]:
        """Return the body of a transfer of ``nbytes`` to or from one place in the scratchpad.

        And the bytes of memory it spans, and where in them it begins.
        """
        granules = nbytes // GRANULE
        x = int(self.rng.choice([d for d in range(1, granules + 1) if granules % d == 0]))
        rows = granules // x
        y = int(self.rng.choice([d for d in range(1, rows + 1) if rows % d == 0]))
        if max(y, rows // y) > 64:
            x, y, rows = granules, 1, 1
        z = rows // y
        y_stride = GRANULE * (x + self._int(0, 4))
        z_stride = y_stride * y + GRANULE * self._int(0, 4)
        y_stride *= -1 if self._chance(0.3) else 1
        z_stride *= -1 if self._chance(0.3) else 1
        low, high = steps_span((y, y_stride), (z, z_stride))
        body = {"x_bytes": GRANULE * x, "y": y, "z": z}
        body |= {"memory_y_stride": y_stride, "memory_z_stride": z_stride}
        body |= {"scratchpad_y_stride": GRANULE * x, "scratchpad_z_stride": GRANULE * x * y}
        return body, high - low + GRANULE * x, -low

    # Copies.

    def _copy(self) -> None:
        """Load rows, and store rows of another shape; rows may overlap."""
        commands = []
        length = aligned(self._int(1, self.largest // 2))
        scratchpad = self._room(length, 2)
        wait = self._blank(scratchpad, length, 1)
        done = self._semaphore()
        for opcode, queue, waits, signals in (
            (Opcode.LOAD, LOADS[self._int(0, 1)], [wait], [semaphore(done, outer=True)]),
            (Opcode.STORE, Queue.STORE, [semaphore(done, outer=True)], []),
        ):
            inner, outer = self._int(1, 3), 1
            sides = []
            x_bytes = GRANULE * self._int(1, max(1, length // GRANULE // 2))
            y, z = self._int(1, 5), self._int(1, 3)
            for space in (self.largest, length):
                # Offsets of rows and iterations that stay inside the space.
                left = (space - x_bytes) // GRANULE
                strides = []
                for count in (y, z, inner):
                    reach = left // max(1, count - 1) if count > 1 else left
                    stride = int(self.rng.integers(-reach, reach + 1)) if reach else 0
                    left -= abs(stride) * (count - 1)
                    strides.append(stride * GRANULE)
                low, _ = steps_span(*zip((y, z, inner), strides, strict=True))
                sides.append((strides, -low))
            (memory, start), (local, offset) = sides
            address = (self._noise if opcode is Opcode.LOAD else self._memory)(self.largest)
            body = {"x_bytes": x_bytes, "y": y, "z": z}
            body |= {"memory_y_stride": memory[0], "memory_z_stride": memory[1]}
            body |= {"scratchpad_y_stride": local[0], "scratchpad_z_stride": local[1]}
            operands = [
                operand(address + start, inner=memory[2]),
                operand(scratchpad + offset, inner=local[2]),
            ]
            commands.append(
                command(
                    opcode,
                    body,
                    queue=queue,
                    operands=operands,
                    inner=inner,
                    outer=outer,
                    wait=waits,
                    signal=signals,
                )
            )
        self._job.commands += commands

    def _relay(self) -> None:
        """Store, load again what was stored, and store it elsewhere, many times."""
        length, times = aligned(self._int(1, 512)), self._int(1, 5)
        place = self._room(2 * length * times, 4)
        wait = self._blank(place, 2 * length * times, 1)
        stored, loaded = self._semaphore(), self._semaphore()
        memory, body = self._memory(length * times), {"x_bytes": length, "y": 1, "z": 1}
        there = operand(memory, inner=length)
        back = operand(place + length * times, inner=length)
        here = operand(place, inner=length)
        self._job.commands += [
            command(
                Opcode.STORE,
                body,
                operands=[there, here],
                inner=times,
                wait=[wait],
                signal=[semaphore(stored)],
            ),
            command(
                Opcode.LOAD,
                body,
                queue=LOADS[self._int(0, 1)],
                operands=[there, back],
                inner=times,
                wait=[semaphore(stored)],
                signal=[semaphore(loaded)],
            ),
            command(
                Opcode.STORE,
                body,
                operands=[operand(self._memory(length * times), inner=length), back],
                inner=times,
                wait=[semaphore(loaded)],
            ),
        ]

    # The vector unit.

    def _vector(self) -> None:
        """Pool windows, or combine two tensors, perhaps in the place of one of them."""
        op = self._one(list(VectorOp))
        granules, counts = self._int(1, 3), [self._int(1, 4), self._int(1, 5)]
        body = {"op": op, "in_format": Format.INT8, "granules": granules}
        body |= {"out_y": counts[0], "out_x": counts[1], "kernel_y": 1, "kernel_x": 1}
        out_box = self._box(counts, GRANULE * granules, GRANULE)
        if op.value in PAIRS:
            boxes = [self._box(counts, GRANULE * granules, GRANULE) for _ in range(2)]
            strides = [*boxes[0][0], *boxes[1][0]]
        else:
            body |= {"kernel_y": self._int(1, 3), "kernel_x": self._int(1, 3)}
            counts += [body["kernel_y"], body["kernel_x"]]
            strides = [GRANULE * int(self.rng.integers(-6, 9)) for _ in counts]
            low, high = steps_span(*zip(counts, strides, strict=True))
            boxes = [(strides, -low, high - low + GRANULE * granules)]
        out = len(boxes)
        if op.value in PAIRS and self._chance(0.4):
            out = self._int(0, 1)
        else:
            boxes.append(out_box)
        names = ("in_y_stride", "in_x_stride", "in_ky_stride", "in_kx_stride")
        body |= dict(zip(names, strides, strict=True)) | self._vector_numbers(body)
        body |= dict(zip(("out_y_stride", "out_x_stride"), boxes[out][0], strict=True))

        sizes = [nbytes for _, _, nbytes in boxes]
        place = self._room(sum(sizes), 3)
        places = [place + sum(sizes[:i]) for i in range(len(boxes))]
        starts = [at + start for at, (_, start, _) in zip(places, boxes, strict=True)]
        wait = self._blank(place, sum(sizes), 1)
        done = self._semaphore()
        second = starts[1] if op.value in PAIRS else int(self.rng.integers(1 << 32))
        self._job.commands += [
            command(
                Opcode.VECTOR,
                body,
                operands=[second, starts[0], starts[out]],
                wait=[wait],
                signal=[semaphore(done)],
            ),
            self._store(places[out], sizes[out], 1, wait=[semaphore(done)]),
        ]

    def _vector_numbers(self, body: dict[str, Any]) -> dict[str, int]:
        """Draw zero points, scales and clamps; what is not used may be anything."""
        one = np.float32(1 / (body["kernel_y"] * body["kernel_x"]))
        if body["op"] is VectorOp.MULTIPLY:
            one = np.float32(1 / 64)
        draw = self.rng.integers
        tame = one * np.exp2(draw(-2, 2, 2)).astype(np.float32)
        spread = (one * np.exp(self.rng.normal(size=2))).astype(np.float32)
        spread *= self._one([1, -1])
        wild = draw(0, 1 << 32, 2, np.uint32)
        used = {VectorOp.MAX: 0, VectorOp.ADD: 2}.get(body["op"], 1)
        kinds = [tame.view(np.uint32), spread.view(np.uint32), wild]
        scales = kinds[int(self.rng.choice(3, p=[0.4, 0.4, 0.2]))].tolist()
        for i in range(2):
            if i >= used and self._chance(0.5):
                scales[i] = int(draw(0, 1 << 32))
            elif not 0 < (scales[i] >> 23 & 0xFF) < 0xFF:
                scales[i] = int(tame.view(np.uint32)[i])
        numbers = {"a_zero": int(draw(-128, 128)), "b_zero": int(draw(-128, 128))}
        limits = (1 << 15) if self._chance(0.2) else 128
        names = ("zero_point", "clamp_low", "clamp_high")
        numbers |= {name: int(draw(-limits, limits)) for name in names}
        if self._chance(0.6):
            numbers |= {"clamp_low": -128, "clamp_high": 127}
        return numbers | {"a_scale": scales[0], "b_scale": scales[1]}

    def _store(self, place: int, nbytes: int, times: int, **header: Any) -> bytes:
        """Return the STORE of one or two buffers of ``nbytes``, ``times`` in all."""
        body, span, start = self._shape(nbytes)
        span = aligned(span)
        address = self._memory(span * times)
        source = operand(place, pong=nbytes if times > 1 else 0)
        return command(
            Opcode.STORE,
            body,
            operands=[operand(address + start, inner=span), source],
            inner=times,
            **header,
        )
