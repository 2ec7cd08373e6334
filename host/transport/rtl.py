"""The Verilated RTL as a card: every cycle is real."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...rtl.config import CardConfig
from ...sim.verilated import doctor
from ...sim.verilated.library import VerilatedCard
from ...sim.verilated.toolchain import ToolError, find_compiler
from .base import Progress, SetupError, ToolCheck

__all__ = ["RtlTransport", "check_tools"]


class RtlTransport:
    """A `VerilatedCard` (`base.Transport`); the first use of a design compiles it.

    Parameters
    ----------
    waves : Path
        Where waves go, if any.
    progress : callable
        Hears of the build.

    Raises
    ------
    SetupError
        If the card cannot be built: no compiler, for instance.
    """

    backend = "rtl"
    cycles_modelled = False

    def __init__(
        self,
        config: CardConfig,
        *,
        waves: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.config = config
        try:
            self._card = VerilatedCard(config, waves=waves, progress=progress)
        except ToolError as error:
            raise SetupError(str(error)) from error

    @property
    def build_hash(self) -> int | None:
        return self._card.build_hash

    @property
    def cycles(self) -> int:
        return self._card.cycles

    def csr_read(self, address: int) -> int:
        return self._card.csr_read(address)

    def csr_write(self, address: int, value: int) -> None:
        self._card.csr_write(address, value)

    def read_memory(self, address: int, nbytes: int) -> npt.NDArray[np.uint8]:
        return np.frombuffer(self._card.read_memory(address, nbytes), np.uint8)

    def write_memory(self, address: int, data: npt.NDArray[np.uint8]) -> None:
        self._card.write_memory(address, data)

    def run(self, max_cycles: int) -> int:
        return self._card.run(max_cycles)

    def details(self) -> dict[str, str]:
        compiler = find_compiler()
        return {"compiler": compiler.version or compiler.name}

    def close(self) -> None:
        self._card.close()


def check_tools(progress: Progress | None = None) -> list[ToolCheck]:
    """Look for the tools that this backend needs, and build and run a small module."""
    if progress is not None:
        progress("building a small module", 0.0)
    checks = [*doctor.check_tools(), doctor.check_build()]
    return [
        ToolCheck(
            name=check.name,
            ok=check.ok,
            required=check.required,
            detail=check.found + (f"; {check.advice}" if check.advice else ""),
        )
        for check in checks
    ]
