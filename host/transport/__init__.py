"""Transports: the functional simulator and the Verilated card."""

from pathlib import Path

from ...rtl.config import CardConfig
from .base import Progress, SetupError, ToolCheck, Transport

__all__ = [
    "BACKENDS",
    "Progress",
    "SetupError",
    "ToolCheck",
    "Transport",
    "check_tools",
    "open_transport",
]

BACKENDS = ("rtl", "functional")


def open_transport(
    backend: str,
    config: CardConfig,
    *,
    waves: Path | None = None,
    progress: Progress | None = None,
) -> Transport:
    """Open the card ``backend``.

    Parameters
    ----------
    waves : Path
        Write the waves of every signal there; only the rtl backend has waves.
    progress : callable
        Hears of the build of the Verilated card.

    Raises
    ------
    ValueError
        If the backend is unknown, or has no waves; says which ones there are.
    """
    # Simulators are imported only when they are opened: the driver does not depend on them.
    if backend == "rtl":
        from .rtl import RtlTransport

        return RtlTransport(config, waves=waves, progress=progress)
    if backend == "functional":
        if waves is not None:
            raise ValueError("the functional backend has no waves; use --backend rtl")
        from .functional import FunctionalTransport

        return FunctionalTransport(config)
    raise ValueError(f"no backend {backend!r}; choose one of: {', '.join(BACKENDS)}")


def check_tools(progress: Progress | None = None) -> list[ToolCheck]:
    """Look for the tools that the rtl backend needs, and build and run a small module."""
    from .rtl import check_tools as check_rtl

    return check_rtl(progress)
