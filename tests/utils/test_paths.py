"""Tests of the checks of paths."""

from pathlib import Path

import pytest
import torch

from monai_mil_ext import data, handlers, transforms
from monai_mil_ext.utils import check_local, find_file, resolve_path
from monai_mil_ext.utils.paths import result_path
from monai_mil_ext.utils.remote import ObjectPath, is_remote

REMOTE = {
    "s3://bucket/a.h5": "s3",
    "S3://bucket/a.h5": "s3",
    "gs://bucket": "gs",
    "memory://a": "memory",
    "file:///home/a": "file",
    "https://example.org/a.csv": "https",
    "git+ssh://a/b": "git+ssh",
    "simplecache::s3://bucket/a": "s3",
    "zip://a.h5::s3://bucket/a.zip": "zip",
    " s3://bucket": "s3",
}
LOCAL = [
    "a.h5",
    "/data/a.h5",
    "C:/data/a.h5",
    "C:\\data",
    "d:x",
    "a:b/c.h5",
    "data/s3://x",
    "a//b",
    "",
    "s3",
]


@pytest.mark.parametrize("path", REMOTE)
@pytest.mark.parametrize("form", [str, Path])
def test_check_local_names_the_scheme_of_a_remote_path(path, form):
    message = f"^`root` must be a local path, got an address that begins with '{REMOTE[path].replace('+', '.')}://'"
    with pytest.raises(ValueError, match=message):
        check_local(root=form(path))
    if is_remote(form(path)):
        assert str(resolve_path(form(path))) == path.lower()
        return
    with pytest.raises(ValueError, match="`path` must be a local path"):
        resolve_path(form(path))


def test_result_path_names_the_argument_and_keeps_links(tmp_path):
    assert isinstance(result_path("s3://bucket/out"), ObjectPath)
    (tmp_path / "link").symlink_to("a")
    assert result_path(tmp_path / "link") == tmp_path / "link"
    with pytest.raises(ValueError, match=r"^`output_dir` must be a local path, got an address that begins with 'ftp:"):
        result_path("ftp://host/out", "output_dir")


@pytest.mark.parametrize("path", LOCAL)
def test_check_local_takes_every_local_path(path):
    check_local(path=path, other=Path(path), none=None)


def test_check_local_refuses_a_null_character():
    with pytest.raises(ValueError, match=r"^`image` must be a path, got one with a null character\.$"):
        check_local(image="a\0b")


def test_resolve_path_follows_links_but_not_for_ever(tmp_path):
    (tmp_path / "a").touch()
    (tmp_path / "link").symlink_to("a")
    for first, second in (("loop", "loop"), ("one", "two"), ("two", "one")):
        (tmp_path / first).symlink_to(second)
    assert resolve_path(tmp_path / "link") == (tmp_path / "a").resolve()
    for name in ("loop", "one", "two", "loop/a", "absent"):
        assert resolve_path(tmp_path / name).is_relative_to(tmp_path.resolve())


READERS = {
    "read_bag": lambda: data.read_bag("ftp://host/a.h5"),
    "inspect_bag": lambda: data.inspect_bag(Path("ftp://host/a.h5")),
    "load_cohort": lambda: data.load_cohort("ftp://host/cohort.csv"),
    "load_cohort_json": lambda: data.load_cohort("ftp://host/cohort.json"),
    "list_scans": lambda: data.list_scans("ftp://host/cohort.csv"),
    "list_scans_json": lambda: data.list_scans("ftp://host/cohort.json"),
    "list_slides": lambda: data.list_slides("ftp://host/slides"),
    "CohortSplits": lambda: data.CohortSplits.read("ftp://host/split.json"),
    "ModelRecord": lambda: data.ModelRecord.read("ftp://host/model.json"),
    "load_weights": lambda: data.load_weights("ftp://host/model.pt"),
    "LoadBag": lambda: transforms.LoadBag()("ftp://host/a.h5"),
    "LoadScan": lambda: transforms.LoadScan()("ftp://host/scan"),
    "SlideFile": lambda: data.SlideFile("ftp://host/a.svs"),
    "BestEpochSaver": lambda: handlers.BestEpochSaver("ftp://host", torch.nn.Linear(1, 1)),
    "FeatureCache": lambda: data.FeatureCache("ftp://host/features", dict),
    "FeatureExtraction": lambda: data.FeatureExtraction(data.FeatureCache("features", dict), "ftp://host/out"),
    "CohortSplits.write": lambda: data.CohortSplits([], {}, 0).write("ftp://host/split.json"),
    "load_splits": lambda: data.load_splits("ftp://host/split.csv", []),
    "root": lambda: data.list_scans("cohort.csv", "ftp://host"),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_every_reader_and_writer_refuses_an_address_of_no_object_store(read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("cohort.csv").write_text("case_id,image\na,a.nii\n")
    Path("ftp:/host").mkdir(parents=True)  # what such a path is for Python
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="must be a local path, got an address that begins with 'ftp://'"):
        read()
    assert sorted(tmp_path.rglob("*")) == before


LOCAL_ALONE = {
    "BestEpochSaver": lambda: handlers.BestEpochSaver("s3://bucket", torch.nn.Linear(1, 1)),
    "load_splits": lambda: data.load_splits("s3://bucket/split.csv", []),
    "LoadCellBag": lambda: transforms.LoadCellBag(8)("s3://bucket/cells"),
}


@pytest.mark.parametrize("use", LOCAL_ALONE.values(), ids=LOCAL_ALONE)
def test_what_needs_a_folder_of_this_machine_refuses_an_object_store(use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="must be a local path, got an address that begins with 's3://'"):
        use()
    assert list(tmp_path.iterdir()) == []


def test_a_reader_of_an_impossible_path_says_that_there_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    for path in ("loop", "n" * 300):
        for read in (transforms.LoadScan(), data.SlideFile, transforms.LoadCellBag(8)):
            with pytest.raises((FileNotFoundError, RuntimeError), match=r"must be a .* that exists, got"):
                read(path)


def test_find_file_takes_the_first_folder_that_has_the_file(tmp_path):
    folders = [tmp_path / "own", tmp_path / "data"]
    for folder in folders:
        folder.mkdir()
    assert find_file("w.pth", *folders) == str(folders[0] / "w.pth")
    (folders[1] / "w.pth").touch()
    assert find_file("w.pth", *folders) == str(folders[1] / "w.pth")
    (folders[0] / "w.pth").touch()
    assert find_file("w.pth", *folders) == str(folders[0] / "w.pth")
    with pytest.raises(ValueError, match="must be a local path"):
        find_file("w.pth", "s3://bucket")
