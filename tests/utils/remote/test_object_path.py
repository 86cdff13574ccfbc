"""Tests of paths of objects in a store."""

from pathlib import Path

import pytest

from monai_mil_ext.utils import atomic_path, write_csv, write_json
from monai_mil_ext.utils.files import load_json, load_tensors, remove_file, remove_stale_files, save_tensors
from monai_mil_ext.utils.remote import ObjectPath, as_path, is_remote
from tests.object_store import KEY, SECRET


@pytest.mark.parametrize("path", ["s3://b/a", "S3://b/a", "gs://b", "memory://b/a", "s3:/b/a"])
@pytest.mark.parametrize("form", [str, Path])
def test_is_remote_knows_object_stores_alone(path, form):
    assert is_remote(form(path))
    assert isinstance(as_path(form(path)), ObjectPath)


@pytest.mark.parametrize(
    "path", ["a", "/s3/b", "C:/b", "https://b/a", "file://b", "simplecache::s3://b", "data/s3://b", ""]
)
def test_is_remote_takes_nothing_else(path):
    assert not is_remote(path)
    assert type(as_path(path)) is type(Path(path))


@pytest.mark.parametrize("path", ["s3://bucket/20x/a.h5", "memory://bucket/20x/a.h5"])
def test_an_object_path_keeps_its_address(path):
    place = ObjectPath(path)
    assert [str(place), str(Path(place)), f"{place.parent / 'b'}"] == [path, path.replace("//", "/"), path[:-4] + "b"]
    assert str(ObjectPath(Path(place))) == path
    assert (place.name, place.stem, place.suffix, place.parent.name) == ("a.h5", "a", ".h5", "20x")
    assert place.is_relative_to(place.bucket)
    assert place.resolve() == place.absolute() == place


@pytest.mark.parametrize("path", [f"s3://{KEY}:{SECRET}@bucket/a", "s3://user@bucket", "s3:/", "s3://bucket/../a"])
def test_an_object_path_refuses_credentials_and_ways_up_without_showing_them(path):
    with pytest.raises(ValueError, match=r"`path` must (begin with a scheme|be the address)") as error:
        ObjectPath(path)
    assert SECRET not in str(error.value)


@pytest.fixture(params=["s3", "memory"])
def folder(request):
    store = request.getfixturevalue(request.param)
    return ObjectPath(store if request.param == "memory" else store.root)


def test_objects_are_written_listed_read_and_removed(folder):
    for name in ("a/1.txt", "a/b/2.txt", "ab/3.csv"):
        (folder / name).write_bytes(name.encode())
    assert {str(path.relative_to(folder)): size for path, size in (folder / "a").sizes().items()} == {
        "a/1.txt": 7,
        "a/b/2.txt": 9,
    }
    assert sorted(path.name for path in folder.iterdir()) == ["a", "ab"]
    assert sorted(path.name for path in folder.glob("*/*.txt")) == ["1.txt"]
    assert sorted(path.name for path in folder.rglob("*.txt")) == ["1.txt", "2.txt"]
    file = folder / "a" / "1.txt"
    assert (file.is_file(), file.is_dir(), file.stat().st_size, file.read_text()) == (True, False, 7, "a/1.txt")
    assert (file.parent.is_dir(), file.parent.is_file(), file.with_name("2").exists()) == (True, False, False)
    before = file.version(), file.parent.version(), file.checksum()
    file.write_bytes(b"new")
    assert [file.version() != before[0], file.parent.version() != before[1], file.checksum() != before[2]] == [True] * 3
    file.unlink()
    file.unlink(missing_ok=True)
    assert not file.exists()
    with pytest.raises(FileNotFoundError, match=r"must be an object that exists, got none for '1\.txt'"):
        file.read_bytes()
    with pytest.raises(ValueError, match="`mode` must be that of reading, got 'w'"):
        file.open("w")


def test_files_of_all_kinds_are_written_to_a_store_as_a_whole(folder):
    write_json(folder / "r.json", {"value": 1})
    write_csv(folder / "r.csv", [{"a": 1}])
    save_tensors(folder / "r.pt", {"a": 1})
    assert load_json(folder / "r.json") == {"value": 1}
    assert (folder / "r.csv").open().read().split() == ["a", "1"]
    assert load_tensors(folder / "r.pt") == {"a": 1}
    assert remove_stale_files(folder) == []
    remove_file(folder / "r.pt")
    remove_file(folder / "r.pt")
    with pytest.raises(FileNotFoundError, match=r"`path` must be a file of weights that exists, got 'r\.pt'"):
        load_tensors(folder / "r.pt")


def test_an_interrupted_write_leaves_the_object_as_it_was(folder):
    (folder / "a.txt").write_bytes(b"before")
    for name in ("a.txt", "b.txt"):
        with pytest.raises(KeyboardInterrupt), atomic_path(folder / name) as temporary:  # noqa: PT012
            temporary.write_text("half")
            assert not (folder / "b.txt").exists()
            raise KeyboardInterrupt
    assert [(folder / "a.txt").read_bytes(), (folder / "b.txt").exists(), temporary.exists()] == [
        b"before",
        False,
        False,
    ]


def test_an_upload_in_parts_that_breaks_off_leaves_no_object(s3, monkeypatch):
    from s3fs import S3FileSystem

    call = S3FileSystem._call_s3

    async def break_off(self, method, *args, **kwargs):
        if method == "complete_multipart_upload":
            raise OSError("connection lost")
        return await call(self, method, *args, **kwargs)

    monkeypatch.setattr(S3FileSystem, "_call_s3", break_off)
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda *args, **kwargs: 5 * 2**20)
    place = ObjectPath(s3.root) / "large"
    with pytest.raises(OSError, match="`path` must lie in a store that answers, got OSError for 'large'"):  # noqa: SIM117
        with atomic_path(place) as temporary:
            temporary.write_bytes(bytes(11 * 2**20))
    assert not place.exists()
