"""What a board is to the card: its device, its clock, its pins, and how it is built for."""

import dataclasses
import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from ..rtl.config import CardConfig, preset
from ..rtl.memory.sdram_timing import SdramTiming
from .families import BoardError, ClockSetting, Device, Family, family_of

if TYPE_CHECKING:
    from amaranth.build import Resource

__all__ = [
    "BLOCK",
    "LED_NAMES",
    "MEMORIES",
    "SDRAM",
    "Board",
    "BoardError",
    "Device",
    "SdramTiming",
]

LED_NAMES = ("heartbeat", "running", "activity", "error")
"""What the LEDs can show: a clock that runs, a job that runs, bytes on the line, an error."""

MEMORY_BYTES = {"tiny": 256 << 10, "wide": 128 << 10}
"""Card memory by preset where block RAM has to hold it ..."""

LEAST_MEMORY_BYTES = 64 << 10
"""... and where the array and its scratchpad leave no room for more."""

BLOCK, SDRAM = "block", "sdram"

MEMORIES = {BLOCK: "block RAM", SDRAM: "SDRAM"}
"""What can hold the card's memory: its name on the command line, and for people."""

SDRAM_BEATS = (8, 16)
"""Bytes of the bus that the controller of an SDRAM can do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Board:
    """A board.

    Parameters
    ----------
    name : str
        Name on the command line.
    summary : str
        What it is, for people.
    device, speed : str
        Device and its speed grade; "virtual" and an empty string where there is none.
    clock_hz : int
        Default of the card's clock; the next lower one that can be made is taken.
    baud : int
        Bits a second of the serial line.
    platform : str
        ``module:class`` of the platform in amaranth-boards.
    oscillator : str
        Name of the clock resource.
    oscillator_hz : int
        Its frequency.
    uart : tuple[str, int]
        Resource with ``rx`` and ``tx``.
    leds : dict[str, tuple]
        Resource (name, number, and subsignal if it has some) of each of `LED_NAMES` that the
        board has room for.
    high : tuple[tuple[str, int], ...]
        Outputs that have to be driven high.
    resources : tuple[Resource, ...]
        What the platform lacks.
    programmer : str
        Name of the board for openFPGALoader.
    pack : tuple[str, ...]
        Options of the tool that writes the bitstream.
    sdram : SdramTiming or None
        An SDRAM at the resource ``sdram``; None if the board has none.
    """

    name: str
    summary: str
    device: str
    speed: str
    clock_hz: int
    baud: int
    platform: str = ""
    oscillator: str = ""
    oscillator_hz: int = 0
    uart: tuple[str, int] = ("uart", 0)
    leds: dict[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    high: tuple[tuple[str, int], ...] = ()
    resources: "tuple[Resource, ...]" = ()
    programmer: str = ""
    pack: tuple[str, ...] = ("--compress",)
    sdram: SdramTiming | None = None

    @property
    def memories(self) -> tuple[str, ...]:
        """What can hold the card's memory, of `MEMORIES`; the first one is the default."""
        return (BLOCK,) if self.sdram is None else (BLOCK, SDRAM)

    @property
    def is_virtual(self) -> bool:
        return not self.platform

    @property
    def family(self) -> Family:
        """Of its device."""
        return family_of(self.device)

    @property
    def suffix(self) -> str:
        """Ending of its bitstreams."""
        return ".bit" if self.is_virtual else self.family.suffix

    @property
    def capacity(self) -> Device:
        """What its device holds."""
        return self.family.capacity(self.device)

    def clock(self, hz: float) -> ClockSetting:
        """Return how the highest clock that is not above ``hz`` is made of the oscillator's.

        Raises
        ------
        BoardError
            If there is none; says the lowest and the highest one.
        """
        return self.family.clock(self.oscillator_hz, hz)

    def sdram_of(self, memory: str) -> SdramTiming | None:
        """Return the SDRAM that holds the card's memory, None if block RAM does.

        Raises
        ------
        BoardError
            If the board has no such memory; lists those it has.
        """
        if memory not in self.memories:
            raise BoardError(
                f"the board {self.name} has no memory {memory!r}; choose one of: "
                f"{', '.join(self.memories)}"
            )
        return self.sdram if memory == SDRAM else None

    def config(self, name: str, memory: str = BLOCK) -> CardConfig:
        """Return the card of a preset as it is on this board: with as much memory as there is of
        that sort, without the parts of the vector unit that need the most room, and with epilogue
        lanes that four row engines share.

        Raises
        ------
        ValueError
            If there is no such preset, or no such memory; lists those there are.
        """
        config, sdram = preset(name), self.sdram_of(memory)
        memory_bytes = MEMORY_BYTES.get(name, LEAST_MEMORY_BYTES)
        if sdram is not None:
            memory_bytes = sdram.bytes
            if config.bus_bytes not in SDRAM_BEATS:
                raise BoardError(
                    f"the card of preset {name} has a bus of {config.bus_bytes} bytes, and an "
                    f"SDRAM serves one of {' or '.join(map(str, SDRAM_BEATS))}; choose a smaller "
                    f"preset, or --memory {BLOCK}"
                )
        return dataclasses.replace(
            config,
            memory_bytes=memory_bytes,
            vector_parts=("pool",),
            engines_per_lane=min(4, config.rows),
        )

    def make_platform(self) -> Any:
        """Return the Amaranth platform, with everything the board adds to it.

        It has the attribute ``technology`` (`deepseek.rtl.tech`). Raise `BoardError` if
        amaranth-boards is missing.
        """
        module, _, name = self.platform.partition(":")
        if importlib.util.find_spec("amaranth_boards") is None:
            raise BoardError(
                "amaranth-boards is not installed: pip install 'deepseek-card[boards]'"
            )
        base = getattr(importlib.import_module(module), name)
        # Only the text is wanted of it: it is run block by block, by the flow.
        return type(
            name,
            (base,),
            {
                "technology": self.family.technology,
                "resources": [*base.resources, *self.resources],
                "command_templates": [],
                "required_tools": [],
                **self.family.platform(base),
            },
        )()
