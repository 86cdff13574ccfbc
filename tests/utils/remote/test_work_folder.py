"""Tests of folders for work, and of their copies in a store."""

import gc
from copy import copy

import pytest
import s3fs

from monai_mil_ext.utils.remote import ObjectPath, StoreError, WorkFolder


def write(folder, **contents):
    for name, content in contents.items():
        file = folder.path / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


def stored(address):
    return {str(path.relative_to(ObjectPath(address))): path.read_text() for path in ObjectPath(address).sizes()}


@pytest.fixture(params=["memory", "s3"])
def address(request):
    store = request.getfixturevalue(request.param)
    return f"{getattr(store, 'root', store)}/study"


def test_a_work_folder_uploads_what_is_new_has_changed_or_is_gone(address):
    work = WorkFolder(address)
    write(work, a="1", runs__x="2", runs__y="3", _dot_hidden="4")
    assert (work.push(), work.push()) == (3, 0)
    write(work, a="1", runs__x="5")  # "a" has another time and the same content
    (work.path / "runs/y").unlink()
    assert work.push("runs") == 1
    assert stored(address) == {"a": "1", "runs/x": "5"}
    assert work.push() == 0
    again = WorkFolder(address)
    assert {path.name: path.read_text() for path in again.path.rglob("*") if path.is_file()} == {"a": "1", "x": "5"}
    assert again.push() == 0
    assert again.place(again.path / "runs/x") == ObjectPath(address) / "runs/x"


def test_records_come_after_what_they_are_of_and_removals_last(memory, monkeypatch):
    work, names = WorkFolder(f"{memory}/study"), []
    write(work, old="")
    work.push()
    (work.path / "old").unlink()
    write(work, a__run_dot_json="", z__model_dot_pt="", a__model_dot_pt="")
    for method in ("upload", "unlink"):
        done = getattr(ObjectPath, method)
        monkeypatch.setattr(
            ObjectPath, method, lambda self, *a, done=done, **k: (names.append(self.name), done(self, *a, **k))
        )
    work.push()
    assert names == ["model.pt", "model.pt", "run.json", "old"]


def test_an_upload_that_breaks_off_is_continued(memory, monkeypatch):
    work, upload = WorkFolder(f"{memory}/study"), ObjectPath.upload
    write(work, a="1", b="2", run_dot_json="3")

    def fail(self, file):
        if self.name == "b":
            raise StoreError("the store does not answer.")
        upload(self, file)

    monkeypatch.setattr(ObjectPath, "upload", fail)
    with pytest.raises(StoreError, match="does not answer"):
        work.push()
    assert stored(f"{memory}/study") == {"a": "1"}
    monkeypatch.setattr(ObjectPath, "upload", upload)
    assert work.push() == 2


def test_a_work_folder_is_removed_with_its_owner_and_not_with_a_copy(memory):
    work = WorkFolder(f"{memory}/study")
    write(work, a="1")
    path, state = work.path, work.__getstate__()
    of_a_process = copy(work)
    assert of_a_process.push() == 1
    del of_a_process
    gc.collect()
    assert path.exists()
    del work
    gc.collect()
    assert not path.exists()
    elsewhere = WorkFolder.__new__(WorkFolder)  # as a process of another machine, which has no such folder
    elsewhere.__setstate__(state)
    assert elsewhere.path == path
    assert (elsewhere.pull(), (path / "a").read_text()) == (1, "1")
    del elsewhere
    gc.collect()
    assert not path.exists()


def test_another_process_may_upload_a_part(memory):
    work = WorkFolder(f"{memory}/study")
    write(work, runs__a="1")
    copy(work).push()
    work.note_sent("runs")
    assert work.push() == 0


def test_a_local_folder_stays_as_it_is(tmp_path):
    work = WorkFolder(tmp_path / "study")
    assert work.path == tmp_path / "study"
    assert not work.path.exists()
    assert (work.push(), work.pull(), work.place(work.path / "a")) == (0, 0, tmp_path / "study/a")


def test_names_that_lead_out_of_the_folder_are_refused(s3):
    store = ObjectPath(s3.root)
    (store / "study" / "a").write_bytes(b"1")
    s3fs.S3FileSystem().pipe_file("bucket/study/x/../../out", b"2")
    with pytest.raises(ValueError, match=r"`(folder|path)` must .* got one with '\.\.'"):
        WorkFolder(f"{s3.root}/study")


def test_a_bucket_that_does_not_exist_is_named(s3):
    with pytest.raises(StoreError, match="must lie in a bucket that exists, got none for 'study'"):
        WorkFolder("s3://nowhere/study")
