"""list_slides: items of a file, a folder or a table."""

import pytest

from monai_mil_ext.data import list_slides


def test_find_slides_hides_the_name_of_a_file(tmp_path):
    (tmp_path / "Jane_Doe.svs").touch()
    assert list_slides(tmp_path / "Jane_Doe.svs") == [{"case_id": "slide", "image": str(tmp_path / "Jane_Doe.svs")}]
    assert list_slides(tmp_path / "Jane_Doe.svs", "c7")[0]["case_id"] == "c7"
    with pytest.raises(ValueError, match="`case_id` must be letters, digits"):
        list_slides(tmp_path / "Jane_Doe.svs", "../c7")


def test_find_slides_in_a_folder(tmp_path):
    for name in ("b.SVS", "a.h5", ".writing-x.h5", "c.txt", "d e.tif"):
        (tmp_path / name).touch()
    (tmp_path / "z.zarr").mkdir()
    cases = [item["case_id"] for item in list_slides(tmp_path)]
    assert cases[:2] + cases[3:] == ["a", "b", "z"]
    assert cases[2].startswith("slide_")
    assert list_slides(tmp_path / "z.zarr") == [{"case_id": "slide", "image": str(tmp_path / "z.zarr")}]


def test_find_slides_in_a_table_with_slide_mpp(tmp_path):
    for name in ("a.svs", "b.svs"):
        (tmp_path / name).touch()
    table = tmp_path / "t.csv"
    table.write_text("case_id,image,slide_mpp\nc1,a.svs,0.25\nc2,b.svs,\n")
    first, second = list_slides(table)
    assert (first["case_id"], first["slide_mpp"]) == ("c1", 0.25)
    assert "slide_mpp" not in second
    table.write_text("case_id,image,slide_mpp\nc1,a.svs,fine\n")
    with pytest.raises(ValueError, match="`slide_mpp` must be a positive number, got 'fine' of 'c1'"):
        list_slides(table)


def test_find_slides_refuses_empty_folders_and_repeated_names(tmp_path):
    with pytest.raises(FileNotFoundError, match="`path` must be a slide, a folder or a table that exists, got 'x"):
        list_slides(tmp_path / "x.svs")
    with pytest.raises(FileNotFoundError, match="`path` must be a folder with slides or feature files"):
        list_slides(tmp_path)
    for name in ("a.svs", "a.h5"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="`path` must have files of different names, got 2 files of 1 names"):
        list_slides(tmp_path)
