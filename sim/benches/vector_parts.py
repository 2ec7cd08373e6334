"""What the benches of the vector unit's parts share: the part with its scratchpad and a model that
runs beside it, and commands with faults."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from ...rtl import isa
from ...rtl.config import CardConfig
from .lib import bench_config, pack, rng, start
from .units import Outcome, ScratchpadModel, UnitDriver, see_errors

__all__ = ["Body", "Bytes", "VectorCard", "see_faults"]

Body = dict[str, int]
"""Fields of a command's body."""
Bytes = npt.NDArray[np.uint8]

# Amaranth's enums look like integers to a type checker.
Status: Any = isa.Status


class VectorCard(abc.ABC):
    """A part of the vector unit with a scratchpad, and a copy of its bytes that a model changes.

    The design has a `UnitPort` called ``unit``, and a `ReadPort` and a `WritePort` of one granule
    called ``read`` and ``write``. A bench derives from this class and gives ``layout`` and `model`.
    Create it with `begin`.

    Attributes
    ----------
    layout : Layout or Struct class
        Of a command's body. Of the class.
    long_stall : float
        Probability of a long pause (see `Stall`) where `disturb` draws any. Of the class.
    config : CardConfig
    scratchpad : ScratchpadModel
    unit : UnitDriver
    expected : numpy.ndarray of uint8
        What the scratchpad's bytes should be.
    """

    layout: ClassVar[Any]
    long_stall: ClassVar[float] = 0.02

    def __init__(self, dut: Any, config: CardConfig, r: np.random.Generator) -> None:
        self.config = config
        self.scratchpad = ScratchpadModel(dut, config, r, read=1, write=1)
        self.unit = UnitDriver(dut, r)
        self.expected = self.scratchpad.bytes.copy()

    @classmethod
    async def begin(cls, dut: Any) -> tuple[Self, np.random.Generator]:
        """Start the design with everything around it; return also the test's generator."""
        r = rng()
        await start(dut)
        return cls(dut, bench_config(), r), r

    @abc.abstractmethod
    def model(self, body: Body, operand: list[int], vague: Bytes) -> Any:
        """Run an iteration on ``expected``; return its status if it fails, else None.

        ``vague`` has as many bytes as the scratchpad. It may get a 1 for each byte that an
        iteration which fails may have written or not: those are not compared.
        """

    def fill(self, at: int, content: npt.NDArray) -> None:
        """Put numbers of any type into the scratchpad, which has room for them."""
        raw = np.ascontiguousarray(content).reshape(-1).view(np.uint8)
        self.scratchpad.bytes[at : at + raw.size] = raw
        self.expected[at : at + raw.size] = raw

    async def run(self, body: Body, operands: list[list[int]]) -> Outcome:
        """Run a command on the design and on the copy, and compare all bytes.

        At each ``done`` what the iteration leaves behind is there; at the end all bytes are equal,
        and nothing is written after it.
        """
        after = []
        status = None
        vague = np.zeros_like(self.expected)
        for operand in operands:
            status = self.model(body, operand, vague)
            if status is not None:
                break
            after.append(self.expected.copy())

        def on_done(index: int) -> None:
            # The results of the next iteration may already arrive, but none that is to stay.
            later = after[index + 1] if index + 1 < len(after) else self.expected
            stays = (later == after[index]) & (vague == 0)
            same = self.scratchpad.bytes == after[index]
            assert same[stays].all(), f"iteration {index} is not done: {body} {operands}"

        outcome = await self.unit.run(pack(self.layout, body), operands, on_done=on_done)
        assert outcome.status == (None if status is None else status.value), (body, operands)
        assert outcome.done == len(after)
        writes = self.scratchpad.writes
        await self.unit.quiet(6)
        assert self.scratchpad.writes == writes, "a write after the end"
        wrong = np.flatnonzero((self.scratchpad.bytes != self.expected) & (vague == 0))
        assert not wrong.size, f"{wrong.size} bytes differ from {wrong[0]:#x} on: {body} {operands}"
        self.expected[:] = self.scratchpad.bytes
        return outcome

    def disturb(self, r: np.random.Generator) -> None:
        """Draw how much each side stalls."""
        for stall in (self.scratchpad.read_stall, self.scratchpad.write_stall, self.unit.stall):
            stall.short = float(r.choice([0.0, 0.1, 0.5, 0.9]))
            stall.long = float(r.choice([0.0, 0.0, self.long_stall]))


async def see_faults(
    card: VectorCard,
    r: np.random.Generator,
    draw: Callable[[int], tuple[Body, list[list[int]]]],
    spoil: Callable[[np.random.Generator, CardConfig, Body, list[list[int]], int], None],
    *,
    faults: int,
    first: tuple[str, ...],
    cases: int,
) -> None:
    """Run commands with one fault or two until every error was seen, everything stalling.

    Addresses and their alignment must also fail in an iteration after the first one.

    Parameters
    ----------
    card : VectorCard
    r : numpy.random.Generator
    draw : callable
        Returns the body and the operands of up to three iterations of a command that does not
        fail, given how often each fault has been put into a command before it.
    spoil : callable
        Puts the fault of a number, the last argument, into a command's body and operands.
    faults : int
        Kinds of faults, from 0 on.
    first : tuple of str
        Names of the statuses that must be seen in a first iteration.
    cases : int
        Run at least so many.
    """
    wanted = {(Status[name].value, 0) for name in first}
    wanted |= {(Status.BAD_ALIGNMENT.value, 1), (Status.BAD_ADDRESS.value, 1)}

    async def attempt(number: int) -> Outcome:
        if number % 3 == 0:
            card.disturb(r)
        body, operands = draw(number // faults)
        operands = operands[: int(r.choice([1, 2, 3]))]
        spoil(r, card.config, body, operands, number % faults)
        if r.random() < 0.3:
            spoil(r, card.config, body, operands, int(r.integers(faults)))
        return await card.run(body, operands)

    await see_errors(card.unit, wanted, attempt, cases=cases)
