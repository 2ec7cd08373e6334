"""Random jobs without races: what the RTL and the functional simulator must agree on.

Each operation of a job loads what it reads, works, and stores what it wrote; its loads, its unit
and its store run ahead of each other through loops, two buffers and semaphores.
"""

from typing import Any

import numpy as np

from ...rtl.config import GRANULE
from ...rtl.isa import DirectoryEntry, Format, Opcode
from .assemble import command, operand, semaphore
from .checks import SIZES
from .decode import dtype
from .random_operands import WORD, aligned
from .random_transfers import LOADS, RandomJob, RandomTransfers

__all__ = ["RandomJob", "RandomJobs"]


class RandomJobs(RandomTransfers):
    """Makes random jobs; parameters are those of `RandomTransfers`."""

    def job(self, operations: int, *, whole: bool = False, source: int = -1) -> RandomJob:
        """Return a job of so many operations.

        Parameters
        ----------
        operations : int
        whole : bool
            It also loads the whole scratchpad first and stores it at the end, so that writes to a
            wrong place do not get lost.
        source : int
            From where in memory ``whole`` loads: `RandomJob.dump` of the job before. Default: from
            noise of its own.
        """
        if self.end - self._next < (self.end - self.base) // 2:
            self._next = self.base
        self._job = job = RandomJob()
        self._phase()
        size = self.config.scratchpad_bytes
        body = {"x_bytes": size, "y": 1, "z": 1}
        if whole:
            source = self._noise(size) if source < 0 else source
            job.commands += [command(Opcode.LOAD, body, operands=[source, 0])]
            job.commands += [command(Opcode.BARRIER)]
        for _ in range(operations):
            if self._chance(0.2):
                self._barrier()
            kinds = (self._matmul, self._copy, self._relay, self._vector)
            kinds[self.rng.choice(4, p=[0.6, 0.15, 0.1, 0.15])]()
        if whole:
            job.commands += [command(Opcode.BARRIER)]
            job.dump = self._memory(size)
            job.commands += [command(Opcode.STORE, body, operands=[job.dump, 0])]
        return job

    # Products.

    def _matmul(self) -> None:
        """Stream blobs past resident operands: loads, product and store of one tile or many."""
        rng, config = self.rng, self.config
        many = self._chance(0.5)
        inner, outer = (self._int(1, 3), self._int(1, 3)) if many else (1, 1)
        x_outer, blob_outer, out_outer = (self._chance(0.5) for _ in range(3))
        blobs = outer if blob_outer else 1

        while True:
            product = self._product()
            window = self._window(product)
            if window is None:
                continue
            strides, x_start, x_bytes = window
            fields = product.fields | strides
            used = self._entries(fields["entries"])
            raws = [self._blob(used, product) for _ in range(blobs)]
            blob_bytes = max(len(raw) for raw in raws)
            columns = min(fields["n_inner"], fields["n"])
            counts = [int(used.sum()), columns, -(-fields["n"] // fields["n_inner"])]
            size = SIZES[product.target]
            if product.target is Format.INT4:  # pairs of columns
                counts[1], size = (columns + 1) // 2, 2
            steps, out_start, tile_bytes = self._box(counts, size, size)
            out_bytes = tile_bytes * (inner if out_outer else 1)
            buffers = 2 * (x_bytes + blob_bytes + out_bytes)
            if max(tile_bytes, blob_bytes) <= self.largest and (
                buffers <= config.scratchpad_bytes // 2
            ):
                break
        shape = len(product.lengths), len(used)
        for raw in raws:
            offsets = np.zeros(len(used), np.int64)
            offsets[used] = rng.permutation(counts[0]) * steps[0]
            directory = raw[: shape[0] * shape[1] * GRANULE].view(dtype(DirectoryEntry))
            directory.reshape(shape)["out_offset"][-1] = offsets & WORD
        clamp = sorted(rng.integers(-128, 128, 2).tolist())
        body: dict[str, Any] = {
            **fields,
            "out_inner_stride": steps[1] // (2 if product.target is Format.INT4 else 1),
            "out_outer_stride": steps[2],
            "function": int(rng.integers(2)),
            "zero_point": int(rng.integers(-128, 128)),
            "clamp_low": clamp[0] if self._chance(0.5) else -128,
            "clamp_high": clamp[1] if self._chance(0.5) else 127,
            "parameter": rng.integers(0, 1 << 32, 3).tolist(),
        }

        place = self._room(buffers, 7)
        x_at, out_at = place + 2 * blob_bytes, place + 2 * (blob_bytes + x_bytes)
        ready = self._blank(place, buffers, 2)
        x_full, x_free, b_full, b_free, out_full, out_free = (self._semaphore() for _ in range(6))

        tiles = inner * outer
        loads = {
            "x": (x_at, x_bytes, outer if x_outer else tiles, x_full, x_free),
            "blob": (place, blob_bytes, blobs, b_full, b_free),
        }
        for index in (x_free, b_free, out_free):
            self._give(index, 2)
        # In one queue, a load that waits for a third buffer would block the other one.
        first = int(rng.integers(2))
        apart = max(times for _, _, times, _, _ in loads.values()) > 2
        for index, name in enumerate(rng.permutation(list(loads)).tolist()):
            queue = LOADS[first ^ index if apart else rng.integers(2)]
            at, nbytes, times, full, free = loads[name]
            transfer, span, start = self._shape(nbytes)
            span = aligned(span)
            if name == "x":
                memory = self._data(self._resident(span * times, product))
            else:
                transfer = {"x_bytes": nbytes, "y": 1, "z": 1}
                span, start = nbytes, 0
                padded = [np.pad(raw, (0, nbytes - len(raw))) for raw in raws]
                memory = self._data(np.concatenate(padded))
                blob_memory = memory
            self._job.commands.append(
                command(
                    Opcode.LOAD,
                    transfer,
                    queue=queue,
                    operands=[operand(memory + start, inner=span), operand(at, pong=nbytes)],
                    inner=times,
                    wait=[ready, semaphore(free)],
                    signal=[semaphore(full)] * (outer if name == "blob" and not blob_outer else 1),
                )
            )
        self._job.blobs[len(self._job.commands)] = (blob_memory, np.tile(used, (shape[0], 1)))
        self._job.commands.append(
            command(
                Opcode.MATMUL,
                body,
                operands=[
                    operand(place, pong=blob_bytes if blob_outer else 0),
                    operand(x_at + x_start, pong=x_bytes),
                    operand(
                        out_at + out_start, inner=tile_bytes if out_outer else 0, pong=out_bytes
                    ),
                ],
                inner=inner,
                outer=outer,
                pong_outer=1 | x_outer << 1 | out_outer << 2,
                wait=self._shuffled(
                    semaphore(x_full, outer=x_outer),
                    semaphore(b_full, outer=True),
                    semaphore(out_free, outer=out_outer),
                ),
                signal=self._shuffled(
                    semaphore(x_free, outer=x_outer),
                    semaphore(out_full, outer=out_outer),
                    *([semaphore(b_free, outer=True)] if blob_outer else []),
                ),
            )
        )
        self._job.commands.append(
            self._store(
                out_at,
                out_bytes,
                outer if out_outer else tiles,
                wait=[semaphore(out_full)],
                signal=[semaphore(out_free)],
            )
        )

    def _shuffled(self, *references: dict[str, int]) -> list[dict[str, int]]:
        return [references[i] for i in self.rng.permutation(len(references)).tolist()]
