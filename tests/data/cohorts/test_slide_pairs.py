"""Tests of the lookup of the slides of feature files."""

import os

import pytest

from monai_mil_ext.data import item_identity, list_slides
from monai_mil_ext.data.cohorts import slide_pairs
from monai_mil_ext.data.cohorts.slide_pairs import OUTSIDE, SlideFolder, pair_slides

SUFFIXES = (".svs", ".tif", ".mrxs", ".dcm")


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def relative(folder, items):
    """Return the found slide, or why there is none, by case."""
    found = {}
    for item in items:
        path = item.get("source")
        found[item["case_id"]] = item.get("pictures_missing") if path is None else os.path.relpath(path, folder)
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.h5", ["x/y/a.svs"]),
        ("TCGA-1.0f.h5", ["TCGA-1.0f.svs"]),
        ("b.svs.h5", ["b.svs"]),
        ("o.h5", ["o.ome.tif"]),
        ("o.ome.h5", ["o.ome.tif"]),
        ("m.pt", ["m.mrxs"]),
        ("dicom.h5", ["dicom"]),
        ("map.h5", []),
        ("hidden.h5", []),
        ("c.h5", []),
        ("twice.h5", ["p/twice.svs", "q/twice.tif"]),
        ("UPPER.h5", ["UPPER.SVS"]),
    ],
)
def test_slide_folder_finds_slides_by_stem_at_any_depth(name, expected, tmp_path):
    touch(tmp_path, "x/y/a.svs", "TCGA-1.0f.svs", "b.svs", "o.ome.tif", "m.mrxs", "m/Data0000.dat", "UPPER.SVS")
    touch(tmp_path, "dicom/1.dcm", "dicom/2.dcm", "map.tif", "map_map.json", ".cache/hidden.svs", ".hidden.svs")
    touch(tmp_path, "c.txt", "c.h5", "p/twice.svs", "q/twice.tif")
    assert [os.path.relpath(path, tmp_path) for path in SlideFolder(tmp_path, SUFFIXES).find(name)] == expected


def test_list_slides_pairs_features_with_the_slides_below_a_folder(tmp_path):
    touch(tmp_path, "feat/a.h5", "feat/b.h5", "feat/c.pt", "feat/slide.svs", "s/a.svs", "s/1/c.svs", "s/2/c.tif")
    items = list_slides(tmp_path / "feat", slide_dir=tmp_path / "s")
    assert relative(tmp_path, items) == {
        "a": "s/a.svs",
        "b": "no slide found",
        "c": "2 slides of this name found, of which the column `slide` must name one",
        "slide": None,
    }
    assert all("source" not in item for item in list_slides(tmp_path / "feat"))


def test_list_slides_takes_the_slide_of_a_single_file(tmp_path):
    touch(tmp_path, "a.h5", "other.svs")
    items = list_slides(tmp_path / "a.h5", "c1", slide=tmp_path / "other.svs")
    assert relative(tmp_path, items) == {"c1": "other.svs"}
    with pytest.raises(FileNotFoundError, match="`slide` must be a slide that exists, got none"):
        list_slides(tmp_path / "a.h5", slide=tmp_path / "absent.svs")
    touch(tmp_path, "b.h5")
    with pytest.raises(ValueError, match="`slide` must be given for a single feature file, got 3 files, 2 of them"):
        list_slides(tmp_path, slide=tmp_path / "other.svs")


def test_list_slides_reads_the_column_slide_of_a_table(tmp_path):
    touch(tmp_path, "t/f.h5", "t/near.svs", "s/deep/far.svs", "s/deep/f.svs", "outside.svs")
    rows = {"near": "near.svs", "path": "deep/far.svs", "name": "far", "empty": "", "out": "../outside.svs", "no": "x"}
    rows |= {"absolute": str(tmp_path / "s/deep/far.svs"), "elsewhere": str(tmp_path / "outside.svs")}
    lines = [f"{case},f.h5,{slide}" for case, slide in rows.items()]
    (tmp_path / "t" / "table.csv").write_text("\n".join(["case_id,image,slide", *lines]))
    items = list_slides(tmp_path / "t" / "table.csv", slide_dir=tmp_path / "s")
    assert relative(tmp_path, items) == {
        "near": "t/near.svs",
        "path": "s/deep/far.svs",
        "name": "s/deep/far.svs",
        "empty": "s/deep/f.svs",
        "out": OUTSIDE,
        "no": "no slide found",
        "absolute": "s/deep/far.svs",
        "elsewhere": OUTSIDE,
    }
    found = relative(tmp_path, list_slides(tmp_path / "t" / "table.csv"))
    assert (found["near"], found["path"], found["empty"]) == ("t/near.svs", "no slide found", None)
    assert all("slide" not in item for item in items)  # the name of a bag in a file with several


@pytest.mark.parametrize("where", ["s", None])
def test_list_slides_pairs_each_row_whatever_another_row_names(where, tmp_path):
    """By names alone, paths of Windows included; an address is a reason in its row, and no end of the run."""
    touch(tmp_path, "f.h5", "s/deep/far.svs")
    rows = {
        "windows": "D:\\slides\\far.svs",
        "s3": "s3://bucket/far.svs",
        "name": "far.svs",
        "stem": "far",
        "none": "x",
    }
    lines = [f"{case},f.h5,{slide}" for case, slide in rows.items()]
    (tmp_path / "table.csv").write_text("\n".join(["case_id,image,slide", *lines]))
    items = list_slides(tmp_path / "table.csv", slide_dir=where and tmp_path / where)
    assert relative(tmp_path, items) == {
        **dict.fromkeys(("windows", "name", "stem"), "s/deep/far.svs"),
        "s3": "`slide` must be a local path, got an address that begins with 's3://'",
        "none": "no slide found",
    }


def test_list_slides_takes_paths_below_the_folder_of_all_others_without_searching_it(tmp_path, monkeypatch):
    touch(tmp_path, "t/f.h5", "disk/far.svs")
    monkeypatch.setattr(slide_pairs, "list_files", lambda *args: pytest.fail("searched the whole disk"))
    rows = [f"a,f.h5,{tmp_path / 'disk/far.svs'}", "b,f.h5,far.svs", "c,f.h5,"]
    (tmp_path / "t" / "table.csv").write_text("\n".join(["case_id,image,slide", *rows]))
    for options in ({"root": "/"}, {"slide_dir": "/"}):
        found = relative(tmp_path, list_slides(tmp_path / "t" / "table.csv", **options))
        assert (found["a"], found["b"]) == ("disk/far.svs", "no slide found")


def test_slide_folder_follows_links_and_takes_no_thumbnail_for_a_slide(tmp_path):
    touch(tmp_path, "s/a.svs", "s/thumbnails/a.tif", "s/Masks/a.tif", "s/done/a/prediction.json", "s/done/a/a.tif")
    touch(tmp_path, "disk/b.svs", "disk/dicom/1.dcm")
    (tmp_path / "s" / "disk").symlink_to(tmp_path / "disk")
    (tmp_path / "s" / "again").mkdir()
    (tmp_path / "s" / "again" / "a.svs").symlink_to(tmp_path / "s" / "a.svs")
    folder = SlideFolder(tmp_path / "s", SUFFIXES)
    found = {
        name: [os.path.relpath(path, tmp_path) for path in folder.find(f"{name}.h5")] for name in ("a", "b", "dicom")
    }
    assert found == {"a": ["s/a.svs"], "b": ["s/disk/b.svs"], "dicom": ["s/disk/dicom"]}


def test_list_slides_refuses_a_folder_without_any_of_the_slides(tmp_path):
    touch(tmp_path, "f/a.h5", "f/b.h5", "s/other.svs")
    with pytest.raises(
        ValueError, match="`slide_dir` must hold a slide with the name of a feature file, got none for 2"
    ):
        list_slides(tmp_path / "f", slide_dir=tmp_path / "s")
    with pytest.raises(FileNotFoundError, match="`slide_dir` must be a folder that exists, got none"):
        list_slides(tmp_path / "f", slide_dir=tmp_path / "absent")


def test_pair_slides_leaves_other_items_alone(tmp_path):
    touch(tmp_path, "a.svs")
    items = [{"case_id": "p", "image": ["a.h5", "b.h5"]}, {"case_id": "s", "image": "x.svs"}]
    assert pair_slides(items, SUFFIXES, tmp_path) == items


def test_pair_slides_changes_the_identity_of_an_item(tmp_path):
    """A result without pictures is not taken for one with them, nor one of another slide."""
    touch(tmp_path, "f/a.h5", "f/b.h5", "s/b.svs")
    plain = item_identity(list_slides(tmp_path / "f")[0])
    missing = item_identity(list_slides(tmp_path / "f", slide_dir=tmp_path / "s")[0])
    (tmp_path / "s" / "a.svs").write_bytes(b"1")
    one = item_identity(list_slides(tmp_path / "f", slide_dir=tmp_path / "s")[0])
    (tmp_path / "s" / "a.svs").write_bytes(b"22")
    other = item_identity(list_slides(tmp_path / "f", slide_dir=tmp_path / "s")[0])
    assert len({plain, missing, one, other}) == 4
