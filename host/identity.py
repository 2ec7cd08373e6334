"""What a card says of itself, and whether it is the one that is expected."""

import dataclasses
from typing import Any

from ..rtl.config import VECTOR_PARTS
from ..rtl.isa import ABI_VERSION, Csr
from .errors import CardMismatchError
from .transport import Transport
from .transport.base import CARD_ID

__all__ = ["CardInfo", "check_identity"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardInfo:
    """What a card says of itself."""

    backend: str
    preset: str
    abi: int
    build: str
    rows: int
    cols: int
    operand_depth: int
    scratchpad_bytes: int
    memory_bytes: int
    bus_bytes: int
    hbm_channels: int
    memory: str
    free_bytes: int


def _parts(mask: int) -> str:
    """Return the names of the parts of the vector unit, from `Csr.PARTS`."""
    names = [name for bit, name in enumerate(VECTOR_PARTS) if mask >> bit & 1]
    if mask >> len(VECTOR_PARTS):
        names.append(f"{mask:#x}")
    return " + ".join(names) or "none"


def check_identity(transport: Transport) -> None:
    """Compare what a card says of itself with the transport's configuration.

    Raises
    ------
    CardMismatchError
        If it is another card; names the first difference.
    """
    config, read = transport.config, transport.csr_read
    if read(Csr.ID) != CARD_ID:
        raise CardMismatchError(
            f"no card answers: its identification reads {read(Csr.ID):#010x}, "
            f"not {CARD_ID:#010x}; check the connection"
        )
    geometry = config.rows | config.cols << 8 | config.bus_bytes << 16 | config.hbm_channels << 24
    expected: dict[str, tuple[Any, Any]] = {
        "instruction set version": (read(Csr.ABI), ABI_VERSION),
        "geometry": (f"{read(Csr.GEOMETRY):#010x}", f"{geometry:#010x}"),
        "scratchpad": (read(Csr.SCRATCHPAD_BYTES), config.scratchpad_bytes),
        "memory": (read(Csr.MEMORY_BYTES), config.memory_bytes),
        "operand depth": (read(Csr.OPERAND_DEPTH), config.operand_depth),
        "vector unit": (_parts(read(Csr.PARTS)), _parts(config.parts_mask)),
    }
    if transport.build_hash is not None:
        build = read(Csr.BUILD_LOW) | read(Csr.BUILD_HIGH) << 32
        expected["build hash"] = (f"{build:016x}", f"{transport.build_hash:016x}")
    for name, (found, wanted) in expected.items():
        if found != wanted:
            raise CardMismatchError(
                f"the card does not fit preset {config.name}: its {name} is {found}, "
                f"expected {wanted}; choose its preset, or rebuild the card"
            )
