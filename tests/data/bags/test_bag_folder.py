"""Tests of the lookup of bag files in a folder."""

import pytest

from monai_mil_ext.data.bags.bag_folder import BagFolder


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    for name in (
        "a.h5",
        "x/same.pt",
        "y/same.h5",
        "s.2.npz",
        ".writing/b.h5",
        ".c.h5",
        "notes.txt",
        "z.zarr/inner.npy",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (tmp_path / "outside.h5").touch()
    (root / "link.h5").symlink_to(tmp_path / "outside.h5")
    return root


def test_bag_folder_lists_bag_files_and_stores_but_nothing_hidden(root):
    names = [str(path.relative_to(root.resolve())) for path in BagFolder(root).files]
    assert names == ["a.h5", "link.h5", "s.2.npz", "x/same.pt", "y/same.h5", "z.zarr"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a", "a.h5"),
        ("a.h5", "a.h5"),
        ("a.svs", "a.h5"),
        ("s.2", "s.2.npz"),
        ("x/same.pt", "x/same.pt"),
        ("z", "z.zarr"),
        ("z.zarr", "z.zarr"),
    ],
)
def test_bag_folder_find_takes_a_path_or_a_name(root, name, expected):
    assert BagFolder(root).find(name) == root.resolve() / expected


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("none", "must be the path or the name of a file below `root`, got none"),
        ("b", "must be the path or the name of a file below `root`, got none"),
        ("same", "must name one file, got 2 in 2 folders: give one of these folders as `root`"),
        ("../outside.h5", "must lie below `root`, got a path or a link out of it"),
        ("link.h5", "must lie below `root`, got a path or a link out of it"),
        ("link", "must lie below `root`, got a path or a link out of it"),
    ],
)
def test_bag_folder_find_refuses_missing_ambiguous_and_outside_files(root, name, match):
    with pytest.raises(ValueError, match=match):
        BagFolder(root).find(name)


def test_bag_folder_inside_resolves_relative_paths(root):
    folder = BagFolder(root)
    assert folder.inside("x/../a.h5") == root.resolve() / "a.h5"
    with pytest.raises(ValueError, match="must lie below `root`"):
        folder.inside("/etc")


def test_bag_folder_needs_a_folder(root):
    with pytest.raises(FileNotFoundError, match=r"`root` must be a folder that exists, got 'a.h5'"):
        BagFolder(root / "a.h5")


def test_bag_folder_resolves_paths_relative_to_the_table_as_well(root, tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "t.h5").touch()
    (tmp_path / "tables" / "link.h5").symlink_to(tmp_path / "outside.h5")
    folder = BagFolder(tmp_path, tmp_path / "tables")
    assert folder.find("t.h5") == folder.find("t") == tmp_path.resolve() / "tables" / "t.h5"
    assert folder.find("root/a.h5") == root.resolve() / "a.h5"
    assert folder.find("link.h5") == tmp_path.resolve() / "outside.h5"
    with pytest.raises(ValueError, match="must lie below `root`"):
        BagFolder(root, tmp_path / "tables").find("link.h5")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s1", "deep/s1.ome.tif"),
        ("s1.ome", "deep/s1.ome.tif"),
        ("s1.ome.tif", "deep/s1.ome.tif"),
        ("dicom", "deep/dicom"),
        ("D:\\scans\\dicom", "deep/dicom"),
        ("1.dcm", "deep/dicom/1.dcm"),
    ],
)
def test_bag_folder_find_knows_slides_by_the_names_that_people_use(name, expected, tmp_path):
    """An OME-TIFF without both suffixes, and a DICOM slide by its folder, wherever they are."""
    for file in ("deep/s1.ome.tif", "deep/dicom/1.dcm", "deep/dicom/2.dcm"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert BagFolder(tmp_path, suffixes=(".tif", ".dcm")).find(name) == tmp_path.resolve() / expected
