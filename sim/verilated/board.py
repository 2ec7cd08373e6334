"""A board that is simulated: shell and card in Verilator, behind a pseudo-terminal."""

import os
import threading
import tty
import weakref
from pathlib import Path
from typing import Self

from ...rtl.config import CardConfig
from ...rtl.memory.sdram_timing import SdramTiming
from .build import Progress
from .design import Design
from .library import shell_design
from .model import Model

__all__ = ["REST_CYCLES", "VirtualBoard"]

REST_CYCLES = 20_000
"""Cycles in which nothing happens, after which the clock stops. All that the shell does without a
job and without bits on the line is done in fewer: a reset of the card, for instance."""


class _Runner:
    """Runs the model in a thread, and holds what that thread needs."""

    def __init__(self, model: Model, *, clock_hz: int, baud: int) -> None:
        self.model = model
        self.port: str | None = None
        self._rates = {"clock_hz": clock_hz, "baud": baud}
        self._descriptors: list[int] = []
        self._stop = -1
        self._thread: threading.Thread | None = None
        self._closed = False
        self._lock = threading.Lock()

    def run(self, *, plugged: bool) -> None:
        """Start, or start again with or without a terminal."""
        with self._lock:
            if self._closed:
                raise ValueError("the board is switched off")
            self._end()
            terminal = -1
            if plugged:
                # As long as the user's end is open here too, users may come and go.
                terminal, user = os.openpty()
                self._descriptors += [terminal, user]
                tty.setraw(user)
                os.set_blocking(terminal, False)
                self.port = os.ttyname(user)
            stop, self._stop = os.pipe()
            self._descriptors.append(stop)
            self._thread = threading.Thread(
                target=_serve, args=(self.model, terminal, stop, self._rates), daemon=True
            )
            self._thread.start()

    def _end(self) -> None:
        if self._thread is None:
            return
        os.close(self._stop)
        self._thread.join()
        self._thread = None
        self.port = None
        while self._descriptors:
            os.close(self._descriptors.pop())

    def close(self) -> None:
        with self._lock:
            self._end()
            self._closed = True
            self.model.close()


def _serve(model: Model, terminal: int, stop: int, rates: dict[str, int]) -> None:
    model.serve(terminal, stop, rest=REST_CYCLES, **rates)


class VirtualBoard:
    """A board, simulated cycle by cycle, whose serial line is a pseudo-terminal.

    It runs in a thread of its own. Time is that of its clock: it passes as fast as the simulation
    can, and stands still while no job runs and nothing is on the line, or while nobody takes what
    the board sends. The first call for a configuration converts and compiles, as for
    `VerilatedCard`. Use as a context manager, or call `close`.

    Parameters
    ----------
    config : CardConfig
    build_hash : int
        What the card's CSRs say.
    clock_hz, baud : int
        Of `Shell`. A small quotient makes the line quick: it is played bit by bit.
    sdram : SdramTiming, optional
        The chip that holds the card's memory; without it block RAM does.
    waves : Path, optional
        VCD file of all signals.
    wave_cycles : int
        How many cycles the waves hold at most; 0 for all.
    progress : callable, optional
        As for `VerilatedCard`.
    design : Design, optional
        What to simulate instead of the `Shell`; with its ports ``rx``, ``tx`` and ``busy``.

    Raises
    ------
    ToolError
        If it cannot be built; the message is one line for the user.
    """

    def __init__(
        self,
        config: CardConfig,
        *,
        build_hash: int,
        clock_hz: int,
        baud: int,
        sdram: SdramTiming | None = None,
        waves: Path | None = None,
        wave_cycles: int = 0,
        progress: Progress | None = None,
        design: Design | None = None,
    ) -> None:
        self.config = config
        if design is None:
            design = shell_design(
                config,
                clock_hz=clock_hz,
                baud=baud,
                build_hash=build_hash,
                sdram=sdram,
                arrays=waves is None,
                progress=progress,
            )
        model = Model(design, waves=waves, wave_cycles=wave_cycles, progress=progress)
        model.set("rx", 1)
        model.reset()
        self._runner = _Runner(model, clock_hz=clock_hz, baud=baud)
        # Also at the interpreter's exit, while the thread can still be joined.
        self._finalizer = weakref.finalize(self, self._runner.close)
        self._runner.run(plugged=True)

    @property
    def port(self) -> str:
        """Path of the terminal; raise `ValueError` while the cable is out."""
        port = self._runner.port
        if port is None:
            raise ValueError("the board is not connected")
        return port

    @property
    def cycles(self) -> int:
        """Cycles since power-up, a little behind while the board runs."""
        return self._runner.model.cycles

    def output(self, name: str) -> int:
        """Return what an output of the `Shell` shows, such as ``"error"``; with an SDRAM also
        ``"fault"``: which rule of the chip was broken first (`Surroundings`)."""
        return self._runner.model.get(name)

    def cut(self) -> None:
        """Pull the cable: what is on the line is lost, and users of the terminal are hung up on.

        The board stays powered, and its job runs on.
        """
        self._runner.run(plugged=False)

    def reconnect(self) -> str:
        """Plug the cable in again, pulling it first if it is in; return the new `port`."""
        self._runner.run(plugged=True)
        return self.port

    def close(self) -> None:
        """Switch the board off. The object is of no use afterwards."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
