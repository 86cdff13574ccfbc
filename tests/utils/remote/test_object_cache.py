"""Tests of the bounded cache of objects."""

import multiprocessing
import os
from pathlib import Path

import pytest

from monai_mil_ext.utils.remote import ObjectPath, local_copy


def copies(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def hold(address, entered, leave):
    with local_copy(address) as file:
        entered.set()
        leave.wait(20)
        assert file.exists()


def test_a_local_path_is_yielded_without_a_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_MIL_CACHE", str(tmp_path / "cache"))
    with local_copy(tmp_path / "a.svs") as file:
        assert file == tmp_path / "a.svs"
    assert list(tmp_path.iterdir()) == []


def test_an_object_is_fetched_once_and_again_when_it_was_replaced(s3, tmp_path):
    place = ObjectPath(s3.root) / "DOE_JOHN.ome.tif"
    for content in (b"first", b"first", b"other"):
        if not place.exists() or place.read_bytes() != content:
            place.write_bytes(content)
        with local_copy(place) as file:
            assert (file.read_bytes(), "".join(file.suffixes)) == (content, ".ome.tif")
    assert len(copies(tmp_path / "cache")) == 2
    assert [path for path in (tmp_path / "cache").rglob("*") if "DOE" in path.name] == []


def test_a_prefix_is_fetched_as_a_folder(memory):
    for name in ("1.dcm", "b/2.dcm"):
        (ObjectPath(memory) / "series" / name).write_bytes(name.encode())
    with local_copy(f"{memory}/series") as folder:
        assert {str(file.relative_to(folder)) for file in folder.rglob("*.dcm")} == {"1.dcm", "b/2.dcm"}


@pytest.mark.parametrize("oldest", "abc")
def test_the_cache_removes_what_was_not_used_for_the_longest_time(memory, tmp_path, monkeypatch, oldest):
    monkeypatch.setenv("MONAI_MIL_CACHE_GB", str(3.5e-5))
    places = {}
    for name in "abcd":
        (ObjectPath(memory) / name).write_bytes(bytes(10_000))
        with local_copy(f"{memory}/{name}") as file:
            places[name] = file.parent.name
            os.utime(file.parent.with_name(file.parent.name + ".lock"), (1, 1) if name == oldest else None)
    assert copies(tmp_path / "cache") == sorted(place for name, place in places.items() if name != oldest)


def test_an_object_that_is_larger_than_the_cache_is_refused(memory, monkeypatch):
    monkeypatch.setenv("MONAI_MIL_CACHE_GB", str(2.5e-5))
    (ObjectPath(memory) / "large").write_bytes(bytes(30_000))
    with pytest.raises(ValueError, match=r"`path` must fit into the cache of .* GB, got .* in 'large': set MONAI_MIL"):  # noqa: SIM117
        with local_copy(f"{memory}/large"):
            pass


def test_a_copy_that_is_in_use_is_not_removed(s3, tmp_path, monkeypatch):
    for name in "ab":
        (ObjectPath(s3.root) / name).write_bytes(bytes(10_000))
    context = multiprocessing.get_context("fork")
    entered, leave = context.Event(), context.Event()
    other = context.Process(target=hold, args=(f"{s3.root}/a", entered, leave))
    other.start()
    assert entered.wait(20)
    monkeypatch.setenv("MONAI_MIL_CACHE_GB", str(1.5e-5))
    with local_copy(f"{s3.root}/b") as file:
        assert file.exists()
    leave.set()
    other.join(20)
    assert other.exitcode == 0
    assert len(copies(tmp_path / "cache")) == 2


def test_a_broken_fetch_leaves_nothing(memory, tmp_path, monkeypatch):
    (ObjectPath(memory) / "a").write_bytes(b"content")

    def fail(self, key, target, **kwargs):
        Path(target).write_bytes(b"half")
        raise OSError("connection lost")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.get_file", fail)
    with (
        pytest.raises(OSError, match="must lie in a store that answers, got OSError for 'a'"),
        local_copy(f"{memory}/a"),
    ):
        pass
    assert copies(tmp_path / "cache") == []


def test_a_limit_that_is_no_number_is_refused(memory, monkeypatch):
    (ObjectPath(memory) / "a").write_bytes(b"content")
    monkeypatch.setenv("MONAI_MIL_CACHE_GB", "much")
    with (
        pytest.raises(ValueError, match="`MONAI_MIL_CACHE_GB` must be a number of gigabytes, got 'much'"),
        local_copy(f"{memory}/a"),
    ):
        pass
