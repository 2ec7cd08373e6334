"""What a bitstream is: the file beside it, by which a host knows the card before it talks to it."""

import ast
import dataclasses
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import tokenize
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin

from ..files import write_whole
from ..rtl.config import CardConfig

__all__ = [
    "MANIFEST_VERSION",
    "NETLIST_SUFFIX",
    "Manifest",
    "ManifestError",
    "build_number",
    "manifest_path",
    "sources_hash",
]

MANIFEST_VERSION = 1

NETLIST_SUFFIX = ".netlist.json.gz"
"""In place of a bitstream's own: its netlist after place and route."""

HARMLESS = (
    "__init__.py",
    "check.py",
    "families/__init__.py",
    "families/ecp5_delays.py",
    "families/ecp5_places.py",
    "families/gowin_places.py",
    "families/places.py",
    "flow/build.py",
    "flow/place.py",
    "flow/report.py",
    "flow/timing.py",
    "flow/tools.py",
    "manifest.py",
    "unit.py",
)
"""Sources of this package that do not decide what a card is; where its cells lie is all one."""


class ManifestError(ValueError):
    """A bitstream and its manifest cannot be used. The message is one line with the next step."""


def _release() -> str:
    try:
        return importlib.metadata.version("deepseek-card")
    except importlib.metadata.PackageNotFoundError:
        return ""


def code(source: str) -> str:
    """Return what of a module's text is code: no comments, docstrings, and blank lines."""
    lines = source.splitlines()

    def place(line: int, byte: int) -> tuple[int, int]:
        return line, len(lines[line - 1].encode()[:byte].decode())

    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    spans = [(token.start, token.end) for token in tokens if token.type == tokenize.COMMENT]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(ast.Constant(str()), end_lineno=int(last), end_col_offset=int(byte)):
                spans.append((place(node.lineno, node.col_offset), place(last, byte)))
    for (first, begin), (last, end) in sorted(spans, reverse=True):
        lines[first - 1 : last] = [lines[first - 1][:begin] + lines[last - 1][end:]]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _harmless(board: str) -> set[str]:
    """Return the sources that do not decide what this board's card is."""
    from . import BOARDS
    from .families import FAMILIES

    own = None if BOARDS[board].is_virtual else BOARDS[board].family
    families = (type(family).__module__ for family in FAMILIES if family is not own)
    return {
        *HARMLESS,
        *(f"{name}.py" for name in BOARDS if name != board),
        *(f"families/{name.rpartition('.')[2]}.py" for name in families),
    }


@functools.cache
def sources_hash(board: str) -> str:
    """Return a hash of the sources that decide what becomes of a configuration on a board, as far
    as they are `code`: who explains them better, or works on another board, changes no card."""
    boards = Path(__file__).parent
    package = boards.parent
    deciding = set(boards.rglob("*.py")) - {boards / name for name in _harmless(board)}
    digest = hashlib.sha256()
    for path in sorted([*(package / "rtl").rglob("*.py"), *deciding]):
        content = code(path.read_text(encoding="utf-8")).encode()
        digest.update(f"{path.relative_to(package)} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()


def build_number(
    *,
    tools: Mapping[str, str],
    board: str,
    baud: int,
    clock_hz: int,
    memory: str,
    config: Mapping[str, Any],
) -> int:
    """Return the build hash of a card on a board: 64 bits of a hash of the sources of RTL and
    boards, of the versions of the tools, and of the settings. The seed is not among them."""
    text = json.dumps((tools, board, baud, clock_hz, memory, config), sort_keys=True)
    digest = hashlib.sha256(f"{sources_hash(board)} {text}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def manifest_path(bitstream: str | os.PathLike[str]) -> Path:
    """Return where the manifest of a bitstream lies: ``card.bit`` has ``card.bit.json``."""
    path = Path(bitstream)
    return path.with_name(f"{path.name}.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that a host has to know of a bitstream.

    Parameters
    ----------
    board : str
        Name of the board (`deepseek.boards.BOARDS`).
    device, speed : str
        Device and its speed grade; "virtual" and an empty string for the board that is simulated.
    preset : str
        Preset that the card was made of.
    config : dict[str, object]
        Every field of the card's `CardConfig`; it is not always the preset's.
    abi : int
        `deepseek.rtl.isa.ABI_VERSION`.
    link_version : int
        `deepseek.rtl.isa.link.LINK_VERSION`.
    build_hash : str
        64 bits as 16 hexadecimal digits; the card's CSRs say the same.
    clock_hz : int
        Clock of the card.
    baud : int
        Bits a second of the serial line.
    memory : str
        What holds the card's memory: "block RAM" or "SDRAM".
    tools : dict[str, str]
        Versions of the tools by their names.
    seed : int
        Seed of place and route.
    fmax_mhz : float
        Clock that place and route reached; 0.0 for the board that is simulated.
    bitstream_bytes, bitstream_sha256 : int, str
        Size and SHA-256 of the bitstream.
    """

    board: str
    device: str
    speed: str
    preset: str
    config: dict[str, Any]
    abi: int
    link_version: int
    build_hash: str
    clock_hz: int
    baud: int
    memory: str
    tools: dict[str, str]
    seed: int
    fmax_mhz: float
    bitstream_bytes: int
    bitstream_sha256: str

    def __post_init__(self) -> None:
        try:
            good = len(self.build_hash) == 16 and int(self.build_hash, 16) >= 0
        except ValueError:
            good = False
        if not good:
            raise ValueError(f"build_hash must be 16 hexadecimal digits, not {self.build_hash!r}")

    @property
    def card(self) -> CardConfig:
        """The card's configuration."""
        return CardConfig(**self.config)

    @property
    def build(self) -> int:
        """The build hash as a number."""
        return int(self.build_hash, 16)

    def check_sources(self, bitstream: str | os.PathLike[str]) -> None:
        """Check that the bitstream was built of the sources as they are here; tools do not matter.

        Raises
        ------
        ManifestError
            If it was not; says what differs.
        """
        from . import BOARDS

        if self.board not in BOARDS:
            raise ManifestError(
                f"{Path(bitstream).name} is for a board {self.board!r}, which is not known here; "
                f"known ones: {', '.join(BOARDS)}"
            )
        number = build_number(
            tools=self.tools,
            board=self.board,
            baud=self.baud,
            clock_hz=self.clock_hz,
            memory=self.memory,
            config=self.config,
        )
        if number == self.build:
            return
        release, own = self.tools.get("deepseek-card"), _release()
        versions = f" (of version {release}; here is {own})" if release != own else ""
        raise ManifestError(
            f"{Path(bitstream).name} was built of other sources of the card{versions}: its build "
            f"hash is {self.build_hash}, the same settings give {number:016x} here; next: build it "
            f"again, with: deepseek-host build --board {self.board} --preset {self.preset}"
        )

    def write(self, bitstream: str | os.PathLike[str]) -> Path:
        """Write the manifest beside its bitstream, all of it or nothing; return its path."""
        path = manifest_path(bitstream)
        text = json.dumps({"manifest": MANIFEST_VERSION, **dataclasses.asdict(self)}, indent=2)
        write_whole(path, text + "\n")
        return path

    @staticmethod
    def measure(content: bytes) -> dict[str, Any]:
        """Return the fields ``bitstream_bytes`` and ``bitstream_sha256`` of a bitstream."""
        return {
            "bitstream_bytes": len(content),
            "bitstream_sha256": hashlib.sha256(content).hexdigest(),
        }

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Manifest":
        """Read a manifest; raise `ManifestError` if it is none, or of another version."""
        path = Path(path)
        again = "build the bitstream again with: deepseek-host build"
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ManifestError(
                f"{path} does not exist: copy it from where the bitstream was built, or {again}"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(f"{path} cannot be read ({error}); {again}") from None
        except json.JSONDecodeError as error:
            raise ManifestError(f"{path} is damaged, it is no JSON ({error}); {again}") from None
        if not isinstance(fields, dict) or "manifest" not in fields:
            raise ManifestError(f"{path} is no manifest of a bitstream; {again}")
        version = fields.pop("manifest")
        if version != MANIFEST_VERSION:
            raise ManifestError(
                f"{path} is a manifest of version {version!r}, and this host reads version "
                f"{MANIFEST_VERSION}; use the host that built it, or {again}"
            )
        wanted = {field.name: field.type for field in dataclasses.fields(cls)}
        if missing := [name for name in wanted if name not in fields]:
            raise ManifestError(f"{path} lacks {', '.join(missing)}; {again}")
        if unknown := [name for name in fields if name not in wanted]:
            raise ManifestError(f"{path} has unknown fields: {', '.join(unknown)}; {again}")
        for name, kind in wanted.items():
            plain: Any = (int, float) if kind is float else get_origin(kind) or kind
            if not isinstance(fields[name], plain) or isinstance(fields[name], bool):
                raise ManifestError(f"{path}: {name} cannot be {fields[name]!r}; {again}")
        # JSON has no tuples.
        fields["config"] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields["config"].items()
        }
        try:
            manifest = cls(**fields)
            _ = manifest.card
        except (TypeError, ValueError) as error:
            raise ManifestError(
                f"{path} describes no card of this version ({error}); {again}"
            ) from None
        return manifest

    @classmethod
    def of(cls, bitstream: str | os.PathLike[str]) -> "Manifest":
        """Return the manifest of a bitstream, and check that the file is the one it describes.

        Raises
        ------
        ManifestError
            If there is no such file, it has no manifest, or it was truncated or changed.
        """
        path = Path(bitstream)
        if not path.is_file():
            raise ManifestError(
                f"no bitstream {path}; build one with: "
                f"deepseek-host build --board BOARD --output {path.parent}"
            )
        if not manifest_path(path).exists():
            raise ManifestError(
                f"{path} has no manifest {manifest_path(path).name} beside it: copy it from where "
                "the bitstream was built, or build it again with: deepseek-host build"
            )
        manifest = cls.read(manifest_path(path))
        again = "copy it again, or build it again with: deepseek-host build"
        found = cls.measure(path.read_bytes())
        if found["bitstream_bytes"] < manifest.bitstream_bytes:
            raise ManifestError(
                f"{path} is truncated: {found['bitstream_bytes']:,} of "
                f"{manifest.bitstream_bytes:,} bytes; {again}"
            )
        if (
            found["bitstream_bytes"] > manifest.bitstream_bytes
            or found["bitstream_sha256"] != manifest.bitstream_sha256
        ):
            raise ManifestError(
                f"{path} is not the file that {manifest_path(path).name} describes "
                f"(its content was changed, or another build wrote it); {again}"
            )
        return manifest
