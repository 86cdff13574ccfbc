"""Tests of the reader of bags in zarr stores."""

import pytest

from monai_mil_ext.data import BagFileError, inspect_bag, read_bag
from tests.data import bag_files as make
from tests.data.bag_files import BARE, FEATURES, GRID, MICRONS, ROWS, F, N, check_layout

CASES = {
    "three.zarr": (make.zarr_group, "zarr", BARE, GRID),
    "two.zarr": (lambda p: make.zarr_group(p, 2, unit="um", tile_size=256), "zarr", MICRONS, GRID),
    "slide3.zarr": (make.wsidata, "wsidata", ("px", 256.0), GRID[::-1] * 256),
    "slide2.zarr": (lambda p: make.wsidata(p, 2, with_xy=False), "wsidata", ("px", 256.0), GRID[::-1] * 256),
}


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_open_zarr_reads_groups_and_slides(name, rows, tmp_path):
    check_layout(tmp_path / name, CASES[name], rows)


def test_open_zarr_reads_a_single_array(tmp_path):
    path = make.zarr_array(tmp_path / "a.zarr", FEATURES, 5)
    assert inspect_bag(path)[:2] == (N, F)
    assert read_bag(path, rows=[7, 2])["features"].tolist() == FEATURES[[7, 2]].tolist()


def test_open_zarr_of_many_tables_needs_a_name(tmp_path):
    import zarr

    path = make.wsidata(tmp_path / "a.zarr")
    zarr.open_group(str(path))["tables"].create_group("uni_tiles").create_array("X", data=FEATURES)
    assert inspect_bag(path, "resnet50_tiles").encoder == "resnet50"
    with pytest.raises(BagFileError, match=r"must name a table of features, got None among \['resnet50_tiles', 'uni_"):
        read_bag(path)


def test_open_zarr_reads_size_and_resolution_of_the_slide(tmp_path):
    keys = ["spatial_shape", "slide_mpp", "level0_magnification"]
    bag = read_bag(make.wsidata(tmp_path / "a.zarr"), keys)
    assert [bag[key].tolist() for key in keys] == [[2048, 1536], 0.5, 20.0]


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr")
def test_open_zarr_takes_no_other_array_for_complex_features(tmp_path):
    import zarr

    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    group.create_array("x", data=FEATURES.astype(complex))
    group.create_array("weights", data=FEATURES)
    with pytest.raises(BagFileError, match=r"features under one of the names .* got \['weights', 'x'\] in 'a\.zarr'"):
        read_bag(tmp_path / "a.zarr")


def test_open_zarr_reads_a_slide_that_does_not_specify_its_tiles(tmp_path):
    import zarr

    path = make.wsidata(tmp_path / "a.zarr")
    del zarr.open_group(str(path)).attrs["tile_spec"]
    info, bag = inspect_bag(path), read_bag(path, ["features", "coords"])
    assert (info.unit, info.tile_size, info.mpp) == ("px", None, None)
    assert bag["features"].tolist() == FEATURES.tolist()
    assert bag["coords"].tolist() == (GRID[::-1] * 256).tolist()


@pytest.mark.parametrize("part", ["zarr.json", "features/zarr.json", "features/c/1/0"])
@pytest.mark.parametrize("content", [b"", b"\xff" * 40, None], ids=["empty", "noise", "absent"])
def test_open_zarr_names_a_damaged_store(tmp_path, part, content):
    path = make.zarr_group(tmp_path / "a.zarr")
    if content is None:
        (path / part).unlink()
    else:
        (path / part).write_bytes(content)
    with pytest.raises(ValueError, match=r"^`(path|keys)` must .* 'a\.zarr'"):
        read_bag(path)
