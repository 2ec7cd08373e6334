"""A converted design: Verilog and its ports. Free of Amaranth, since importing that takes time."""

import dataclasses
import hashlib
import json

__all__ = ["Design", "Port"]


@dataclasses.dataclass(frozen=True)
class Port:
    """A top-level port: its Verilog name, whether the design reads it, its width and sign."""

    name: str
    is_input: bool
    width: int
    signed: bool


@dataclasses.dataclass(frozen=True)
class Design:
    """A design as Verilog.

    Parameters
    ----------
    top : str
        Name of the top module.
    verilog : str
        The text.
    ports : tuple[Port, ...]
        Of the top, without clock and reset.
    sources : tuple[tuple[str, str], ...]
        C++ that the Verilog calls (`lockstep`): names of files and their texts.
    """

    top: str
    verilog: str
    ports: tuple[Port, ...]
    sources: tuple[tuple[str, str], ...] = ()

    @property
    def hash(self) -> str:
        """First 8 bytes of the SHA-256 of the Verilog, in hexadecimal."""
        return hashlib.sha256(self.verilog.encode()).hexdigest()[:16]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Design":
        fields = json.loads(text)
        ports = tuple(Port(**port) for port in fields.pop("ports"))
        sources = tuple((name, source) for name, source in fields.pop("sources"))
        return cls(ports=ports, sources=sources, **fields)
