"""Files that are made: written whole, and removed when nobody has used them for long."""

import os
import threading
import time

import pytest

from deepseek.files import cache_dir, locked, prune, write_whole


def aged(path, days):
    """Make a path look as if it was last used so many days ago."""
    then = time.time() - days * 86400
    os.utime(path, (then, then))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_prune(tmp_path):
    for name, days in (("old", 40), ("new", 20)):
        (tmp_path / name).write_text("")
        (tmp_path / f"{name}-folder").mkdir()
        (tmp_path / f"{name}-folder" / "file").write_text("")
        aged(tmp_path / name, days)
        aged(tmp_path / f"{name}-folder", days)
    prune(tmp_path, 30)
    assert names(tmp_path) == ["new", "new-folder"]
    prune(tmp_path / "none", 30)


def test_prune_by_stamps(tmp_path):
    """A build that was cut off goes, too; one that is under way stays, and its lock."""
    for name, stamp, own in (
        ("old", 40, 40),
        ("used", 20, 40),
        ("cut-off", None, 40),
        ("under-way", None, 0),
    ):
        (tmp_path / name).mkdir()
        if stamp is not None:
            (tmp_path / name / "stamp").touch()
            aged(tmp_path / name / "stamp", stamp)
        aged(tmp_path / name, own)
        (tmp_path / f"{name}.lock").touch()
        aged(tmp_path / f"{name}.lock", own)
    prune(tmp_path, 30, stamp="stamp")
    assert names(tmp_path) == ["under-way", "under-way.lock", "used"]


def test_files_are_written_whole(tmp_path):
    path = tmp_path / "deep" / "file"
    write_whole(path, "ä")
    assert path.read_bytes() == b"\xc3\xa4"
    write_whole(path, b"new")
    path.with_name("folder").mkdir()
    with pytest.raises(OSError):
        write_whole(path.with_name("folder"), b"")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file", "folder"]


def test_place_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPSEEK_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("DEEPSEEK_CACHE")
    assert cache_dir().name == "deepseek-card"


def test_one_at_a_time(tmp_path):
    """The second one says that it waits, the first one nothing; a held lock is not pruned."""
    path, order = tmp_path / "locks" / "card.lock", []

    def progress(phase, fraction):
        order.append(phase)

    def second():
        with locked(path, progress):
            order.append("second")

    with locked(path, progress):
        thread = threading.Thread(target=second)
        thread.start()
        while not order:
            time.sleep(0.01)
        prune(path.parent, 30)
        assert path.exists()
        order.append("first")
    thread.join(10)
    assert order == ["wait for another build of the same card", "first", "second"]


def test_a_lock_that_is_taken_again_is_new(tmp_path):
    path = tmp_path / "card.lock"
    path.touch()
    aged(path, 40)
    with locked(path):
        prune(tmp_path, 30)
        assert path.exists()
