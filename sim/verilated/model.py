"""A Verilated design as a Python object, through a shared library."""

import ctypes
import importlib.resources
import os
from pathlib import Path
from typing import Self

import numpy as np

from ...rtl.hostport.csr import HOST_READ_LATENCY
from ...rtl.memory.bus import STORAGE_LATENCY
from .build import Progress, Recipe, build
from .design import Design, Port

__all__ = ["Model", "model_recipe"]

CXX_FLAGS = ("-O1",)
"""Options for the code that runs every cycle.

Measured with clang on whole cards: -O2 takes twice as long to compile and runs at most 5 % faster;
-O3 and -march=native gain nothing.
"""

VECTOR_FLAGS = ("-O2", "-march=native")
"""Options for the code that works on vectors (`Design.sources`)."""

_STORAGE = {
    "storage__enable",
    "storage__write",
    "storage__address",
    "storage__write_data",
    "storage__write_mask",
    "storage__read_data",
}
_HOST = {"host__address", "host__write", "host__write_data", "host__read_data"}
_SERIAL = {"rx", "tx", "busy"}


def _size(port: Port) -> int:
    """Bytes of the port's value: 1, 2, or words of 4."""
    if port.width <= 16:
        return 1 if port.width <= 8 else 2
    return (port.width + 31) // 32 * 4 if port.width > 64 else (4 if port.width <= 32 else 8)


def _ports_header(design: Design, memory_bytes: int) -> str:
    by_name = {port.name: port for port in design.ports}
    # Verilator writes the second of two underscores as its code.
    members = [
        f"X({i}, {port.name.replace('__', '___05F')}, {_size(port)})"
        for i, port in enumerate(design.ports)
    ]
    has_storage = by_name.keys() >= _STORAGE
    beat_bytes = by_name["storage__read_data"].width // 8 if has_storage else 0
    if has_storage:
        reach = beat_bytes << by_name["storage__address"].width
        if reach != memory_bytes:
            raise ValueError(
                f"memory_bytes must be what storage reaches, {reach}, not {memory_bytes!r}"
            )
    header = design.verilog.partition(f"module {design.top}(")[2].partition(")")[0]
    names = {name.strip() for name in header.split(",")}
    values = {
        "HAS_CLOCK": int("clk" in names),
        "HAS_RESET": int("rst" in names),
        "HAS_STORAGE": int(has_storage),
        "HAS_HOST": int(by_name.keys() >= _HOST),
        "HAS_IRQ": int("irq" in by_name),
        "MEMORY_BYTES": f"UINT64_C({memory_bytes})",
        "BEAT_BYTES": beat_bytes,
        "STORAGE_LATENCY": STORAGE_LATENCY,
        "HOST_READ_LATENCY": HOST_READ_LATENCY,
    }
    lines = [f"#define {name} {value}" for name, value in values.items()]
    return "\n".join([*lines, f"#define PORTS(X) {' '.join(members)}", ""])


def model_recipe(design: Design, *, memory_bytes: int = 0, waves: bool = False) -> Recipe:
    """Return how to build ``design`` as a shared library with the C interface of `Model`.

    Parameters
    ----------
    design : Design
    memory_bytes : int
        Size of the memory behind the ``storage`` ports, if the design has them.
    waves : bool
        Whether waves can be written. It makes everything slower.
    """
    folder = importlib.resources.files(__package__)
    harness = (folder / "harness.cpp").read_text()
    if {port.name for port in design.ports} >= _SERIAL:
        harness += (folder / "serial.cpp").read_text()
    args = ["-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert", "--no-timing"]
    # Alone, -O3 inlines every module: 64 PEs in one function are slower, and longer to compile.
    args += ["--inline-mult", "2000"]
    runtime = ["verilated", "verilated_threads"]
    if waves:
        args.append("--trace-vcd")
        runtime.append("verilated_vcd_c")
    if design.sources:
        runtime.append("verilated_dpi")
    trace = int(waves)
    return Recipe(
        kind="model",
        top=design.top,
        verilog=design.verilog,
        verilator_args=tuple(args),
        sources=(("harness.cpp", harness), ("ports.h", _ports_header(design, memory_bytes))),
        runtime=tuple(runtime),
        defines=(
            *("VL_TIME_CONTEXT", "VM_COVERAGE=0", "VM_SC=0", "VM_TIMING=0"),
            *(f"VM_TRACE={trace}", f"VM_TRACE_VCD={trace}", "VM_TRACE_FST=0", "VM_TRACE_SAIF=0"),
        ),
        vector_sources=design.sources,
        fast=CXX_FLAGS,
        vector=VECTOR_FLAGS if design.sources else (),
        output="model.so",
    )


class Model:
    """A running Verilated design: its ports, its clock, its memory.

    Use as a context manager, or call `close`.

    Parameters
    ----------
    design : Design
    memory_bytes : int
        Size of the memory behind the ``storage`` ports, if the design has them.
    waves : Path, optional
        VCD file of all signals.
    wave_cycles : int
        How many cycles the waves hold at most; 0 for all.
    progress : callable, optional
        See `Progress`.

    Raises
    ------
    ToolError
        If the design cannot be built.
    """

    _card: int | None = None  # until it is built

    def __init__(
        self,
        design: Design,
        *,
        memory_bytes: int = 0,
        waves: Path | None = None,
        wave_cycles: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self.design = design
        self.memory_bytes = memory_bytes
        recipe = model_recipe(design, memory_bytes=memory_bytes, waves=waves is not None)
        self.built = build(recipe, progress=progress)
        self._library = _load(self.built.path)
        self._index = {port.name: (i, port) for i, port in enumerate(design.ports)}
        self._card = self._library.card_new()
        if not self._card:
            raise MemoryError(f"no address space for {memory_bytes} bytes of card memory")
        if waves is not None:
            waves.parent.mkdir(parents=True, exist_ok=True)
            if self._library.card_wave_open(self._card, str(waves).encode(), wave_cycles):
                raise OSError(f"cannot write waves to {waves}")

    def write_memory(self, address: int, content: np.ndarray | bytes) -> None:
        """Copy bytes, or an array of any type in C order, to card memory.

        Raises `ValueError` if it does not fit, or if the design has no ``storage`` ports.
        """
        if not isinstance(content, np.ndarray):
            content = np.frombuffer(content, np.uint8)
        array = np.ascontiguousarray(content)
        self._check_range(address, array.nbytes)
        self._library.card_write(self._handle, address, array.ctypes.data, array.nbytes)

    def read_memory(self, address: int, size: int) -> np.ndarray:
        """Return a copy of ``size`` bytes of card memory, as unsigned bytes."""
        self._check_range(address, size)
        array = np.empty(size, np.uint8)
        self._library.card_read(self._handle, address, array.ctypes.data, size)
        return array

    def _check_range(self, address: int, size: int) -> None:
        if not (0 <= address and 0 <= size and address + size <= self.memory_bytes):
            raise ValueError(
                f"bytes {address:#x} to {address + size:#x} are not in the "
                f"{self.memory_bytes:#x} bytes of card memory"
            )

    def csr_read(self, address: int) -> int:
        """Return a register of the ``host`` port. ``address`` is in bytes.

        Takes `HOST_READ_LATENCY` cycles, or one if the last call was the same: such reads are
        begun in every cycle.
        """
        self._check_csr(address)
        return self._library.card_csr_read(self._handle, address)

    def csr_write(self, address: int, value: int) -> None:
        """Write a register of the ``host`` port; takes one cycle. ``address`` is in bytes."""
        self._check_csr(address)
        if not 0 <= value < 1 << 32:
            raise ValueError(f"a register takes 32 bits, not {value!r}")
        self._library.card_csr_write(self._handle, address, value)

    def _check_csr(self, address: int) -> None:
        port = self._index.get("host__address")
        if port is None:
            raise ValueError("the design has no host port")
        if not 0 <= address < 1 << port[1].width:
            raise ValueError(f"register addresses have {port[1].width} bits, not {address!r}")

    def close(self) -> None:
        """Finish the waves and give back the memory. The object is of no use afterwards."""
        if self._card is not None:
            self._library.card_free(self._card)
            self._card = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    @property
    def _handle(self) -> int:
        if self._card is None:
            raise ValueError("the model is closed")
        return self._card

    @property
    def cycles(self) -> int:
        """Cycles since the model was made, those in reset too."""
        return self._library.card_cycles(self._handle)

    def set(self, port: str, value: int) -> None:
        """Set an input. Outputs that depend on it combinationally follow at once."""
        index, where = self._index[port]
        if not where.is_input:
            raise ValueError(f"{port} is an output")
        low = -(1 << where.width >> 1) if where.signed else 0
        if not low <= value < low + (1 << where.width):
            raise ValueError(f"{port} takes {where.width} bits, not {value!r}")
        bits = value & ((1 << where.width) - 1)
        self._library.card_set(self._handle, index, bits.to_bytes(_size(where), "little"))

    def get(self, port: str) -> int:
        """Return the value of a port."""
        index, where = self._index[port]
        buffer = ctypes.create_string_buffer(_size(where))
        self._library.card_get(self._handle, index, buffer)
        value = int.from_bytes(buffer.raw, "little")
        if where.signed and value >> (where.width - 1):
            value -= 1 << where.width
        return value

    def reset(self, cycles: int = 2) -> None:
        """Hold the reset for some cycles."""
        self._library.card_reset(self._handle, cycles)

    def tick(self, cycles: int = 1) -> None:
        """Run for so many cycles."""
        self._library.card_tick(self._handle, cycles)

    def run(self, max_cycles: int) -> int:
        """Run until ``irq`` is high, at most ``max_cycles``; return the cycles that were run.

        With ``irq`` high already, that is 0. Without such a port, all are run.
        """
        return self._library.card_run(self._handle, max_cycles)

    def serve(self, terminal: int, stop: int, *, clock_hz: int, baud: int, rest: int) -> None:
        """Run with the pins ``rx`` and ``tx`` of a serial line connected to a file descriptor.

        Parameters
        ----------
        terminal : int
            Non-blocking file descriptor; -1 for none: then nothing comes, and what is sent is lost.
            While it takes nothing, no time passes.
        stop : int
            File descriptor: returns when something can be read there, or its other end is closed.
        clock_hz, baud : int
            Cycles and bits of the line a second.
        rest : int
            Cycles without bits on the line and with ``busy`` low, after which time stands still
            until something comes.

        Raises
        ------
        OSError
            If the terminal cannot be read or written.
        """
        error = self._library.card_serve(self._handle, terminal, stop, clock_hz, baud, rest)
        if error:
            raise OSError(error, os.strerror(error))


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    handle, buffer, u64, u32 = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint32
    status = ctypes.c_int
    signatures: dict[str, tuple[type | None, list[type]]] = {
        "card_new": (handle, []),
        "card_free": (None, [handle]),
        "card_cycles": (u64, [handle]),
        "card_reset": (None, [handle, u64]),
        "card_tick": (None, [handle, u64]),
        "card_run": (u64, [handle, u64]),
        "card_set": (status, [handle, ctypes.c_uint, buffer]),
        "card_get": (status, [handle, ctypes.c_uint, buffer]),
        "card_write": (status, [handle, u64, handle, u64]),
        "card_read": (status, [handle, u64, handle, u64]),
        "card_csr_write": (None, [handle, u32, u32]),
        "card_csr_read": (u32, [handle, u32]),
        "card_wave_open": (status, [handle, buffer, u64]),
        "card_serve": (status, [handle, status, status, u64, u64, u64]),
    }
    for name, (result, arguments) in signatures.items():
        # Those for memory, host port, waves and serial line are only there if the design has them.
        if hasattr(library, name):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    return library
