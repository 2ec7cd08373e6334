"""What the flow has to be told of a family of devices."""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..flow.netlist import BLOCK
from ..flow.timing import Arcs

if TYPE_CHECKING:
    from ..board import Board

__all__ = [
    "BoardError",
    "ClockSetting",
    "ClockSource",
    "Device",
    "Family",
    "Resources",
    "link_script",
    "nearest",
    "synthesis_script",
]


class BoardError(ValueError):
    """A bitstream cannot be built. The message is one line with the next step."""


@dataclasses.dataclass(frozen=True)
class Device:
    """What a device holds.

    Parameters
    ----------
    comb : int
        Combinational cells: a LUT4 each. What a carry cell and a RAM of look-up tables take of
        them is the family's.
    ff : int
        Flip-flops.
    dsp : int
        Multipliers of at least 18 x 18 bits.
    ebr : int
        Block RAMs of 18 kbit.
    """

    comb: int
    ff: int
    dsp: int
    ebr: int


@dataclasses.dataclass(frozen=True)
class Resources:
    """What something takes of a device; see `Device`."""

    comb: int = 0
    ff: int = 0
    dsp: int = 0
    ebr: int = 0

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(*(a + b for a, b in zip(self.tuple, other.tuple, strict=True)))

    def __mul__(self, times: int) -> "Resources":
        return Resources(*(a * times for a in self.tuple))

    @property
    def tuple(self) -> tuple[int, int, int, int]:
        return (self.comb, self.ff, self.dsp, self.ebr)


class ClockSetting(Protocol):
    """How the card's clock is made of the oscillator's."""

    @property
    def hz(self) -> int:
        """The clock, rounded down."""


class ClockSource(wiring.Component):
    """Makes the card's clock.

    Parameters
    ----------
    setting : ClockSetting

    Members
    -------
    oscillator : ``In(1)``
        The input's clock, from its pin.
    clock : ``Out(1)``
    locked : ``Out(1)``
        The clock can be used.
    """

    def __init__(self, setting: Any) -> None:
        self.setting = setting
        super().__init__({"oscillator": In(1), "clock": Out(1), "locked": Out(1)})


Setting = TypeVar("Setting", bound=ClockSetting)


def nearest(settings: Sequence[Setting], oscillator_hz: int, hz: float, what: str) -> Setting:
    """Return the setting of the highest frequency that is not above ``hz``.

    Parameters
    ----------
    settings : sequence of ClockSetting
        In ascending order.
    what : str
        What makes the clock, for the message.

    Raises
    ------
    BoardError
        If there is none; says the lowest and the highest one.
    """
    fitting = [setting for setting in settings if setting.hz <= hz]
    if not fitting or hz > settings[-1].hz:
        raise BoardError(
            f"the {what} makes {settings[0].hz / 1e6:g} to {settings[-1].hz / 1e6:g} MHz of the "
            f"board's {oscillator_hz / 1e6:g} MHz, not {hz / 1e6:g} MHz; choose another --freq"
        )
    return fitting[-1]


def synthesis_script(command: str, *multipliers: str) -> str:
    """Return a script of yosys that synthesises a block (`Family.synthesis`).

    It does what the family's own command does, but in the order that keeps multipliers and their
    registers together, and without what takes long and gains nothing here (fsm, share). It ends
    with look-up tables of several inputs, of which `Family.link` makes cells when it sees all
    blocks.

    Parameters
    ----------
    command : str
        The family's command, with its options.
    multipliers : str
        What makes cells of multipliers.
    """
    return f"""read_rtlil in.il
{command} -top {BLOCK} -run begin:coarse
proc -latches error
flatten
chformal -remove
delete */t:$print
opt_expr
opt_clean
opt -nodffe -nosdff
wreduce
peepopt
opt_clean
techmap -map +/cmp2lut.v -D LUT_WIDTH=4
opt_expr
opt_clean
{chr(10).join(multipliers)}
chtype -set $mul t:$__soft_mul
alumacc
opt
memory -nomap -no-rw-check
opt_clean
{command} -top {BLOCK} -run map_ram:map_cells
delete */t:$scopeinfo
check -assert -noinit
write_rtlil out.il
"""


def link_script(command: str, *cells: str) -> str:
    """Return a script of yosys that makes one netlist of blocks (`Family.link`).

    Parameters
    ----------
    command : str
        The family's command, with its options.
    cells : str
        What makes cells of look-up tables.
    """
    return f"""read_rtlil in.il
{command} -top TOP -run begin:coarse
flatten
delete */t:$scopeinfo
opt_expr
opt_clean -purge
opt_lut
opt_clean -purge
{chr(10).join(cells)}
clean -purge
hierarchy -check
check -assert -noinit
blackbox =A:whitebox
write_json out.json
"""


class Family(abc.ABC):
    """A family of devices, and the tools for it.

    Attributes
    ----------
    prefix : str
        What the names of its devices begin with.
    technology : str
        `deepseek.rtl.tech` calls it so.
    route_tool, pack_tool : str
        Place and route, and what makes the bitstream of its result (`boards.flow.tools`).
    versions : tuple of str
        Those of the tools, beside yosys, whose versions a build records.
    constraints : str
        Ending of the file with pins and clocks.
    suffix : str
        Ending of a bitstream, by which openFPGALoader knows what it is.
    synthesis, link : str
        Scripts of yosys: from ``in.il``, a block called `deepseek.boards.flow.netlist.BLOCK`, to
        ``out.il`` with look-up tables that are not cells yet; and from ``in.il``, all blocks
        below TOP, to ``out.json`` with the device's cells.
    files : Mapping[str, str]
        What these scripts read besides, by name.
    kinds : Mapping[str, str]
        What cells are, for people; flip-flops are "register".
    placers : tuple[str, ...]
        nextpnr's: the next one is for designs in which the one before finds no end.
    """

    prefix: ClassVar[str]
    technology: ClassVar[str]
    route_tool: ClassVar[str]
    pack_tool: ClassVar[str]
    versions: ClassVar[tuple[str, ...]]
    constraints: ClassVar[str]
    suffix: ClassVar[str] = ".bit"
    synthesis: ClassVar[str]
    link: ClassVar[str]
    files: ClassVar[Mapping[str, str]] = {}
    kinds: ClassVar[Mapping[str, str]]
    placers: ClassVar[tuple[str, ...]] = ("heap",)

    @abc.abstractmethod
    def capacity(self, device: str) -> Device:
        """Return what a device holds."""

    @abc.abstractmethod
    def count(self, cells: Mapping[str, int]) -> Resources:
        """Return what cells take, from their numbers by type."""

    @abc.abstractmethod
    def platform(self, base: Any) -> dict[str, Any]:
        """Return what is different in a board's platform, so that it writes just the design
        (``{{name}}.il``) and the constraints."""

    def arcs(self, cell: Mapping[str, Any]) -> Arcs:
        """Return how long a cell of a netlist takes, for estimates; nothing where that is not
        known."""
        return Arcs()

    def places(self, device: str, cells: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Return the places of those cells of a linked netlist that place and route is not to
        choose: what it calls them, by the cells' names."""
        return {}

    def package(self, platform: Any) -> str:
        """Return what place and route calls the device's package, where it wants that."""
        return ""

    @abc.abstractmethod
    def clock(self, oscillator_hz: int, hz: float) -> ClockSetting:
        """Return how the highest clock that is not above ``hz`` is made; raise `BoardError`
        with the lowest and the highest one if there is none."""

    @abc.abstractmethod
    def make_clock(self, setting: Any) -> ClockSource:
        """Return what makes the card's clock."""

    @abc.abstractmethod
    def route(self, board: "Board", package: str, clock_hz: int, seed: int) -> list[str]:
        """Return the arguments of place and route, but for the placer. It reads ``in.json`` and
        the constraints as ``in`` with their ending, and writes ``report.json`` and
        ``routed.json``."""

    @abc.abstractmethod
    def pack(
        self,
        board: "Board",
        run: Callable[[Sequence[str]], object],
        placed: Path,
        folder: Path,
        *,
        build_hash: int,
        about: str,
    ) -> bytes:
        """Return the bitstream.

        Parameters
        ----------
        run : callable
            Runs `pack_tool` with arguments in ``folder``.
        placed : Path
            Folder in which place and route ran; ``routed.json`` is ``routed.json.gz`` now.
        build_hash, about : int, str
            See `deepseek.boards.flow.place.pack`.
        """
