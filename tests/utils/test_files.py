"""Tests of atomic writing of files."""

import csv
import errno
import json
import math
import multiprocessing
import os
import resource
import signal
import stat
import time
import traceback

import numpy as np
import pytest
import torch

from monai_mil_ext.data import write_bag
from monai_mil_ext.utils import atomic_path, load_json, remove_stale_files, save_tensors, write_csv, write_json


def test_atomic_path_keeps_the_old_file_on_an_error(tmp_path):
    (tmp_path / "a.json").write_text("old")

    def write():
        with atomic_path(tmp_path / "a.json") as temporary:
            temporary.write_text("half")
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        write()
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def test_atomic_path_does_not_disturb_open_readers(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with (tmp_path / "a.txt").open() as reader:
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"
    assert (tmp_path / "a.txt").read_text() == "new"


def test_atomic_path_keeps_suffixes_and_permissions(tmp_path):
    with atomic_path(tmp_path / "new" / "v.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "new" / "v.nii.gz").stat().st_mode) == 0o666 & ~mask


def test_write_json_replaces_nan_by_null(tmp_path):
    write_json(tmp_path / "r.json", {"a": math.nan, "b": [1.5, math.inf], "c": {"d": "x"}})
    assert json.loads((tmp_path / "r.json").read_text()) == {"a": None, "b": [1.5, None], "c": {"d": "x"}}


def write_too_much(folder):
    """Write tensors, text and HDF5, which hides the error number in its text, in a process limited to 1 MB per file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    features = np.ones((600, 1000), np.float32)
    got = [
        full(lambda: write_bag(folder / "a.h5", {"features": features})),
        full(lambda: write_json(folder / "b.json", {"a": ["x" * 1000] * 2000})),
        full(lambda: save_tensors(folder / "d.pt", {"features": torch.from_numpy(features)})),
    ]
    write_json(folder / "c.json", {"got": got})


def full(write):
    try:
        write()
    except OSError as error:
        return [error.errno, error.strerror]


def die_writing(folder):
    with atomic_path(folder / "a.h5") as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def exit_code(target, *args):
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()
    process.join(60)
    return process.exitcode


def test_atomic_path_names_a_full_disk_and_leaves_no_partial_file(tmp_path):
    assert exit_code(write_too_much, tmp_path) == 0
    text = "`path` must lie on a disk with room for it, got File too large for "
    got = json.loads((tmp_path / "c.json").read_text())["got"]
    assert got == [[errno.EFBIG, f"{text}{name!r}"] for name in ("a.h5", "b.json", "d.pt")]
    assert [p.name for p in tmp_path.iterdir()] == ["c.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_atomic_path_reports_quotas_and_limits_like_a_full_disk(tmp_path, number):
    with pytest.raises(OSError, match=r"must lie on a disk with room for it, got .* for 'a.bin'") as caught:  # noqa: SIM117
        with atomic_path(tmp_path / "a.bin"):
            raise OSError(number, "no")
    assert caught.value.errno == number


def test_atomic_path_keeps_other_errors(tmp_path):
    with pytest.raises(PermissionError, match="no"), atomic_path(tmp_path / "a.bin"):
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(RuntimeError, match=r"^28 bags$"), atomic_path(tmp_path / "a.bin"):
        raise RuntimeError("28 bags")


def test_remove_stale_files_removes_old_files_of_killed_writers(tmp_path):
    assert exit_code(die_writing, tmp_path) == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".writing-")
    (tmp_path / "keep.h5").touch()
    assert remove_stale_files(tmp_path) == []
    day_ago = time.time() - 90_000
    for file in (left, tmp_path / "keep.h5"):
        os.utime(file, (day_ago, day_ago))
    assert remove_stale_files(tmp_path) == [left.name]
    assert [p.name for p in tmp_path.iterdir()] == ["keep.h5"]
    assert remove_stale_files(tmp_path / "none") == []


def test_atomic_path_synchronizes_file_and_folder(tmp_path, monkeypatch):
    events = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(stat.S_IFMT(os.fstat(fd).st_mode)), sync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda *a, **k: (events.append("name"), replace(*a, **k))[1])
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
    assert events == [stat.S_IFREG, "name", stat.S_IFDIR]


def read_only(*args, **kwargs):
    raise OSError(errno.EROFS, "Read-only file system", "/whole/path")


WRITERS = {
    "write_bag": lambda path: write_bag(path, {"features": np.ones((2, 3))}),
    "write_json": lambda path: write_json(path, {"a": 1}),
    "write_csv": lambda path: write_csv(path, [{"a": 1}]),
    "save_tensors": lambda path: save_tensors(path, {"a": torch.ones(1)}),
}


def refused(write, path, text):
    """Check that ``write`` raises the one form of error, without the folder, and leaves nothing."""
    with pytest.raises(
        OSError, match=rf"^\[Errno \d+\] `path` must be a file that can be written, got {text} for 'x\.a'$"
    ) as caught:
        write(path)
    assert str(path.parent) not in "".join(traceback.format_exception(caught.value))
    return caught.value


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("step", ["tempfile.mkstemp", "os.mkdir", "os.replace", "os.fsync"])
def test_atomic_path_names_a_read_only_disk_without_the_folder(tmp_path, monkeypatch, write, step):
    monkeypatch.setattr(step, read_only)
    refused(write, tmp_path / "new" / "x.a", "Read-only file system")
    monkeypatch.undo()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_atomic_path_names_what_stands_in_the_way_without_the_folder(tmp_path, write):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "x.a").mkdir()
    assert isinstance(refused(write, tmp_path / "file" / "x.a", "File exists|Not a directory"), OSError)
    refused(write, tmp_path / "loop" / "x.a", "Too many levels of symbolic links|File exists")
    assert isinstance(refused(write, tmp_path / "x.a", "Is a directory"), IsADirectoryError)
    refused(write, tmp_path / ("n" * 300) / "x.a", "File name too long")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "loop", "x.a"]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_atomic_path_refuses_an_address_of_no_object_store(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"`path` must be a local path, got an address that begins with 'ftp://'\."):
        write("ftp://host/x.a")
    assert list(tmp_path.iterdir()) == []


def test_atomic_path_converts_an_error_of_the_body_that_shows_the_hidden_file(tmp_path):
    with pytest.raises(PermissionError, match=r"can be written, got Permission denied for 'a\.bin'$"):  # noqa: SIM117
        with atomic_path(tmp_path / "a.bin") as temporary:
            raise PermissionError(errno.EACCES, "Permission denied", str(temporary))
    with pytest.raises(OSError, match=r"with room for it, got No space left on device for 'a\.bin'$"):  # noqa: SIM117
        with atomic_path(tmp_path / "a.bin"):
            close_a_full_file()


def close_a_full_file():
    try:
        raise OSError(errno.ENOSPC, "full")
    finally:
        raise RuntimeError("unexpected pos 64 vs 0")  # as PyTorch does


def remove_with_a_wrong_clock(folder):
    time.time = lambda real=time.time: real() + 90_000
    remove_stale_files(folder)


def test_remove_stale_files_keeps_the_file_of_a_running_writer(tmp_path):
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
        assert exit_code(remove_with_a_wrong_clock, tmp_path) == 0
        os.utime(temporary, (1, 1))  # since 1970, by the clock of any machine
        assert exit_code(remove_stale_files, tmp_path) == 0
        assert remove_stale_files(tmp_path, seconds=-1) == []
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_remove_stale_files_takes_the_time_of_the_disk(tmp_path, monkeypatch):
    (tmp_path / ".writing-of-another-machine").touch()
    monkeypatch.setattr(time, "time", lambda: 2e10)
    assert remove_stale_files(tmp_path) == []
    assert remove_stale_files(tmp_path, seconds=-1) == [".writing-of-another-machine"]


def test_load_json_reads_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_text('{"a": "ä"}', encoding="utf-8-sig")
    assert load_json(tmp_path / "a.json") == {"a": "ä"}


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{", b"\xff", '{"a": 1}'.encode("utf-16"), None])
def test_load_json_refuses_what_is_no_json(tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"^`path` must be a readable JSON file, got 'a\.json'\.$"):
        load_json(tmp_path / "a.json")


def test_write_csv_rejects_a_key_that_is_not_a_column(tmp_path):
    with pytest.raises(ValueError, match=r"`rows` must have no keys but \['a'\], got \['b'\]"):
        write_csv(tmp_path / "x.csv", [{"a": 1, "b": 2}], columns=["a"])
    assert list(tmp_path.iterdir()) == []


def test_write_csv_has_the_columns_of_all_rows(tmp_path):
    rows = [{"a": 1, "b": 2, "use": "x"}, {"a": 3, "c": 4, "use": "x"}, {}]
    write_csv(tmp_path / "t.csv", rows)
    assert (tmp_path / "t.csv").read_text().split() == ["a,b,use,c", "1,2,x,", "3,,x,4", ",,,"]


@pytest.mark.parametrize("cell", ["=cmd|'/C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=", "-"])
def test_write_csv_writes_no_formula(tmp_path, cell):
    write_csv(tmp_path / "t.csv", [{"patient": cell}])
    with (tmp_path / "t.csv").open(newline="") as file:
        assert next(csv.DictReader(file)) == {"patient": f"'{cell}"}


@pytest.mark.parametrize("cell", [-1.5, "-1.5", "+3", "-inf", "a=b", "p-1", ""])
def test_write_csv_keeps_numbers_and_other_text(tmp_path, cell):
    write_csv(tmp_path / "t.csv", [{"value": cell, "use": "x"}])
    with (tmp_path / "t.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["value"] == str(cell)
