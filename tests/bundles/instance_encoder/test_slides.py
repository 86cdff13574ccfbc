"""Tests of the config slides.yaml of instance_encoder: feature files that TRIDENT, CLAM and MIL-Lab read."""

import json
from copy import deepcopy
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_mil_ext.data import CohortColumns, InstanceSource, SlideTiles, TileGrid, inspect_bag, load_cohort, read_bag
from monai_mil_ext.transforms import TileBag
from monai_mil_ext.utils.remote import ObjectPath
from tests.make_slide import damage_tile, stained, write_slide, write_truncated
from tests.utils.dask_clusters import cluster

BUNDLE = Path(__file__).parents[3] / "bundles" / "instance_encoder"
IMAGE = stained((700, 900), (100, 60, 700, 500))
PIXELS = {  # the features of a tile are its pixels
    "_target_": "monai_mil_ext.networks.encoders.InstanceEncoder",
    "net": {"_target_": "torch.nn.Flatten"},
    "input_spec": {"_target_": "monai_mil_ext.networks.encoders.InputSpec", "channels": 3, "size": [32, 32]},
    "output": "identity",
}
GRID = {"tile_size": 32, "mpp": 2.0}
# tiles of level 0, and a thumbnail of another level where there is one
DEEP = {"mpp": 0.5, "tile_size": 128, "encoder#input_spec#size": [128, 128], "preprocessing#thumbnail_size": 256}
# what TRIDENT writes; ../shared/methods/peers.md, 6.1
FEATURES_SAY = {"name", "savetodir", "encoder"}
COORDS_SAY = {"patch_size", "patch_size_level0", "level0_magnification", "target_magnification", "overlap"}
COORDS_SAY |= {"name", "savetodir", "level0_width", "level0_height"}


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Make a workflow on slides: rows of a table, where a path is that of a file in ``tmp_path``."""
    monkeypatch.chdir(BUNDLE)

    def make(*rows, columns="case_id,image", **override):
        (tmp_path / "slides.csv").write_text("\n".join([columns, *rows]), encoding="utf-8")
        files = [f"configs/{name}.yaml" for name in ("encode", "slides")]
        paths = {"dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "out")}
        options = {"encoder": deepcopy(PIXELS), "encoder_label": "pixels", "num_workers": 0, "chunk_size": 8, **GRID}
        workflow = ConfigWorkflow(files, workflow_type=None, logging_file=False, **{**paths, **options, **override})
        workflow.initialize()
        return workflow

    return make


def report(workflow):
    workflow.run()
    return workflow.parser.get_parsed_content("report")


def file_of(told, tmp_path, case):
    return tmp_path / "features" / told["folder"] / f"{case}.h5"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_instance_encoder_slides_writes_the_encoded_bag_of_tiles(start, tmp_path, capsys, num_workers):
    path = write_slide(tmp_path / "s.tif", IMAGE)
    told = report(start("one,s.tif,p1,1", columns="case_id,image,patient,label", num_workers=num_workers))
    keys = ["features", "coords", "tissue", "tile_size", "unit", "mpp", "spatial_shape", "case_id", "encoder"]
    bag = read_bag(file_of(told, tmp_path, "one"), keys)
    tiles = TileBag(TileGrid(**GRID), dtype=torch.uint8)(path)
    assert len(tiles.coords) > 8  # several chunks
    assert torch.equal(bag["features"], tiles.bag[:].flatten(1) / 255)
    assert torch.equal(bag["coords"], tiles.coords)
    assert torch.equal(bag["tissue"], tiles.tissue)
    assert [float(bag[key]) for key in ("tile_size", "mpp")] == [128.0, 2.0]
    assert [bag[key] for key in ("unit", "case_id", "encoder")] == ["px", "one", "pixels"]
    assert bag["spatial_shape"].tolist() == [900, 700]
    output = capsys.readouterr().out
    assert f"1 slides: 0 done before, 1 made, 0 failed; {len(tiles.coords)} tiles in " in output
    assert 0 <= told["encoder_waited"] <= 1
    assert "(the encoder was idle for " in output
    cohort = load_cohort(file_of(told, tmp_path, "one").with_name("bags.csv"), CohortColumns())
    assert [(item["case_id"], item["patient"], item["label"]) for item in cohort] == [("one", "p1", 1)]


def test_instance_encoder_slides_names_arrays_as_trident(start, tmp_path):
    write_slide(tmp_path / "Miller Jane.tif", IMAGE)
    told = report(start("one,Miller Jane.tif", overlap=8))
    path = file_of(told, tmp_path, "one")
    with h5py.File(path) as file:
        features, coords = file["features"], file["coords"]
        assert features[:].ndim == 2  # as CLAM and MIL-Lab read it
        assert (coords[:].shape, coords.dtype) == ((len(features), 2), np.int64)
        assert set(features.attrs) == FEATURES_SAY
        assert set(coords.attrs) == COORDS_SAY
        assert dict(coords.attrs) == {
            "patch_size": 32,
            "patch_size_level0": 128,  # patch_size * level0_magnification // target_magnification
            "level0_magnification": 20,
            "target_magnification": 5,
            "overlap": 8,
            "name": "one",
            "savetodir": told["folder"],
            "level0_width": 900,
            "level0_height": 700,
        }
        assert dict(features.attrs) == {"name": "one", "savetodir": told["folder"], "encoder": "pixels"}
    info = inspect_bag(path)
    assert (info.format, info.unit, info.tile_size, info.magnification, info.mpp, info.encoder) == (
        "trident",
        "px",
        128.0,
        5.0,
        2.0,
        "pixels",
    )
    for secret in (str(tmp_path), "Miller"):
        assert secret.encode() not in path.read_bytes()


def test_instance_encoder_slides_folder_depends_on_the_grid_but_not_on_reading(start, tmp_path):
    write_slide(tmp_path / "s.tif", IMAGE)
    folders = [
        start("one,s.tif", **change).parser.get_parsed_content("feature_cache").folder.name
        for change in (
            {},
            {"num_workers": 3, "chunk_size": 5},
            {"mpp": 1.0},
            {"overlap": 8},
            {"min_tissue": 0.5},
            {"tissue#pens": False},
            {"tissue": False},
            {"encoder#amp_dtype": "$torch.bfloat16"},
        )
    ]
    assert folders[1] == folders[0]
    assert len(set(folders)) == 7


def test_instance_encoder_slides_uses_the_resolution_of_each_slide(start, tmp_path):
    write_slide(tmp_path / "s.tif", IMAGE, mpp=None)
    columns = "case_id,image,slide_mpp"
    first = report(start("one,s.tif,0.5", columns=columns))
    assert read_bag(file_of(first, tmp_path, "one"), ["tile_size"])["tile_size"] == 128
    again = report(start("one,s.tif,0.50", columns=columns))
    assert (again["folder"], again["done_before"]) == (first["folder"], 1)
    other = report(start("one,s.tif,1.0", columns=columns))
    assert (other["folder"], other["made"]) == (first["folder"], 1)
    assert read_bag(file_of(other, tmp_path, "one"), ["tile_size", "slide_mpp"])["tile_size"] == 64


@pytest.mark.parametrize(("options", "size"), [({"slide_mpp": 0.5}, 128), ({"magnification": 40}, 256)])
def test_instance_encoder_slides_takes_a_resolution_for_all(start, tmp_path, options, size):
    write_slide(tmp_path / "s.tif", IMAGE, mpp=None)
    made = report(start("one,s.tif", **options))
    assert read_bag(file_of(made, tmp_path, "one"), ["tile_size"])["tile_size"] == size


def test_instance_encoder_slides_continues_after_broken_slides(start, tmp_path, capsys):
    name = "Präparat Ω 組織.tif"
    write_slide(tmp_path / name, IMAGE)
    write_slide(tmp_path / "level.tif", IMAGE, levels=1)
    write_slide(tmp_path / "deep.tif", IMAGE.astype(np.uint16) * 257)
    write_slide(tmp_path / "clear.tif", np.dstack([IMAGE, np.full((700, 900, 1), 255, np.uint8)]))
    write_slide(tmp_path / "glass.tif", stained((700, 900)))
    write_slide(tmp_path / "no_mpp.tif", IMAGE, mpp=None)
    damage_tile(write_slide(tmp_path / "damaged.tif", IMAGE, levels=1), 5)
    damage_tile(write_slide(tmp_path / "tile.tif", IMAGE), 5)
    write_truncated(tmp_path / "cut.tif", IMAGE)
    write_slide(tmp_path / "strips.tif", IMAGE[:200, :300], levels=1, tile=None)
    write_slide(tmp_path / "small.tif", IMAGE[:100, :100])
    stems = ("level", "deep", "clear", "glass", "no_mpp", "damaged", "tile", "cut", "strips", "small", "gone")
    rows = [f"good,{name}", *(f"{stem},{stem}.tif" for stem in stems), "odd_mpp,level.tif"]
    rows = [f"{row},{'coarse' if row.startswith('odd') else ''}" for row in rows]
    workflow = start(*rows, columns="case_id,image,slide_mpp", **DEEP)
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        workflow.run()
    assert "got 7 that don't: ['cut', 'damaged', 'gone'" in str(error.value.__cause__)
    told = json.loads((tmp_path / "out" / "features.json").read_text())
    assert [told[key] for key in ("scans", "made", "failed", "empty")] == [13, 6, 7, ["glass"]]
    reasons = {case: reason for reason, cases in told["reasons"].items() for case in cases}
    for case, words in {
        "no_mpp": "must state its mpp",
        "damaged": "must be readable at level 0",
        "tile": "must be readable at level 0",
        "cut": "must be a slide that can be read",
        "small": "must be at least as large as a tile",
        "gone": "must be the path or the name of a file below `root`",
        "odd_mpp": "`slide_mpp` must be a positive number, got 'coarse'",
    }.items():
        assert words in reasons[case]
    output = capsys.readouterr().out
    assert "13 slides: 0 done before, 6 made, 7 failed; " in output
    assert output.count("\n  ") == told["failed"] + 2
    assert "  note on strips: The file was read by tifffile" in output
    assert "  without tiles: glass" in output
    assert ".tif" not in output + json.dumps(told)
    same = [read_bag(file_of(told, tmp_path, case))["features"] for case in ("good", "level", "deep", "clear")]
    assert all(torch.equal(features, same[0]) for features in same)
    again = json.loads((tmp_path / "out" / "features.json").read_text())
    assert again["empty"] == ["glass"]


def test_instance_encoder_slides_writes_an_empty_bag_without_tissue(start, tmp_path):
    write_slide(tmp_path / "glass.tif", stained((700, 900)))
    write_slide(tmp_path / "s.tif", IMAGE)
    rows = ["glass,glass.tif,p0,0", "one,s.tif,p1,1"]
    told = report(start(*rows, columns="case_id,image,patient,label"))
    path = file_of(told, tmp_path, "glass")
    info = inspect_bag(path)
    assert (info.num_instances, info.format, info.encoder) == (0, "trident", "pixels")
    with h5py.File(path) as file:
        assert (file["features"][:].shape, file["coords"][:].shape) == ((0, 0), (0, 2))
        assert file.attrs["status"].decode() == "empty"
    with pytest.raises(ValueError, match=r"row 2, 'glass.h5': a bag must have an instance, got none"):
        load_cohort(path.with_name("bags.csv"))
    items = load_cohort(path.with_name("bags.csv"), on_bad="skip")
    assert [item["case_id"] for item in items] == ["one"]
    again = report(start(*rows, columns="case_id,image,patient,label"))
    assert [again[key] for key in ("done_before", "made", "empty")] == [2, 0, ["glass"]]


def test_instance_encoder_slides_says_what_was_taken_for_ink(start, tmp_path, capsys):
    write_slide(tmp_path / "green.tif", stained((700, 900), (100, 60, 700, 500), color=(60, 130, 90)))
    told = report(start("green,green.tif"))
    note = "100% of what is not glass was taken for ink, which --tissue#pens false keeps"
    assert (told["empty"], told["notes"]) == (["green"], {"green": note})
    assert f"  without tiles: green\n  note on green: {note}" in capsys.readouterr().out
    kept = report(start("green,green.tif", **{"tissue#pens": "false"}))
    assert (kept["empty"], kept["notes"]) == ([], {})
    assert kept["instances"] > 8
    stated = [InstanceSource.from_bag(file_of(r, tmp_path, "green")).preprocessing for r in (told, kept)]
    assert stated[0] != stated[1]


def test_instance_encoder_slides_writes_tissue_previews_if_asked(start, tmp_path):
    write_slide(tmp_path / "s.tif", IMAGE)
    write_slide(tmp_path / "glass.tif", stained((700, 900)))
    rows = ["one,s.tif", "glass,glass.tif"]
    report(start(*rows, previews="false"))  # a word of a command line
    assert not list(tmp_path.rglob("*_tissue.jpg"))
    again = report(start(*rows, previews=True))
    assert again["done_before"] == 2
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.jpg")) == ["glass_tissue.jpg", "one_tissue.jpg"]


def test_instance_encoder_slides_reports_the_error_of_a_worker(start, tmp_path):
    damage_tile(write_slide(tmp_path / "tile.tif", IMAGE), 5)
    workflow = start("tile,tile.tif", num_workers=1, **DEEP)
    with pytest.raises(RuntimeError, match="Failed to evaluate"):
        workflow.run()
    (reason,) = json.loads((tmp_path / "out" / "features.json").read_text())["reasons"]
    assert reason.startswith("`slide` must be readable at level 0, x ")
    assert reason.endswith("got OpenSlideError.")


def test_instance_encoder_slides_keeps_few_tiles_in_memory(start, tmp_path, monkeypatch):
    write_slide(tmp_path / "s.tif", IMAGE)
    sizes, read = [], SlideTiles.__getitem__
    monkeypatch.setattr(SlideTiles, "__getitem__", lambda self, k: (sizes.append(k), read(self, k))[1])
    told = report(start("one,s.tif"))
    assert {place.stop - place.start for place in sizes} == {8}
    assert sum(len(range(told["instances"])[place]) for place in sizes) == told["instances"]


def test_instance_encoder_slides_on_dask_workers_writes_the_same_files(start, tmp_path):
    """Readers of slides and of tiles are opened by each worker."""
    for name in ("s", "t"):
        write_slide(tmp_path / f"{name}.tif", IMAGE)
    keys = ["features", "coords", "tissue"]
    with cluster({}, {}) as address:
        many = report(start("one,s.tif", "two,t.tif", scheduler=address, feature_dir=str(tmp_path / "many")))
    alone = report(start("one,s.tif", "two,t.tif"))
    assert (many["made"], many["failed"], many["instances"]) == (2, 0, alone["instances"])
    for case in ("one", "two"):
        found = read_bag(tmp_path / "many" / many["folder"] / f"{case}.h5", keys)
        torch.testing.assert_close(found, read_bag(file_of(alone, tmp_path, case), keys), rtol=0, atol=0)


def test_instance_encoder_slides_writes_to_a_store_what_it_writes_here(start, tmp_path, s3):
    write_slide(tmp_path / "s.tif", IMAGE)
    ObjectPath(f"{s3.root}/slides/t.tif").upload(tmp_path / "s.tif")
    local = report(start("one,s.tif"))
    places = {"feature_dir": f"{s3.root}/features", "output_dir": f"{s3.root}/out"}
    remote = report(start("one,s.tif", **places))
    stored = ObjectPath(places["feature_dir"]) / remote["folder"] / "one.h5"
    assert stored.read_bytes() == file_of(local, tmp_path, "one").read_bytes()
    assert json.loads((ObjectPath(places["output_dir"]) / "features.json").read_text())["made"] == 1
    assert report(start("one,s.tif", **places))["done_before"] == 1
    there = report(start("one,t.tif", **places, slide_dir=f"{s3.root}/slides"))
    assert (there["made"], there["failed"]) == (1, 0)
