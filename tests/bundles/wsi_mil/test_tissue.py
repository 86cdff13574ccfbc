"""Tests of the tissue options of wsi_mil, which training, inference and instance_encoder share."""

import csv
import json
from contextlib import suppress

import torch
import yaml

from monai_mil_ext.apps.bundle import save_model
from monai_mil_ext.data import InstanceSource, OtsuTissue
from monai_mil_ext.networks.nets import ABMIL
from monai_mil_ext.transforms import TileBag
from tests.bundles.wsi import BUNDLES, ENCODER, start, write_small_slide

GREEN = (60, 130, 90)  # a stain that has the color of ink


def weights(folder, tissue):
    """An untrained network whose tiles were found by ``tissue``."""
    torch.manual_seed(0)
    source = InstanceSource(width=12, preprocessing=TileBag(tissue=tissue).tissue_id)
    save_model(folder, ABMIL(12, 2, hidden_size=4), sources=[source])


def infer(tmp_path, path, **override):
    """Run the inference, and return the row of the slide."""
    paths = {"ckpt_dir": str(tmp_path / "m"), "output_dir": str(tmp_path / "out"), "input": str(path), "case_id": "a"}
    workflow = start("inference", "slides", kind="infer", **{**paths, **ENCODER, "pictures": [], **override})
    with suppress(RuntimeError):
        workflow.run()
    with (tmp_path / "out" / "results.csv").open() as file:
        return next(csv.DictReader(file))


def test_wsi_mil_and_instance_encoder_find_the_same_tissue():
    configs = [
        yaml.safe_load((BUNDLES / name / "configs/slides.yaml").read_text()) for name in ("wsi_mil", "instance_encoder")
    ]
    assert configs[0]["tissue"] == configs[1]["tissue"]
    options = {name: value for name, value in configs[0]["tissue"].items() if name != "_target_"}
    assert OtsuTissue(**options) == OtsuTissue()
    assert configs[0]["min_tissue"] == configs[1]["min_tissue"] == 0.25


def test_wsi_mil_inference_keeps_ink_if_asked(tmp_path):
    weights(tmp_path / "m", OtsuTissue(pens=False))
    path = write_small_slide(tmp_path / "green.tif", color=GREEN)
    row = infer(tmp_path, path, **{"tissue#pens": "false"})  # a word, as from a command line
    assert (row["status"], row["source_check"]) == ("done", "agrees with the training")
    assert json.loads((tmp_path / "out/a/prediction.json").read_text())["num_tiles"] == 24


def test_wsi_mil_inference_refuses_other_tissue_than_that_of_the_training(tmp_path):
    weights(tmp_path / "m", OtsuTissue())
    path = write_small_slide(tmp_path / "s.tif")
    row = infer(tmp_path, path, **{"tissue#pens": "false"})
    assert row["status"].startswith("refused: trained on tissue detection ")
    row = infer(tmp_path, path, **{"tissue#pens": "false", "allow_mismatch": True})
    assert row["source_check"].startswith("mismatch: trained on tissue detection ")


def test_wsi_mil_inference_writes_tissue_previews_of_all_slides_if_asked(tmp_path):
    weights(tmp_path / "m", OtsuTissue())
    folder = tmp_path / "slides"
    folder.mkdir()
    write_small_slide(folder / "s.tif")
    write_small_slide(folder / "green.tif", color=GREEN)
    (folder / "t.csv").write_text("case_id,image\na,s.tif\nb,green.tif\n")
    pictures = {"case_id": None, "pictures": ["tissue"]}
    infer(tmp_path, folder / "t.csv", **pictures)
    files = [tmp_path / "out" / case / f"{case}_tissue.jpg" for case in "ab"]
    assert [file.is_file() for file in files] == [True, True]
    assert not (tmp_path / "out/a/a.png").exists()
    infer(tmp_path, folder / "t.csv", case_id=None)
    assert [file.is_file() for file in files] == [False, False]
