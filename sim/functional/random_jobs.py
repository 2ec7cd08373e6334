"""Random jobs without races: what the RTL and the functional simulator must agree on.

Each operation of a job loads what it reads, works, and stores what it wrote; its loads, its unit
and its store run ahead of each other through loops, two buffers and semaphores.
"""

from collections.abc import Callable

import numpy as np

from ...rtl.isa import Opcode
from .assemble import command, operand, semaphore
from .random_operands import aligned
from .random_rows import RandomRows
from .random_tiles import Tile
from .random_transfers import LOADS, RandomJob

__all__ = ["RandomJob", "RandomJobs"]


class RandomJobs(RandomRows):
    """Makes random jobs; parameters are those of `random_transfers.RandomTransfers`."""

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
        kinds, shares = self._kinds()
        for _ in range(operations):
            if self._chance(0.2):
                self._barrier()
            kinds[self.rng.choice(len(kinds), p=shares)]()
        if whole:
            job.commands += [command(Opcode.BARRIER)]
            job.dump = self._memory(size)
            job.commands += [command(Opcode.STORE, body, operands=[job.dump, 0])]
        return job

    def _kinds(self) -> tuple[list[Callable[[], None]], list[float]]:
        """Return what makes an operation of each kind that the card runs, and how many are such."""
        parts = self.config.vector_parts
        kinds = [
            (self._matmul, 0.3),
            (self._matmuls, 0.15),
            (self._copy, 0.1),
            (self._relay, 0.05),
            (self._vector, 0.1),
            *([(self._rows, 0.15)] if "rows" in parts else []),
            *([(self._reformat, 0.15)] if "reformat" in parts else []),
        ]
        total = sum(share for _, share in kinds)
        return [kind for kind, _ in kinds], [share / total for _, share in kinds]

    # Products.

    def _matmul(self) -> None:
        """Stream blobs past resident operands: loads, product and store of one tile or many."""
        rng, config = self.rng, self.config
        many = self._chance(0.5)
        inner, outer = (self._int(1, 3), self._int(1, 3)) if many else (1, 1)
        x_outer, blob_outer, out_outer = (self._chance(0.5) for _ in range(3))
        blobs = outer if blob_outer else 1

        while True:
            tile = self._tile(self._product(), blobs)
            if tile is None:
                continue
            blob_bytes, x_bytes, tile_bytes = tile.blob_bytes, tile.x_bytes, tile.out_bytes
            out_bytes = tile_bytes * (inner if out_outer else 1)
            buffers = 2 * (x_bytes + blob_bytes + out_bytes)
            if buffers <= config.scratchpad_bytes // 2:
                break

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
                memory = self._data(self._resident(span * times, tile.product))
            else:
                transfer = {"x_bytes": nbytes, "y": 1, "z": 1}
                span, start = nbytes, 0
                padded = [np.pad(raw, (0, nbytes - len(raw))) for raw in tile.raws]
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
        self._job.blobs[len(self._job.commands)] = (blob_memory, tile.rows)
        self._job.commands.append(
            command(
                Opcode.MATMUL,
                tile.body,
                operands=[
                    operand(place, pong=blob_bytes if blob_outer else 0),
                    operand(x_at + tile.x_start, pong=x_bytes),
                    operand(
                        out_at + tile.out_start,
                        inner=tile_bytes if out_outer else 0,
                        pong=out_bytes,
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

    def _matmuls(self) -> None:
        """Some products behind each other, of one tile each, most often with all operands there."""
        tiles, count = [self._tile_like(None)], self._int(2, 5)
        limit = self.config.scratchpad_bytes // 2
        while len(tiles) < count:
            tile = self._tile_like(tiles[-1] if self._chance(0.8) else None)
            if sum(each.nbytes for each in (*tiles, tile)) > limit:
                break
            tiles.append(tile)
        total = sum(each.nbytes for each in tiles)
        place = self._room(total, 4)
        ready = self._blank(place, total, 1)
        full, go, done = (self._semaphore() for _ in range(3))
        together = self._chance(0.7)
        queue, commands = LOADS[self._int(0, 1)], self._job.commands
        places: list[tuple[Tile, int, int]] = []  # with their blobs in the scratchpad and in memory
        for number, tile in enumerate(tiles):
            memory = self._data(tile.raws[0])
            x_memory = self._data(self._resident(tile.x_bytes, tile.product))
            places.append((tile, place, memory))
            last = number == len(tiles) - 1
            parts = (memory, 0, tile.blob_bytes), (x_memory, tile.blob_bytes, tile.x_bytes)
            for part, (source, offset, nbytes) in enumerate(parts):
                commands.append(
                    command(
                        Opcode.LOAD,
                        {"x_bytes": nbytes, "y": 1, "z": 1},
                        queue=queue,
                        operands=[source, place + offset],
                        wait=[] if number or part else [ready],
                        signal=[semaphore(full), *([semaphore(go)] if last and part else [])],
                    )
                )
            place += tile.nbytes
        for number, (tile, place, memory) in enumerate(places):
            out_at = place + tile.blob_bytes + tile.x_bytes
            self._job.blobs[len(commands)] = (memory, tile.rows)
            wait = [semaphore(full), semaphore(full)]
            if together and not number:
                wait.append(semaphore(go))
            commands.append(
                command(
                    Opcode.MATMUL,
                    tile.body,
                    operands=[
                        place,
                        place + tile.blob_bytes + tile.x_start,
                        out_at + tile.out_start,
                    ],
                    wait=self._shuffled(*wait),
                    signal=[semaphore(done)],
                )
            )
            commands.append(self._store(out_at, tile.out_bytes, 1, wait=[semaphore(done)]))

    def _shuffled(self, *references: dict[str, int]) -> list[dict[str, int]]:
        return [references[i] for i in self.rng.permutation(len(references)).tolist()]
