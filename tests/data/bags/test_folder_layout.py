"""Tests of the choice of bags and slides in folders of other tools."""

import logging
from pathlib import Path

import pytest

from monai_mil_ext.data.bags.folder_layout import list_files, name_folders


def listed(folder, *names, suffixes=(".h5", ".pt", ".npz", ".zarr")):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [str(file.relative_to(folder)) for file in list_files(folder, suffixes)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b/a.h5", "a.H5", "c.txt"], ["a.H5", "b/a.h5"]),
        (["a.pt", "a.index.npz", "b.npz"], ["a.pt", "b.npz"]),
        (["patches/a.h5", "features/a.h5"], ["features/a.h5"]),
        (["Coords/a.h5", "x/a.h5"], ["x/a.h5"]),
        (["patches/a.h5", "patches/b.h5"], ["patches/a.h5", "patches/b.h5"]),  # whoever has only these means them
        (["pt_files/a.pt", "pt_files/b.pt", "h5_files/a.h5"], ["h5_files/a.h5", "pt_files/b.pt"]),
        (["z.zarr/inner.h5", "z.zarr/deep/inner.pt"], ["z.zarr"]),
        ([".hidden/a.h5", "._a.h5", ".writing-a.h5", "a.h5"], ["a.h5"]),
        (["out/a/a.h5", "out/a/prediction.json", "out/a/deep/b.h5", "a.h5"], ["a.h5"]),
        (["m/model.pt", "m/model.json", "m/bags/a.pt", "m/a.h5"], ["m/a.h5", "m/bags/a.pt"]),
        (["a.h5/a.h5", "b.pt/deep/b.pt"], ["a.h5/a.h5", "b.pt/deep/b.pt"]),  # a folder a slide, named as its file
    ],
)
def test_list_files_takes_bags_and_leaves_what_lies_beside_them(tmp_path, names, expected):
    assert listed(tmp_path, *names) == expected


def test_list_files_says_once_that_a_format_is_preferred(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    listed(tmp_path, "pt_files/a.pt", "pt_files/b.pt", "pt_files/c.pt", "h5_files/a.h5", "h5_files/b.h5")
    assert caplog.messages == ["2 files of pt_files are left out: h5_files has them with coordinates"]


def test_list_files_follows_links_to_folders_once(tmp_path):
    disk = tmp_path / "disk"
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "first").symlink_to(disk)
    listed(disk, "a.h5", "deep/b.h5")
    (disk / "deep" / "loop").symlink_to(tmp_path / "job")
    (disk / "self").symlink_to("self")
    assert listed(tmp_path / "job") == ["first/a.h5", "first/deep/b.h5"]


def test_list_files_passes_over_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    from monai_mil_ext.data.bags import folder_layout

    real = folder_layout.os.scandir

    def scandir(folder):
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(folder_layout.os, "scandir", scandir)
    assert listed(tmp_path, "closed/a.h5", "open/b.h5") == ["open/b.h5"]


def test_name_folders_names_only_what_tools_name():
    names = ["features_uni_v1", "feats-ctranspath", "h5_files", "20x_256px_0px_overlap", "DOE_JOHN", "1998-01-01"]
    text = name_folders([Path(name, "a.h5") for name in names])
    assert text == "'20x_256px_0px_overlap', 'feats-ctranspath', 'features_uni_v1', 'h5_files' and 2 other folders"


def test_name_folders_tells_folders_of_one_name_apart():
    """TRIDENT repeats the name of an encoder below each magnification; the name of a user's folder stays unsaid."""
    names = ("job/20x_256px_0px_overlap/features_uni", "job/10x_256px_0px_overlap/features_uni", "DOE/bags", "ROE/bags")
    text = name_folders([Path(name, "a.h5") for name in names])
    assert text == "'10x_256px_0px_overlap/features_uni', '20x_256px_0px_overlap/features_uni', 'bags'"
