"""Tests of the folder of a viewer and of the library that viewers share."""

import hashlib
from importlib.resources import files

import pytest

from monai_mil_ext.visualize import remove_viewer, viewer_pictures
from monai_mil_ext.visualize.viewer import viewer_folder


def test_remove_viewer_follows_no_link(tmp_path):
    (tmp_path / "other" / "deep").mkdir(parents=True)
    (tmp_path / "other" / "deep" / "kept").touch()
    (tmp_path / "viewer").symlink_to(tmp_path / "other")
    remove_viewer(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    (tmp_path / "viewer" / "tiles" / "3").mkdir(parents=True)
    (tmp_path / "viewer" / "tiles" / "3" / "0_0.jpg").touch()
    (tmp_path / "viewer" / "tiles" / "link").symlink_to(tmp_path / "other" / "deep")
    remove_viewer(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    assert (tmp_path / "other" / "deep" / "kept").exists()
    remove_viewer(tmp_path)


def test_viewer_pictures_names_an_unknown_option():
    assert viewer_pictures("full") == ["viewer-full"]
    with pytest.raises(ValueError, match=r"`viewer` must be one of .*, got 'all'"):
        viewer_pictures("all")


def test_the_library_is_that_of_the_registry_with_its_license():
    shipped = files("monai_mil_ext.visualize") / "viewer" / "openseadragon"
    script = (shipped / "openseadragon.min.js").read_bytes()
    assert hashlib.sha256(script).hexdigest() == viewer_folder.SHA256
    assert script.startswith(f"//! openseadragon {viewer_folder.VERSION}\n".encode())
    assert "Redistributions in binary form must reproduce" in (shipped / "LICENSE.txt").read_text()


def test_write_library_is_written_once_and_repaired(tmp_path):
    address = viewer_folder.write_library(tmp_path)
    path = tmp_path / address
    assert sorted(file.name for file in path.parent.iterdir()) == sorted(viewer_folder.LIBRARY)
    before = path.stat().st_mtime_ns
    viewer_folder.write_library(tmp_path)
    assert path.stat().st_mtime_ns == before
    path.write_text("cut")
    viewer_folder.write_library(tmp_path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == viewer_folder.SHA256
