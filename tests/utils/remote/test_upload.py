"""Tests of uploads of folders."""

import pytest

from monai_mil_ext.utils.remote import ObjectPath, StoreError, check_stores, upload_folder


def test_a_folder_is_uploaded_and_its_report_last(s3, tmp_path, monkeypatch):
    for name in ("report.html", "runs/a/model.pt", "z.csv", ".writing-x", ".git/a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    names, upload = [], ObjectPath.upload
    monkeypatch.setattr(ObjectPath, "upload", lambda self, file: (names.append(file.name), upload(self, file)))
    assert upload_folder(tmp_path, f"{s3.root}/study") == 3
    assert names == ["model.pt", "z.csv", "report.html"]
    found = {str(path.relative_to(ObjectPath(s3.root) / "study")) for path in (ObjectPath(s3.root) / "study").sizes()}
    assert found == {"runs/a/model.pt", "z.csv", "report.html"}
    assert ObjectPath("s3://bucket/study/z.csv").read_text() == "z.csv"


def test_a_local_target_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`upload` must be an address of an object store, such as s3://bucket/study"):
        upload_folder(tmp_path, str(tmp_path / "x"))


def test_stores_are_asked_before_the_work(s3, tmp_path):
    check_stores(str(tmp_path), f"{s3.root}/study", None, upload=f"{s3.root}/study")
    with pytest.raises(StoreError, match="must lie in a bucket that exists, got none for 'study'"):
        check_stores(f"{s3.root}/study", "s3://nowhere/study")
    with pytest.raises(StoreError, match="must lie in a bucket that exists, got none for 'sent'"):
        check_stores(str(tmp_path), upload="s3://nowhere/sent")
