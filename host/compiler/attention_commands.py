"""The commands of an attention job: loads, products, softmax and stores of its blocks."""

import dataclasses
import enum
from collections.abc import Iterator

from ...rtl.config import CardConfig
from ...rtl.isa import DirectoryEntry, Queue
from . import commands
from .attention_layout import OUT_BUFFERS, QUERY_BUFFERS, VALUE_BUFFERS, AttentionLayout
from .commands import Operand, Signal, Wait
from .packing import Packer
from .rows import Rows
from .streams import DIRECTORY_ENTRY_BYTES

__all__ = ["PIECES", "Addresses", "AttentionCommands", "AttentionScales"]

PIECES = 4
"""A head's V comes in so many pieces."""

SCALE_OFFSET = Packer(DirectoryEntry).fields["scale"].offset // 8


class Sem(enum.IntEnum):
    """What each semaphore counts."""

    Q_FULL = 0
    Q_FREE = 1
    K_FULL = 2
    K_FREE = 3
    V_FULL = 4
    V_FREE = 5
    T_FULL = 6
    """Transposed values of a head."""
    T_FREE = 7
    S_FULL = 8
    """Scores of a block."""
    P_FULL = 9
    """Its powers."""
    P_FREE = 10
    O_FULL = 11
    O_FREE = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionScales:
    """Factors of the numbers of an attention.

    Parameters
    ----------
    score : float
        Of the exact sums of Q K^T: their scale, with 1 / sqrt(dim), over that of the scores.
    softmax : float
        Scale of the scores.
    out : float
        Scale of V over that of O.
    anchor : int
        Of the window, for BF16.
    """

    score: float
    softmax: float = 1.0
    out: float = 1.0
    anchor: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where the directories, Q, K, V and O are in card memory."""

    tables: int
    q: int
    k: int
    v: int
    o: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Block:
    """A block of queries.

    Parameters
    ----------
    head, number : int
        Its head, and its number in the head.
    first, count : int
        Its first row, and how many it has.
    seen : int
        Rows of K and V that it is multiplied with.
    opens, closes : bool
        Whether it is the first or the last one of its head to be worked on.
    """

    head: int
    number: int
    first: int
    count: int
    seen: int
    opens: bool
    closes: bool


class AttentionCommands:
    """A job, step by step.

    In step g the g-th block's scores are made, and the powers of block g - lag are multiplied. No
    command waits for one that comes later in the job: with queues of any depth it ends. Causal
    heads begin with their last block, which takes longest: the pipeline's ends are short then.

    Parameters
    ----------
    config : CardConfig
    layout : AttentionLayout
    scales : AttentionScales
    at : Addresses
    """

    def __init__(
        self, config: CardConfig, layout: AttentionLayout, scales: AttentionScales, at: Addresses
    ) -> None:
        self.config, self.layout, self.scales, self.at = config, layout, scales, at
        self.shape = layout.shape
        self.total = self.shape.heads * self.layout.blocks
        self.chunks = -(-self.shape.seq // self.layout.chunk)

    def all(self) -> Iterator[bytes]:
        """Yield the commands of the job."""
        blocks, lag, copies = self.layout.blocks, self.layout.lag, self.layout.copies
        # Steps after which a head's K is loaded, and V is loaded and transposed.
        k_steps, v_steps = {}, {}
        for head in range(1, self.shape.heads):
            ahead = head * blocks - 1 - blocks // 2
            k_steps[max((head - copies + 1) * blocks - 1, ahead)] = head
            v_steps[max((head - copies + 1) * blocks - 1 + lag, ahead)] = head
        yield self._load_table("q")
        yield from self._load_queries(0)
        yield from self._load_keys(0)
        if not self.shape.causal:
            yield self._load_table("s")
        for step in range(self.total + lag):
            if step < self.total:
                yield from self._scores(step)
                if step + 1 < self.total:
                    yield from self._load_queries(step + 1)
                if step == 0:
                    yield from self._transpose(0)
                yield self._softmax(step)
            if step >= lag:
                yield from self._finish(step - lag)
            if step in k_steps:
                yield from self._load_keys(k_steps[step])
            if step in v_steps:
                yield from self._transpose(v_steps[step])

    def _block(self, index: int) -> "_Block":
        """Return the block that is worked on at a place of the job."""
        blocks, rows, seq = self.layout.blocks, self.layout.rows, self.shape.seq
        head, turn = divmod(index, blocks)
        number = blocks - 1 - turn if self.shape.causal else turn
        return _Block(
            head=head,
            number=number,
            first=number * rows,
            count=min(rows, seq - number * rows),
            seen=self.layout.seen(number),
            opens=turn == 0,
            closes=turn == blocks - 1,
        )

    def _load_table(self, kind: str) -> bytes:
        """Load the directory that all blocks share to the buffers of a kind.

        Whoever uses it waits for something that the same queue loads later: scores for queries,
        softmax for the values that VECTOR transposes before.
        """
        layout, scores = self.layout, kind == "q"
        count = QUERY_BUFFERS if scores else layout.score_buffers
        return commands.load(
            Operand(self.at.tables + (0 if scores else layout.directory)),
            Operand(layout.buffer(kind)),
            x_bytes=layout.directory,
            y=min(count, self.total),
            scratchpad_y_stride=layout.pitch(kind),
            queue=Queue.LOAD0 if scores else Queue.LOAD1,
        )

    def _load_queries(self, index: int) -> Iterator[bytes]:
        layout, pitch = self.layout, self.shape.pitch
        block = self._block(index)
        if self.shape.causal:
            # It counts what its rows see, so every block needs one of its own.
            reused = index >= layout.score_buffers
            yield commands.load(
                Operand(self.at.tables + (1 + block.number) * layout.directory),
                Operand(layout.buffer("s", index)),
                x_bytes=layout.directory,
                wait=[Wait(Sem.P_FREE)] if reused else [],
            )
        yield commands.load(
            Operand(self.at.q + (block.head * self.shape.seq + block.first) * pitch),
            Operand(layout.buffer("q", index) + layout.directory),
            x_bytes=block.count * pitch,
            wait=[Wait(Sem.Q_FREE)] if index >= QUERY_BUFFERS else [],
            signal=[Signal(Sem.Q_FULL)],
        )

    def _pieces(self, head: int) -> list[tuple[int, int]]:
        """Return the rows, from and to, of the pieces in which a head's K is loaded."""
        seq, config, shape = self.shape.seq, self.config, self.shape
        if head and self.layout.copies > 1:
            return [(0, seq)]
        # The first product waits for little, and each piece comes while the one before is used.
        pieces, at, size = [], 0, config.cols * shape.lanes
        while at < seq:
            end = seq if seq - at < 2 * size else at + size
            pieces.append((at, end))
            at, size = end, 2 * size
        return pieces

    def _load_keys(self, head: int) -> Iterator[bytes]:
        pitch = self.shape.pitch
        for start, end in self._pieces(head):
            reused = start == 0 and head >= self.layout.copies
            yield commands.load(
                Operand(self.at.k + (head * self.shape.seq + start) * pitch),
                Operand(self.layout.buffer("k", head) + start * pitch),
                x_bytes=(end - start) * pitch,
                queue=Queue.LOAD1,
                wait=[Wait(Sem.K_FREE)] if reused else [],
                signal=[Signal(Sem.K_FULL)],
            )

    def _transpose(self, head: int) -> Iterator[bytes]:
        """Load V in chunks, and transpose them; two chunks are loaded ahead."""
        for chunk in range(self.chunks + VALUE_BUFFERS):
            if chunk >= VALUE_BUFFERS:
                yield self._transpose_chunk(head, chunk - VALUE_BUFFERS)
            if chunk < self.chunks:
                yield self._load_values(head, chunk)

    def _load_values(self, head: int, chunk: int) -> bytes:
        shape, rows = self.shape, self.layout.chunk
        index = head * self.chunks + chunk
        return commands.load(
            Operand(self.at.v + (head * shape.seq + chunk * rows) * shape.pitch),
            Operand(self.layout.buffer("v", index)),
            x_bytes=min(rows, shape.seq - chunk * rows) * shape.pitch,
            queue=Queue.LOAD1,
            wait=[Wait(Sem.V_FREE)] if index >= VALUE_BUFFERS else [],
            signal=[Signal(Sem.V_FULL)],
        )

    def _transpose_chunk(self, head: int, chunk: int) -> bytes:
        shape, rows = self.shape, self.layout.chunk
        wait, signal = [Wait(Sem.V_FULL)], [Signal(Sem.V_FREE)]
        if chunk == 0 and head >= self.layout.copies:
            wait.append(Wait(Sem.T_FREE))
        if chunk == self.chunks - 1:
            signal.append(Signal(Sem.T_FULL))
        return commands.transpose(
            Operand(self.layout.buffer("v", head * self.chunks + chunk)),
            Operand(self.layout.buffer("t", head) + chunk * rows * shape.size),
            rows=min(rows, shape.seq - chunk * rows),
            length=shape.dim,
            format=shape.format,
            in_stride=shape.pitch,
            out_stride=shape.score_pitch,
            wait=wait,
            signal=signal,
        )

    def _scores(self, index: int) -> Iterator[bytes]:
        """Multiply a block of Q by K; a head's first block in pieces, as K comes in."""
        layout, shape = self.layout, self.shape
        block = self._block(index)
        parts = [(0, block.seen, 0)]
        if block.opens:
            parts = [(start, end, 1) for start, end in self._pieces(block.head)]
            if len(parts) < 3:
                parts = [(0, block.seen, len(parts))]
        for number, (start, end, pieces) in enumerate(parts):
            wait = [Wait(Sem.K_FULL)] * pieces
            signal = []
            if number == 0:
                wait.append(Wait(Sem.Q_FULL))
                if index >= layout.score_buffers and not shape.causal:
                    wait.append(Wait(Sem.P_FREE))
            if number == len(parts) - 1:
                signal += [Signal(Sem.S_FULL), Signal(Sem.Q_FREE)]
                signal += [Signal(Sem.K_FREE)] if block.closes else []
            yield commands.matmul(
                Operand(layout.buffer("q", index)),
                Operand(layout.buffer("k", block.head) + start * shape.pitch),
                Operand(layout.buffer("s", index) + layout.directory + start * shape.size),
                k=shape.dim,
                n=end - start,
                entries=block.count,
                x_inner_stride=shape.pitch,
                stream_format=shape.format,
                out_format=shape.score_format,
                anchor=self.scales.anchor,
                wait=wait,
                signal=signal,
            )

    def _softmax(self, index: int) -> bytes:
        layout, shape = self.layout, self.shape
        block = self._block(index)
        at = layout.buffer("s", index)
        rows = Rows(
            length=block.seen,
            y=block.count,
            in_format=shape.score_format,
            out_format=shape.format,
            in_y_stride=shape.score_pitch,
            out_y_stride=shape.score_pitch,
        )
        return commands.softmax(
            Operand(at + layout.directory),
            Operand(at + layout.directory),
            rows,
            scale=self.scales.softmax,
            b_scale=shape.largest,
            c_scale=self.scales.out / shape.largest,
            scales=Operand(at + SCALE_OFFSET),
            scale_y_stride=DIRECTORY_ENTRY_BYTES,
            valid=block.first + 1 if shape.causal else 0,
            valid_step=1 if shape.causal else 0,
            wait=[Wait(Sem.S_FULL)],
            signal=[Signal(Sem.P_FULL)],
        )

    def _finish(self, index: int) -> Iterator[bytes]:
        """Multiply a block's powers by V, and store the block of O."""
        layout, shape = self.layout, self.shape
        block = self._block(index)
        wait = [Wait(Sem.P_FULL)]
        wait += [Wait(Sem.T_FULL)] if block.opens else []
        wait += [Wait(Sem.O_FREE)] if index >= OUT_BUFFERS else []
        signal = [Signal(Sem.P_FREE), Signal(Sem.O_FULL)]
        signal += [Signal(Sem.T_FREE)] if block.closes else []
        yield commands.matmul(
            Operand(layout.buffer("s", index)),
            Operand(layout.buffer("t", block.head)),
            Operand(layout.buffer("o", index)),
            k=block.seen,
            n=shape.dim,
            entries=block.count,
            x_inner_stride=shape.score_pitch,
            stream_format=shape.format,
            anchor=self.scales.anchor,
            wait=wait,
            signal=signal,
        )
        yield commands.store(
            Operand(self.at.o + (block.head * shape.seq + block.first) * shape.pitch),
            Operand(layout.buffer("o", index)),
            x_bytes=block.count * shape.pitch,
            wait=[Wait(Sem.O_FULL)],
            signal=[Signal(Sem.O_FREE)],
        )
