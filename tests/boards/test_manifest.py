"""What a bitstream is, and that a file is the one its manifest describes."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from deepseek.boards import BOARDS, manifest
from deepseek.boards.manifest import (
    MANIFEST_VERSION,
    Manifest,
    ManifestError,
    code,
    manifest_path,
)
from deepseek.rtl.config import PRESETS


def make(path, **changes):
    path.write_bytes(bytes(range(256)) * 8)
    fields = {
        "board": "ulx3s",
        "device": "LFE5U-85F",
        "speed": "6",
        "preset": "tiny",
        "config": dataclasses.asdict(BOARDS["ulx3s"].config("tiny")),
        "abi": 3,
        "link_version": 1,
        "build_hash": "0123456789abcdef",
        "clock_hz": 100_000_000,
        "baud": 3_000_000,
        "memory": "block RAM",
        "tools": {"yosys": "0.70"},
        "seed": 1,
        "fmax_mhz": 101.5,
        **Manifest.measure(path.read_bytes()),
    }
    manifest = Manifest(**{**fields, **changes})
    manifest.write(path)
    return manifest


def test_written_and_read_again(tmp_path):
    path = tmp_path / "card.bit"
    manifest = make(path)
    assert manifest_path(path) == tmp_path / "card.bit.json"
    found = Manifest.of(path)
    assert found == manifest
    assert found.card == BOARDS["ulx3s"].config("tiny")
    assert found.build == 0x0123456789ABCDEF
    assert sorted(p.name for p in tmp_path.iterdir()) == ["card.bit", "card.bit.json"]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_card_survives_json(tmp_path, preset):
    config = BOARDS["virtual"].config(preset)
    make(tmp_path / "a.bit", config=dataclasses.asdict(config))
    assert Manifest.of(tmp_path / "a.bit").card == config


def test_whole_number_of_mhz_is_a_float_too(tmp_path):
    make(tmp_path / "a.bit", fmax_mhz=100)
    assert Manifest.of(tmp_path / "a.bit").fmax_mhz == 100


def refused(path):
    with pytest.raises(ManifestError) as error:
        Manifest.of(path)
    message = str(error.value)
    assert "\n" not in message
    assert "deepseek-host build" in message
    return message


def test_no_bitstream(tmp_path):
    assert "no bitstream" in refused(tmp_path / "none.bit")
    assert "no bitstream" in refused(tmp_path)


def test_no_manifest(tmp_path):
    (tmp_path / "a.bit").write_bytes(b"a")
    assert "has no manifest a.bit.json" in refused(tmp_path / "a.bit")


def test_truncated(tmp_path):
    make(tmp_path / "a.bit")
    (tmp_path / "a.bit").write_bytes(b"\0" * 100)
    assert "truncated: 100 of 2,048 bytes" in refused(tmp_path / "a.bit")


@pytest.mark.parametrize("content", [b"\0" * 2048, b"\0" * 2049])
def test_changed(tmp_path, content):
    make(tmp_path / "a.bit")
    (tmp_path / "a.bit").write_bytes(content)
    assert "not the file that a.bit.json describes" in refused(tmp_path / "a.bit")


def test_other_version(tmp_path):
    make(tmp_path / "a.bit")
    path = manifest_path(tmp_path / "a.bit")
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "manifest": MANIFEST_VERSION + 1}))
    assert f"version {MANIFEST_VERSION + 1}" in refused(tmp_path / "a.bit")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda fields: fields.pop("baud"), "lacks baud"),
        (lambda fields: fields.update(colour=1), "unknown fields: colour"),
        (lambda fields: fields.update(baud="fast"), "baud cannot be 'fast'"),
        (lambda fields: fields.update(seed=True), "seed cannot be True"),
        (lambda fields: fields.update(config=[]), "config cannot be []"),
        (lambda fields: fields["config"].pop("rows"), "describes no card"),
        (lambda fields: fields["config"].update(rows=99, engines_per_lane=1), "rows must"),
        (lambda fields: fields.update(build_hash="12"), "16 hexadecimal digits"),
        (lambda fields: fields.update(build_hash="x" * 16), "16 hexadecimal digits"),
        (lambda fields: fields.pop("manifest"), "no manifest"),
    ],
)
def test_wrong_fields(tmp_path, change, says):
    make(tmp_path / "a.bit")
    path = manifest_path(tmp_path / "a.bit")
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))
    assert says in refused(tmp_path / "a.bit")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'"manifest"'])
def test_no_json(tmp_path, content):
    make(tmp_path / "a.bit")
    manifest_path(tmp_path / "a.bit").write_bytes(content)
    refused(tmp_path / "a.bit")


@pytest.mark.parametrize("wrong", ["", "123", "g" * 16])
def test_build_hash_is_checked(tmp_path, wrong):
    with pytest.raises(ValueError, match="16 hexadecimal digits"):
        make(tmp_path / "a.bit", build_hash=wrong)


SOURCE = '''"""What it is."""

import math  # for pi

SIDES = 4
"""Of a square.
No more."""


def area(side, note="# none"):
    """Return it."""
    # A comment of its own.
    text = """kept # too"""
    return side * side  # squared
'''


def test_code_is_what_decides():
    assert code('class E(B): """What."""\nx = "Ü"; "n"; y = 2') == 'class E(B):\nx = "Ü"; ; y = 2'
    assert code(SOURCE).splitlines() == [
        "import math",
        "SIDES = 4",
        'def area(side, note="# none"):',
        '    text = """kept # too"""',
        "    return side * side",
    ]
    explained = (
        SOURCE.replace("What it is", "Mäße").replace("\nNo more.", "").replace("  # squ", "#")
    )
    assert code(explained) == code(SOURCE)
    for old, new in (("= 4", "= 5"), ("# none", "# one"), ("kept # too", "kept # two")):
        assert code(SOURCE.replace(old, new)) != code(SOURCE)


def test_sources_of_a_board_that_is_not_known(tmp_path):
    with pytest.raises(ManifestError, match="is for a board 'x', which is not known here"):
        make(tmp_path / "card.bit", board="x").check_sources("card.bit")


def test_what_changes_a_build_hash(tmp_path, monkeypatch):
    package = Path(manifest.__file__).parent.parent
    for tree in ("rtl", "boards"):
        shutil.copytree(package / tree, tmp_path / tree)
    monkeypatch.setattr(manifest, "__file__", str(tmp_path / "boards" / "manifest.py"))

    def changes(name, text):
        before = manifest.sources_hash.__wrapped__("ulx3s")
        with (tmp_path / name).open("a") as file:
            file.write(text)
        return manifest.sources_hash.__wrapped__("ulx3s") != before

    assert all((tmp_path / "boards" / name).exists() for name in manifest.HARMLESS)
    assert not changes("rtl/card.py", "\n# A comment.\n")
    assert not changes("boards/ecpix5.py", "\nNUMBER = 1\n")
    assert not changes("boards/families/gowin.py", "\nNUMBER = 1\n")
    assert not changes("boards/flow/place.py", "\nNUMBER = 1\n")
    for name in ("rtl/card.py", "boards/ulx3s.py", "boards/shell.py", "boards/families/ecp5.py"):
        assert changes(name, "\nNUMBER = 1\n"), name
