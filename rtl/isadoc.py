"""Writes ``docs/isa.md`` from `deepseek.rtl.isa`: ``python -m deepseek.rtl.isadoc [--check]``."""

import argparse
import ast
import enum as python_enum
import inspect
import itertools
import re
import sys
from pathlib import Path

from amaranth.hdl import Shape
from amaranth.lib import data

from . import config, isa

__all__ = ["document", "field_rows", "main"]

TARGET = Path(isa.__file__).resolve().parents[2] / "docs" / "isa.md"

SETTINGS = (isa.Csr.COUNT_ENGINE,)
"""Registers above the first counter that are no counters."""

INTRODUCTION = """\
# Commands, registers and binary formats

Generated from `rtl/isa/` by `python -m deepseek.rtl.isadoc`. Do not edit.

The host writes commands of {command} bytes into a ring in card memory and rings the doorbell
(`RING_TAIL`). A job is a run of commands that closes with END. The card checks each command, hands
it to one of {queues} queues, and the queues run side by side, ordered only by the {semaphores}
semaphores that the commands name. When all is done, END writes a completion record and counts
`COMPLETED`. This describes version {abi} of the format.

All numbers are little-endian. Signed fields are two's complement. Fields called *reserved* must
be 0. In the tables, *offset* is in bytes from the start of the structure, and bit ranges within a
byte are written `byte[high:low]`.

Contents: [commands](#commands), [bodies](#bodies), [enumerations](#enumerations),
[checks and errors](#checks-and-errors), [completion record](#completion-record),
[streams](#streams), [registers](#registers), [link](#link), [examples](#examples).
"""

CHECKS = """\
A command is checked in this order, and the first check that fails gives the status:

1. opcode and queue: `BAD_OPCODE`
2. version: `BAD_VERSION`
3. reserved fields, the bits of `pong_outer` above bit 2, and a SEMAPHORE's `index` of {semaphores}
   or more: `BAD_FORMAT`
4. `inner` and `outer` of all but SEMAPHORE, BARRIER and END: `BAD_LENGTH`
5. END only: alignment of `completion`, `BAD_ALIGNMENT`; its range, `BAD_ADDRESS`

These errors blame the unit `SEQUENCER`, and are reported when everything before the command has
run as far as it can. All other errors come from the unit that runs the command. SEMAPHORE, BARRIER
and END ignore `wait`, `signal`, `inner`, `outer` and `operand`.

On a card without the part that runs them (`PARTS`), ROWS and REFORMAT give `BAD_OPCODE`, blamed on
`VECTOR`, when their first iteration starts.

MATMUL checks each iteration in this order:

1. `BAD_LENGTH`: one of `k`, `n`, `n_inner`, `entries`, `run_bytes`, `runs_inner` and `slice` is 0;
   `k` is above {max_k}, or not a whole number of runs; the smaller of `slice` and `k` is above
   `OPERAND_DEPTH`, with more entries than rows; `slice` is below `k`, and not a multiple of
   {release}, or has more entries than partial sums can be kept for
2. `BAD_FORMAT`: a format, encoding, flag or function is unknown; the inputs have no mode; INT32
   results, unless both inputs are integers and there is no `BLOCK_SCALE`; `anchor` is out of range,
   or not 0 where it has no meaning; INT4 results with an odd `n_inner` below `n`
3. `BAD_ALIGNMENT`: of the blob, of X with its strides and `run_bytes`, of results with their
   strides
4. `BAD_ADDRESS`: the directory or X leaves the scratchpad
5. of entries that are not empty: `BAD_ALIGNMENT` (`out_offset`), `BAD_ADDRESS` (a stream, a
   result), `BAD_SCALE` (any scale), `BAD_INDEX`

VECTOR checks each iteration in this order:

1. `BAD_LENGTH`: one of `granules`, `out_y`, `out_x`, `kernel_y` and `kernel_x` is 0; ADD or
   MULTIPLY with a kernel other than 1 x 1
2. `BAD_FORMAT`: `op` is unknown, or `in_format` is not INT8
3. `BAD_ALIGNMENT`: of an operand that is used, or a stride
4. `BAD_SCALE`: `a_scale`, except for MAX; `b_scale` of ADD
5. `BAD_ADDRESS`: a granule read or written is outside the scratchpad

ROWS and REFORMAT check each iteration in this order:

1. `BAD_LENGTH`: one of `length`, `y` and `z`, or of `rows`, `length` and `batch`, is 0
2. `BAD_FORMAT`: `op` or a flag is unknown, a flag does not belong to the operation, or a format is
   none that the operation takes
3. `BAD_ALIGNMENT`: of an operand that is used, or a stride that is
4. `BAD_SCALE`, ROWS only: a scale or `epsilon` that the operation uses is no normal number, or not
   positive where it must be
5. `BAD_ADDRESS`: an access outside the scratchpad

Where an iteration has several faults, another of them than the first may be reported from
`BAD_ADDRESS` on.

After the first error of a job the card stops its units, resets them and the semaphores, skips the
job's commands up to and including its END, and writes the completion record with the error. If END
itself is at fault, its record is written only where `completion` is aligned and inside card memory.
A ring address outside card memory, or a second error or abort before END is found, ends the job
without a record, and drops the commands that the ring still holds. Either way `COMPLETED` counts,
`ERROR` and `ERROR_COMMAND` name the first error, and the next job starts on a clean card.
"""


def _docstrings(cls: type) -> dict[str, str]:
    """Return the strings that follow a class's members, by member."""
    tree = ast.parse(inspect.getsource(cls).lstrip())
    body = tree.body[0].body  # type: ignore[attr-defined]
    found = {}
    for node, after in itertools.pairwise(body):
        target = getattr(node, "target", None) or getattr(node, "targets", [None])[0]
        if isinstance(target, ast.Name) and isinstance(after, ast.Expr):
            found[target.id] = " ".join(str(ast.literal_eval(after.value)).split())
    return found


def _markdown(text: str) -> str:
    """Turn the markup of a docstring into Markdown."""

    def name(match: re.Match[str]) -> str:
        # A field is only known by its structure; all other names are unique.
        owner = getattr(isa, match[1] or "", None)
        of_structure = isinstance(owner, type) and issubclass(owner, data.Struct)
        return f"`{match[1]}.{match[2]}`" if of_structure else f"`{match[2]}`"

    return re.sub(r"`(?:(\w+)\.)?(\w+)`", name, text.replace("``", "`"))


def _prose(cls: type) -> str:
    return _markdown(inspect.getdoc(cls) or "")


def _bits(start: int, width: int) -> str:
    """Say where a field lies, in bytes if it has whole ones."""
    if start % 8 == 0 and width % 8 == 0:
        return str(start // 8)
    low = start % 8
    span = f"{low}" if width == 1 else f"{low + width - 1}:{low}"
    return f"{start // 8}[{span}]"


def _type(shape: object) -> str:
    if isinstance(shape, data.ArrayLayout):
        return f"{shape.length} x {_type(shape.elem_shape)}"
    if isinstance(shape, type) and issubclass(shape, data.Struct):
        return f"[{shape.__name__}](#{shape.__name__.lower()})"
    cast = Shape.cast(shape)
    return f"{'i' if cast.signed else 'u'}{cast.width}"


def field_rows(layout: type[data.Struct]) -> list[tuple[str, str, str, str]]:
    """Return offset, type, name and meaning of each field of a structure."""
    meanings = _docstrings(layout)
    rows = []
    for name, field in layout.as_shape():
        kind = "bytes" if field.width > 64 and "reserved" in name else _type(field.shape)
        if kind == "bytes" or (name == "body" and field.width > 64):
            kind = f"{field.width // 8} bytes"
        meaning = "0" if name.startswith("reserved") else _markdown(meanings.get(name, ""))
        rows.append((_bits(field.offset, field.width), kind, f"`{name}`", meaning))
    return rows


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _structure(layout: type[data.Struct], title: str | None = None, level: int = 3) -> str:
    size = layout.as_shape().size
    extent = f"{size // 8} bytes" if size % 8 == 0 and size > 8 else f"{size} bits"
    table = _table(("offset", "type", "field", "meaning"), [*field_rows(layout)])
    return f"{'#' * level} {title or layout.__name__}\n\n{extent}. {_prose(layout)}\n\n{table}\n"


def _enumeration(cls: type[python_enum.Enum]) -> str:
    meanings = _docstrings(cls)
    rows = [
        (str(member.value), f"`{member.name}`", _markdown(meanings.get(member.name, "")))
        for member in cls
    ]
    if not any(meaning for _, _, meaning in rows):
        table = _table(("value", "name"), [row[:2] for row in rows])
    else:
        table = _table(("value", "name", "meaning"), rows)
    return f"### {cls.__name__}\n\n{_prose(cls)}\n\n{table}\n"


def _registers() -> str:
    meanings = _docstrings(isa.Csr)
    header = ("address", "name", "meaning")
    counters, others = [], []
    for member in isa.Csr:
        rows = counters if member >= isa.Csr.CYCLES and member not in SETTINGS else others
        meaning = _markdown(meanings.get(member.name, ""))
        rows.append((f"0x{member.value:02X}", f"`{member.name}`", meaning))
    return (
        f"{_prose(isa.Csr)}\n\n{_table(header, others)}\n\n"
        "Counters have 64 bits: the low word at the address given, the high word 4 bytes above.\n\n"
        f"{_table(header, counters)}\n"
    )


def _link() -> str:
    """Return the section on the serial link: prose, framing, headers, codes, registers."""
    names = ("FLAG", "ESCAPE", "ESCAPE_XOR", "LINK_VERSION", "MAX_DATA", "WINDOW_BYTES")
    codes = ("FLAG", "ESCAPE", "ESCAPE_XOR")
    constants: list[tuple[str, ...]] = [
        (f"`{name}`", f"0x{value:02X}" if name in codes else str(value))
        for name, value in ((name, getattr(isa, name)) for name in names)
    ]
    meanings = _docstrings(isa.ShellCsr)
    registers: list[tuple[str, ...]] = [
        (f"0x{item.value:03X}", f"`{item.name}`", _markdown(meanings.get(item.name, "")))
        for item in isa.ShellCsr
    ]
    return "\n".join(
        [
            f"{_markdown(inspect.getdoc(isa.link) or '')}\n",
            f"{_table(('name', 'value'), constants)}\n",
            *map(_structure, (isa.RequestHeader, isa.ReplyHeader)),
            *map(_enumeration, (isa.LinkOp, isa.Reply)),
            f"### Registers of the board\n\n{_prose(isa.ShellCsr)}\nCard and board have "
            f"{isa.CSR_BYTES} bytes of addresses; what is no register reads as 0.\n",
            f"{_table(('address', 'name', 'meaning'), registers)}\n",
            _enumeration(isa.CaptureControl),
            *map(_structure, (isa.Probe, isa.UnitProbe)),
        ]
    )


def _entries() -> str:
    """Return how many entries of a stream a granule holds."""
    widths = sorted({bits for by_bits in isa.ENTRIES.values() for bits in by_bits})
    rows = [
        (f"`{encoding.name}`", *(str(by_bits[bits]) for bits in widths))
        for encoding, by_bits in isa.ENTRIES.items()
    ]
    return "Entries of a granule, by encoding and bits of a value:\n\n" + _table(
        ("encoding", *(f"{bits} bits" for bits in widths)), rows
    )


def _modes() -> str:
    """Return the mode of each pair of input formats."""
    names = [f"`{form.name}`" for form in isa.INPUT_FORMATS]
    rows = []
    for stream in isa.INPUT_FORMATS:
        modes = [isa.array_mode(stream, resident) for resident in isa.INPUT_FORMATS]
        rows.append((f"`{stream.name}`", *(f"`{mode.name}`" if mode else "" for mode in modes)))
    return "Mode by the format of the stream (left) and of X (top):\n\n" + _table(
        ("", *names), rows
    )


def _dump(raw: bytes) -> str:
    lines = []
    for offset in range(0, len(raw), 16):
        row = raw[offset : offset + 16]
        if any(row):
            lines.append(f"{offset:02x}: " + " ".join(f"{byte:02x}" for byte in row))
    return "```text\n" + "\n".join(lines) + "\n```\n"


def _encode(layout: type[data.Struct], fields: dict[str, object]) -> bytes:
    shape = layout.as_shape()
    return shape.const(fields).as_value().value.to_bytes(shape.size // 8, "little")


def _body(layout: type[data.Struct], **fields: object) -> int:
    return int.from_bytes(_encode(layout, dict(fields)), "little")


def _examples() -> str:
    load = _encode(
        isa.Command,
        {
            "opcode": isa.Opcode.LOAD,
            "version": isa.ABI_VERSION,
            "queue": isa.Queue.LOAD0,
            "wait": {0: {"index": 3, "enable": 1}},
            "signal": {0: {"index": 2, "enable": 1}},
            "inner": 4,
            "outer": 1,
            "operand": {
                0: {"base": 0x100000, "inner": 1024},
                1: {"base": 0x2000, "pong": 0x400},
            },
            "body": _body(
                isa.TransferBody,
                x_bytes=256,
                y=4,
                z=1,
                memory_y_stride=256,
                scratchpad_y_stride=256,
            ),
        },
    )
    end = _encode(
        isa.Command,
        {
            "opcode": isa.Opcode.END,
            "version": isa.ABI_VERSION,
            "inner": 1,
            "outer": 1,
            "body": _body(isa.EndBody, completion=0x1000, tag=0xCAFE),
        },
    )
    record = _encode(
        isa.Completion,
        {"tag": 0xCAFE, "status": isa.Status.OK, "valid": 1, "command": 1, "cycles": 480},
    )
    return (
        "Rows of 16 bytes, lowest address first; rows of zeros are left out.\n\n"
        "LOAD in queue LOAD0: four tiles of 1024 bytes, one after the other from 0x100000 in card\n"
        "memory, by turns to 0x2000 and 0x2400 in the scratchpad. Each waits for a credit of\n"
        "semaphore 3 (a free buffer) and gives one of semaphore 2 (a full one):\n\n"
        f"{_dump(load)}\n"
        "END, with its record at 0x1000 and tag 0xCAFE:\n\n"
        f"{_dump(end)}\n"
        "The record it writes: status OK, valid, END was command 1, 480 cycles:\n\n"
        f"{_dump(record)}"
    )


def document() -> str:
    """Return the text of ``docs/isa.md``."""
    sizes = {
        "command": isa.COMMAND_BYTES,
        "queues": len(isa.Queue),
        "semaphores": isa.SEMAPHORES,
        "abi": isa.ABI_VERSION,
        "max_k": config.MAX_K,
        "release": config.RELEASE_WORDS,
    }
    bodies = {
        isa.TransferBody: "LOAD, STORE",
        isa.MatmulBody: "MATMUL",
        isa.VectorBody: "VECTOR",
        isa.RowsBody: "ROWS",
        isa.ReformatBody: "REFORMAT",
        isa.SemaphoreBody: "SEMAPHORE",
        isa.BarrierBody: "BARRIER",
        isa.EndBody: "END",
    }
    enumerations = (
        *(isa.Opcode, isa.Queue, isa.Unit),
        *(isa.Format, isa.Mode, isa.Encoding, isa.Function, isa.MatmulFlag, isa.VectorOp),
        *(isa.RowsOp, isa.RowsFlag, isa.ReformatOp, isa.Flag),
    )
    parts = [
        INTRODUCTION.format(**sizes),
        "## Commands\n",
        *(_structure(layout) for layout in (isa.Command, isa.SemaphoreRef, isa.Operand)),
        "## Bodies\n\nOffsets count from the body's first byte, byte "
        f"{isa.Command.as_shape()['body'].offset // 8} of the command.\n",
        *(_structure(layout, f"{name}: `{layout.__name__}`") for layout, name in bodies.items()),
        "## Enumerations\n",
        *map(_enumeration, enumerations),
        f"{_modes()}\n",
        "## Checks and errors\n",
        _enumeration(isa.Status),
        CHECKS.format(**sizes),
        "## Completion record\n",
        _structure(isa.Completion),
        "## Streams\n",
        _structure(isa.DirectoryEntry),
        f"{_entries()}\n",
        "## Registers\n",
        _registers(),
        "## Link\n",
        _link(),
        "## Examples\n",
        _examples(),
    ]
    return "\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Write the document, or with ``--check`` tell whether it is up to date."""
    parser = argparse.ArgumentParser(prog="python -m deepseek.rtl.isadoc", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if outdated")
    options = parser.parse_args(arguments)
    text = document()
    if options.check:
        if not TARGET.is_file() or TARGET.read_text() != text:
            print(f"{TARGET} is out of date: run python -m deepseek.rtl.isadoc", file=sys.stderr)
            return 1
        return 0
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
