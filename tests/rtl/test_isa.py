"""The binary formats: sizes, offsets, reserved bits, and the document that describes them."""

import itertools

import pytest
from amaranth.lib import data

from deepseek.rtl import isa, isadoc
from deepseek.rtl.core.dispatch import BODIES, QUEUES, reserved_mask

STRUCTURES = {
    isa.Command: 128,
    isa.Operand: 16,
    isa.SemaphoreRef: 1,
    isa.Completion: 16,
    isa.DirectoryEntry: 16,
    isa.TransferBody: 64,
    isa.MatmulBody: 64,
    isa.VectorBody: 64,
    isa.SemaphoreBody: 64,
    isa.BarrierBody: 64,
    isa.EndBody: 64,
}


@pytest.mark.parametrize("layout", STRUCTURES)
def test_size(layout: type[data.Struct]) -> None:
    assert layout.as_shape().size == 8 * STRUCTURES[layout]


@pytest.mark.parametrize("layout", STRUCTURES)
def test_fields_fill_the_structure_once(layout: type[data.Struct]) -> None:
    seen = 0
    for _, field in layout.as_shape():
        mask = ((1 << field.width) - 1) << field.offset
        assert not seen & mask
        seen |= mask
    assert seen == (1 << layout.as_shape().size) - 1


@pytest.mark.parametrize("layout", [item for item in STRUCTURES if item is not isa.SemaphoreRef])
def test_fields_are_aligned(layout: type[data.Struct]) -> None:
    for name, field in layout.as_shape():
        if "reserved" not in str(name):
            assert field.offset % min(field.width & -field.width, 32) == 0, name


@pytest.mark.parametrize(
    ("layout", "name", "offset"),
    [
        (isa.Command, "opcode", 0),
        (isa.Command, "version", 1),
        (isa.Command, "queue", 2),
        (isa.Command, "pong_outer", 3),
        (isa.Command, "wait", 4),
        (isa.Command, "signal", 8),
        (isa.Command, "inner", 12),
        (isa.Command, "outer", 14),
        (isa.Command, "operand", 16),
        (isa.Command, "body", 64),
        (isa.Operand, "pong", 12),
        (isa.TransferBody, "scratchpad_z_stride", 20),
        (isa.MatmulBody, "x_run_stride", 12),
        (isa.MatmulBody, "runs_inner", 36),
        (isa.MatmulBody, "in_format", 40),
        (isa.MatmulBody, "anchor", 44),
        (isa.MatmulBody, "parameter", 52),
        (isa.VectorBody, "in_y_stride", 8),
        (isa.VectorBody, "a_scale", 32),
        (isa.VectorBody, "in_format", 41),
        (isa.VectorBody, "clamp_high", 48),
        (isa.EndBody, "tag", 4),
        (isa.Completion, "flags", 6),
        (isa.Completion, "valid", 7),
        (isa.Completion, "cycles", 12),
        (isa.DirectoryEntry, "scale", 12),
    ],
)
def test_offset(layout: type[data.Struct], name: str, offset: int) -> None:
    assert layout.as_shape()[name].offset == 8 * offset


def test_every_opcode_has_a_body_and_known_queues() -> None:
    assert set(BODIES) == set(isa.Opcode)
    assert set(QUEUES) < set(isa.Opcode)
    assert set(itertools.chain(*QUEUES.values())) == set(isa.Queue)


@pytest.mark.parametrize("opcode", list(isa.Opcode))
def test_reserved_bits_are_no_others(opcode: isa.Opcode) -> None:
    """Setting every other field to all ones touches no reserved bit, and leaves out no bit."""
    used = 0
    header = isa.Command.as_shape()
    for name in ("opcode", "version", "queue", "inner", "outer", "operand"):
        used |= ((1 << header[name].width) - 1) << header[name].offset
    used |= 0x07 << 24  # pong_outer
    for byte in range(4, 12):
        used |= 0xCF << (8 * byte)  # waits and signals
    for name, field in BODIES[opcode].as_shape():
        if not name.startswith("reserved"):
            width = 4 if opcode is isa.Opcode.SEMAPHORE and name == "index" else field.width
            used |= ((1 << width) - 1) << (512 + field.offset)
    assert reserved_mask(opcode) == ~used & ((1 << 1024) - 1)


def test_codes_fit_their_fields() -> None:
    assert max(isa.Csr) + 4 < 1 << 8
    assert all(address % 4 == 0 for address in isa.Csr)
    assert len(set(isa.Csr)) == len(isa.Csr.__members__)
    assert all(isa.Unit[queue.name].value == queue.value for queue in isa.Queue)


def test_document_is_up_to_date() -> None:
    assert isadoc.main(["--check"]) == 0


def test_document_names_everything() -> None:
    text = isadoc.document()
    for layout in STRUCTURES:
        for name, _ in layout.as_shape():
            assert f"`{name}`" in text, name
    enumerations = (
        *(isa.Csr, isa.Status, isa.Opcode, isa.Unit, isa.Format, isa.Function),
        *(isa.Mode, isa.Encoding, isa.Flag, isa.MatmulFlag),
    )
    for codes in enumerations:
        for code in codes:
            assert f"`{code.name}`" in text, code


def test_check_finds_an_outdated_document(tmp_path, monkeypatch) -> None:
    target = tmp_path / "docs" / "isa.md"
    monkeypatch.setattr(isadoc, "TARGET", target)
    assert isadoc.main(["--check"]) == 1
    assert isadoc.main([]) == 0
    assert isadoc.main(["--check"]) == 0
    target.write_text(target.read_text().replace("0x80", "0x84"))
    assert isadoc.main(["--check"]) == 1
