"""Tests of the lists of slides and feature files for inference."""

import re
from pathlib import Path

import numpy as np
import pytest

from monai_mil_ext.data import CohortColumns, list_bags, list_slides, load_cohort, single_case
from tests.data import cohort_files as make
from tests.data.slides.dicom_slide import write_dicom
from tests.scans import write_series


def test_list_slides_hides_the_name_of_a_file(tmp_path):
    (tmp_path / "Jane_Doe.svs").touch()
    (item,) = list_slides(tmp_path / "Jane_Doe.svs")
    assert item["image"] == str(tmp_path / "Jane_Doe.svs")
    assert re.fullmatch("case-[0-9a-f]{12}", item["case_id"])
    assert list_slides(tmp_path / "Jane_Doe.svs", "c7")[0]["case_id"] == "c7"
    with pytest.raises(ValueError, match="`case_id` must be letters, digits"):
        list_slides(tmp_path / "Jane_Doe.svs", "../c7")


def test_list_slides_in_a_folder(tmp_path):
    for name in ("b.SVS", "a.h5", ".writing-x.h5", "c.txt", "d e.tif"):
        (tmp_path / name).touch()
    (tmp_path / "z.zarr").mkdir()
    cases = [item["case_id"] for item in list_slides(tmp_path)]
    assert cases[:2] + cases[3:] == ["a", "b", "z"]
    assert cases[2].startswith("slide_")
    assert list_slides(tmp_path / "z.zarr", "z1") == [{"case_id": "z1", "image": str(tmp_path / "z.zarr")}]


def test_list_slides_in_a_table_with_slide_mpp(tmp_path):
    for name in ("a.svs", "b.svs"):
        (tmp_path / name).touch()
    table = tmp_path / "t.csv"
    table.write_text("case_id,image,slide_mpp\nc1,a.svs,0.25\nc2,b.svs,\n")
    first, second = list_slides(table)
    assert (first["case_id"], first["slide_mpp"]) == ("c1", 0.25)
    assert "slide_mpp" not in second
    table.write_text("case_id,image,slide_mpp\nc1,a.svs,fine\nc2,b.svs,0.5\n")
    first, second = list_slides(table)
    assert first["input_error"] == "`slide_mpp` must be a positive number, got 'fine'"
    assert second["slide_mpp"] == 0.5


def test_list_slides_refuses_empty_folders_and_repeated_names(tmp_path):
    with pytest.raises(FileNotFoundError, match="`path` must be a slide, a folder or a table that exists, got none"):
        list_slides(tmp_path / "x.svs")
    with pytest.raises(FileNotFoundError, match="`path` must be a folder with slides or feature files"):
        list_slides(tmp_path)
    for name in ("a.svs", "a.h5"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"must be unique, got 'a' in file 1 \(\.h5\) and file 2 \(\.svs\)"):
        list_slides(tmp_path)


def test_list_bags_of_a_file_and_of_a_folder(tmp_path):
    for name in ("b.npy", "a.h5", "a.tif"):
        (tmp_path / name).touch()
    assert [item["case_id"] for item in list_bags(tmp_path)] == ["a", "b"]
    assert list_bags(tmp_path / "a.h5") == [single_case(tmp_path / "a.h5")]
    (tmp_path / "b.pt").touch()
    with pytest.raises(ValueError, match=r"must be unique, got 'b' in file 2 \(\.npy\) and file 3 \(\.pt\)"):
        list_bags(tmp_path)


def test_list_slides_behind_a_link_to_itself_are_found_or_missing_without_a_crash(tmp_path):
    (tmp_path / "loop.svs").symlink_to("loop.svs")
    assert list_slides(tmp_path) == [{"case_id": "loop", "image": str(tmp_path / "loop.svs")}]
    with pytest.raises(FileNotFoundError, match=r"a slide, a folder or a table that exists, got none"):
        list_slides(tmp_path / "loop.svs")


LAYOUTS = {
    "trident": (
        make.trident_job,
        {"a": "20x_256px_0px_overlap/features_uni_v1/a.h5", "b.1": "20x_256px_0px_overlap/features_uni_v1/b.1.h5"},
    ),
    "slideflow": (make.slideflow_bags, {"a": "bags/a.pt", "b.1": "bags/b.1.pt"}),
    "clam": (make.clam_features, {"a": "h5_files/a.h5", "b.1": "h5_files/b.1.h5", "c": "pt_files/c.pt"}),
    "torchmil": (make.torchmil_folders, {"a": "features/a.npy", "b.1": "features/b.1.npy"}),
    "stamp": (make.stamp_features, {"a": "uni-1234/a.h5", "b.1": "uni-1234/b.1.h5"}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bags_of_other_tools_are_found_alike_in_training_and_inference(tmp_path, layout):
    write, files = LAYOUTS[layout]
    write(tmp_path / "job")
    expected = {case: str(tmp_path / "job" / file) for case, file in files.items()}
    for listed in (list_bags(tmp_path / "job"), list_slides(tmp_path / "job")):
        assert {item["case_id"]: item["image"] for item in listed} == expected
    rows = [[f"{case}.svs", f"p{i}", i % 2] for i, case in enumerate(files)]
    table = make.write_table(tmp_path / "c.csv", [make.HEAD, *rows])
    trained = {item["case_id"]: item["image"] for item in load_cohort(table, root=tmp_path / "job")}
    for read in (list_bags, list_slides):
        asked = {item["case_id"]: item["image"] for item in read(table, root=tmp_path / "job")}
        assert asked == trained == expected


def test_two_encoders_in_a_job_folder_are_refused_with_the_way_out(tmp_path):
    make.trident_job(tmp_path, encoders=("uni_v1", "gigapath"))
    folders = "'features_gigapath', 'features_uni_v1'"
    with pytest.raises(ValueError, match=f"got several for 2 of 2, in {folders}: give one of these folders"):
        list_bags(tmp_path)
    table = make.write_table(tmp_path / "c.csv", [make.HEAD, ["a", "p", 0]])
    with pytest.raises(ValueError, match=f"`bag` must name one file, got 2 in {folders}: give one of these folders"):
        load_cohort(table)
    (item,) = list_bags(table)
    assert item["input_error"].startswith(f"`image` must name one file, got 2 in {folders}")
    for given in (tmp_path / "20x_256px_0px_overlap" / "features_uni_v1", table):
        root = tmp_path / "20x_256px_0px_overlap" / "features_uni_v1"
        assert list_bags(given, root=root)[0]["image"] == str(root / "a.h5")


def test_a_link_beside_its_file_is_not_another_slide(tmp_path):
    make.touch(tmp_path, "store/a.svs", "store/b.svs")
    (tmp_path / "links").mkdir()
    for name in ("a.svs", "c.svs"):
        (tmp_path / "links" / name).symlink_to("../store/a.svs")
    a = {"case_id": "a", "image": str(tmp_path / "store" / "a.svs")}
    table = make.write_table(tmp_path / "t.csv", [["case_id", "image"], ["a", "a.svs"], ["c", "c"]])
    assert list_slides(table) == [a, {**a, "case_id": "c"}]
    assert [item["case_id"] for item in list_slides(tmp_path)] == ["c", "a", "b"]


def test_folders_of_patients_are_counted_and_not_named(tmp_path):
    for name in ("DOE_JOHN/a.svs", "ROE_JANE/a.svs", "ROE_JANE/b.svs"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="got several for 1 of 2, in 2 folders: give one of these folders"):
        list_slides(tmp_path)


def test_list_slides_finds_the_folders_of_the_gdc_client(tmp_path):
    make.gdc_download(tmp_path)
    names = ["TCGA-AA-0001-01Z-00-DX1.0b1c", "TCGA-AA-0002-01Z-00-DX1.2d3e"]
    assert [item["case_id"] for item in list_slides(tmp_path)] == names
    table = tmp_path / "asked.csv"
    table.write_text("slide_id,label,case_id\n" + "\n".join(f"{name},0,p{i}" for i, name in enumerate(names)))
    items = list_slides(table, root=tmp_path, columns=CohortColumns(bag="slide_id", patient="case_id"))
    assert [(item["case_id"], item["patient"]) for item in items] == [(names[0], "p0"), (names[1], "p1")]
    assert [item["image"].endswith(f"{name}.svs") for item, name in zip(items, names, strict=True)] == [True, True]


def test_list_slides_passes_over_results_and_files_of_the_system(tmp_path):
    names = "a.svs .DS_Store Thumbs.db a.svs.md5 a.svs.partial out/a/a.tif out/a/prediction.json logs/run.pt a.h5.lock"
    names += " models/model.json models/model.pt models/checkpoint_epoch=2.pt"
    for name in names.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [item["case_id"] for item in list_slides(tmp_path)] == ["a"]


def test_list_slides_in_a_table_reports_each_row_that_has_no_file(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.svs").touch()
    cells = ["a", "lost", "s3://bucket/b.svs", "../c.svs", "", "x" * 300]
    rows = [[f"c{i}", cell] for i, cell in enumerate(cells)]
    first, *others = list_slides(make.write_table(tmp_path / "t.csv", [["case_id", "image"], *rows]))
    assert first == {"case_id": "c0", "image": str(tmp_path / "deep" / "a.svs")}
    starts = ("must be the path or the name of a file below `root`, got none", "must lie below `root`, got an address")
    starts += ("must lie below `root`", "must be given, got an empty cell", "must be the path or the name")
    for item, start in zip(others, starts, strict=True):
        assert item["input_error"].startswith(f"`image` {start}")
        assert "lost" not in item["input_error"]


def test_list_slides_takes_the_preferred_kind_of_files(tmp_path):
    make.touch(tmp_path, "a.svs", "features/a.h5", "b.svs", "features/c.h5")
    table = make.write_table(tmp_path / "t.csv", [make.HEAD, ["a", "p", "0"]])
    assert list_slides(table)[0]["input_error"].startswith(
        "`image` must name one file, got 2 in 'features' and 1 other"
    )
    for prefer, first in (("slides", "a.svs"), ("features", "features/a.h5")):
        assert list_slides(table, prefer=prefer)[0]["image"] == str(tmp_path / first)
        files = {item["case_id"]: item["image"] for item in list_slides(tmp_path, prefer=prefer)}
        assert files == {
            case: str(tmp_path / name) for case, name in (("a", first), ("b", "b.svs"), ("c", "features/c.h5"))
        }
    with pytest.raises(ValueError, match="`prefer` must be one of 'slides', 'features', got 'tiles'"):
        list_slides(table, prefer="tiles")


def test_list_slides_names_the_columns_that_a_table_lacks(tmp_path):
    table = make.write_table(tmp_path / "t.csv", [["name", "label", "case_id"], ["a", "0", "p"]])
    rule = r"must have the columns 'case_id' and 'image', or the column 'bag' of a training, got \['name', 'label',"
    with pytest.raises(ValueError, match=rule):
        list_slides(table)


@pytest.mark.parametrize("head", [["slide_id", "case_id"], ["FILENAME", "PATIENT"], ["Image", "subject_id"]])
def test_list_slides_knows_the_columns_of_other_tools(tmp_path, head):
    (tmp_path / "a.svs").touch()
    table = make.write_table(tmp_path / "t.csv", [[*head, "label"], ["a", "p", "0"]])
    assert list_slides(table) == [{"case_id": "a", "patient": "p", "image": str(tmp_path / "a.svs")}]
    twice = make.write_table(tmp_path / "t.csv", [["slide_id", "wsi"], ["a", "a"]])
    with pytest.raises(ValueError, match="columns 'slide_id' and 'wsi' may each be the bag: give --columns"):
        list_slides(twice)


def test_list_slides_of_patients(tmp_path):
    for name in ("a.svs", "b.svs", "c.svs"):
        (tmp_path / name).touch()
    head = [*make.HEAD, "slide_mpp"]
    rows = [["a", "p", "0", "0.25"], ["c", "q", "1", ""], ["b", "p", "0", ""], ["lost", "r", "0", ""]]
    table = make.write_table(tmp_path / "t.csv", [head, *rows])
    p, q, r = list_slides(table, level="patient")
    paths = [str(tmp_path / name) for name in ("a.svs", "b.svs")]
    assert p == {"case_id": "p", "patient": "p", "image": paths, "slide_mpp": [0.25, None]}
    assert q == {"case_id": "q", "patient": "q", "image": [str(tmp_path / "c.svs")]}
    assert r["input_error"].startswith("slide 1 of 1: `image` must be the path or the name of a file below `root`")
    assert list_slides(tmp_path / "a.svs", "x", level="patient")[0] == {
        "case_id": "x", "patient": "x", "image": [paths[0]],
    }  # fmt: skip
    with pytest.raises(ValueError, match="a patient in every row for level 'patient', got 4 of 4 without"):
        list_slides(table, columns=CohortColumns(patient=None), level="patient")
    with pytest.raises(ValueError, match="a table with a patient in every row for level 'patient', got 3 of 3 without"):
        list_slides(tmp_path, level="patient")


def test_a_whole_disk_as_root_is_not_searched(tmp_path, monkeypatch):
    (tmp_path / "a.svs").touch()
    rows = [["x", str(tmp_path / "a.svs")], ["y", "a"], ["z", str(tmp_path / "gone" / "a.svs")]]
    table = make.write_table(tmp_path / "t.csv", [["case_id", "image"], *rows])
    x, y, z = list_slides(table, root="/")
    assert x["image"] == y["image"] == str(tmp_path / "a.svs")
    assert "got none" in z["input_error"]


def test_paths_of_another_system_are_found_by_their_name_and_not_shown(tmp_path):
    make.touch(tmp_path, "deep/a.svs")
    rows = [["C:\\Users\\DOE\\slides\\a.svs", "p", 0], ["C:\\Users\\DOE\\slides\\lost.svs", "q", 1]]
    table = make.write_table(tmp_path / "t.csv", [make.HEAD, *rows])
    a, lost = list_slides(table)
    assert a == {"case_id": "a", "patient": "p", "image": str(tmp_path / "deep" / "a.svs")}
    assert (lost["case_id"], "DOE" in lost["input_error"]) == ("lost", False)
    make.write_bags(tmp_path / "bags", {"a": 2})
    with pytest.raises(ValueError, match=r"row 3, 'lost\.svs': `bag` must be the path or the name") as error:
        load_cohort(table, root=tmp_path / "bags")
    assert "DOE" not in str(error.value)


def test_list_slides_in_a_folder_of_dicom_has_an_item_for_each_series(tmp_path):
    image = np.full((600, 500, 3), 200, np.uint8)
    for name in ("Jane", "Joe"):
        write_dicom(tmp_path / name, image)
    write_series(tmp_path / "ct")
    (tmp_path / "s.svs").touch()
    items = list_slides(tmp_path)
    assert items[0]["case_id"] == "s"
    assert [re.fullmatch(r"slide_\w{10}", item["case_id"]) is not None for item in items[1:]] == [True, True]
    assert [Path(item["image"]).parent.name for item in items[1:]] == ["Jane", "Joe"]
