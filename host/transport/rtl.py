"""The Verilated RTL as a card: every cycle is real."""

from pathlib import Path

from ...rtl.config import CardConfig
from ...sim.verilated import doctor
from ...sim.verilated.library import VerilatedCard
from ...sim.verilated.toolchain import ToolError, find_compiler
from .base import Progress, SetupError, ToolCheck
from .simulated import SimulatedTransport

__all__ = ["RtlTransport", "check_tools"]


class RtlTransport(SimulatedTransport):
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
            super().__init__(VerilatedCard(config, waves=waves, progress=progress))
        except ToolError as error:
            raise SetupError(str(error)) from error

    def details(self) -> dict[str, str]:
        compiler = find_compiler()
        return {"compiler": compiler.version or compiler.name}


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
