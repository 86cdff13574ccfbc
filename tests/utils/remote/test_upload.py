"""Tests of uploads of folders."""

import pytest

from monai_mil_ext.utils.remote import ObjectPath, upload_folder


def test_a_folder_is_uploaded_and_its_report_last(s3, tmp_path, monkeypatch):
    for name in ("report.html", "runs/a/model.pt", "z.csv", ".writing-x", ".git/a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    names, put = [], s3fs_put(monkeypatch)
    put(names)
    assert upload_folder(tmp_path, f"{s3.root}/study") == 3
    assert names == ["runs/a/model.pt", "z.csv", "report.html"]
    found = {str(path.relative_to(ObjectPath(s3.root) / "study")) for path in (ObjectPath(s3.root) / "study").sizes()}
    assert found == set(names)
    assert ObjectPath("s3://bucket/study/z.csv").read_text() == "z.csv"


def s3fs_put(monkeypatch):
    from s3fs import S3FileSystem

    put = S3FileSystem.put_file

    def watch(names):
        def put_file(self, local, key, **kwargs):
            names.append(key.removeprefix("bucket/study/"))
            return put(self, local, key, **kwargs)

        monkeypatch.setattr(S3FileSystem, "put_file", put_file)
        S3FileSystem.clear_instance_cache()  # an instance of an earlier test keeps its own method

    return watch


def test_a_local_target_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`upload` must be an address of an object store, such as s3://bucket/study"):
        upload_folder(tmp_path, str(tmp_path / "x"))
