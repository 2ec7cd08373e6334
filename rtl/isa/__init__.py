"""Commands, directory entries, completion records, status codes and the CSR map.

The single source for RTL, driver, simulators and ``docs/isa.md`` (`deepseek.rtl.isadoc` writes it).
Little-endian; the RTL views the bits that the driver packs; field order is byte order.
"""

from .command import (
    ABI_VERSION,
    COMMAND_BYTES,
    SEMAPHORES,
    BarrierBody,
    Command,
    Completion,
    EndBody,
    Flag,
    Opcode,
    Operand,
    Queue,
    SemaphoreBody,
    SemaphoreRef,
    Status,
    TransferBody,
    Unit,
)
from .formats import (
    BITS,
    ENTRIES,
    INPUT_FORMATS,
    LANES,
    MAX_ANCHOR,
    MIN_ANCHOR,
    OUTPUT_FORMATS,
    Encoding,
    Format,
    Mode,
    array_mode,
)
from .matmul import (
    DirectoryEntry,
    Function,
    MatmulBody,
    MatmulFlag,
)
from .registers import (
    Csr,
)
from .vector import (
    ReformatBody,
    ReformatOp,
    RowsBody,
    RowsFlag,
    RowsOp,
    VectorBody,
    VectorOp,
)

__all__ = [
    "ABI_VERSION",
    "BITS",
    "COMMAND_BYTES",
    "ENTRIES",
    "INPUT_FORMATS",
    "LANES",
    "MAX_ANCHOR",
    "MIN_ANCHOR",
    "OUTPUT_FORMATS",
    "SEMAPHORES",
    "BarrierBody",
    "Command",
    "Completion",
    "Csr",
    "DirectoryEntry",
    "Encoding",
    "EndBody",
    "Flag",
    "Format",
    "Function",
    "MatmulBody",
    "MatmulFlag",
    "Mode",
    "Opcode",
    "Operand",
    "Queue",
    "ReformatBody",
    "ReformatOp",
    "RowsBody",
    "RowsFlag",
    "RowsOp",
    "SemaphoreBody",
    "SemaphoreRef",
    "Status",
    "TransferBody",
    "Unit",
    "VectorBody",
    "VectorOp",
    "array_mode",
]
