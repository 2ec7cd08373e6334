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
    """Verilog text, the name of its top module, and the top's ports without clock and reset."""

    top: str
    verilog: str
    ports: tuple[Port, ...]

    @property
    def hash(self) -> str:
        """First 8 bytes of the SHA-256 of the text, in hexadecimal."""
        return hashlib.sha256(self.verilog.encode()).hexdigest()[:16]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Design":
        fields = json.loads(text)
        ports = tuple(Port(**port) for port in fields.pop("ports"))
        return cls(ports=ports, **fields)
