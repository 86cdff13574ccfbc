"""Test of scripts/train_demo_weights by the check of the model zoo (its ci/verify_bundle.py)."""

import os
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ckpt_export, download_large_files, verify_metadata, verify_net_in_out

pytestmark = [
    pytest.mark.network,
    pytest.mark.slow(buys="the demo weights that cards link to are those that their command trains"),
]
ROOT = Path(__file__).parents[2]
LIMIT = 25 * 2**20
CASES = [  # bundle, overlays, overrides
    ("instance_encoder", [], []),
    ("scan_mil", [], ["epochs=1"]),
    ("wsi_mil", [], ["epochs=1"]),
    ("wsi_mil", ["asmil"], ["epochs=1"]),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory, ct):
    """The bundles as they are shipped, with the demo CTs that were fetched before."""
    folder = tmp_path_factory.mktemp("repository")
    made = shutil.ignore_patterns("models", "data", "data_digits", "eval", "__pycache__")
    for name in ("bundles", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=made)
    (folder / "bundles" / "scan_mil" / "data").symlink_to(ct)
    return folder


@pytest.mark.parametrize(("name", "overlays", "overrides"), CASES)
def test_train_demo_weights_makes_bundles_pass_the_check_of_the_zoo(name, overlays, overrides, copy, monkeypatch):
    monkeypatch.chdir(copy)  # and so, after it, back to where it was
    monkeypatch.setattr(sys, "path", list(sys.path))
    options = [word for overlay in overlays for word in ("--overlay", overlay)]
    monkeypatch.setattr(sys, "argv", ["train_demo_weights", name, *options, *overrides])
    runpy.run_path("scripts/train_demo_weights", run_name="__main__")
    os.chdir(copy)
    bundle = Path("bundles") / name  # the zoo's check runs outside of the bundle
    weights = torch.load(bundle / "models" / "model.pt", map_location="cpu", weights_only=True)
    assert all(value.isfinite().all() for value in weights.values())
    assert os.path.getsize(bundle / "models" / "model.pt") <= LIMIT
    if (bundle / "large_files.yml").exists():
        download_large_files(str(bundle))  # is there already, and has the hash
    config = {"meta_file": str(bundle / "configs/metadata.json"), "bundle_root": str(bundle)}
    verify_metadata(config["meta_file"], str(ROOT / "tests" / "bundles" / "schema.json"))
    config |= {"net_id": "network_def", "config_file": [f"{bundle}/configs/{n}.yaml" for n in ("inference", *overlays)]}
    verify_net_in_out(**config)
    exported = bundle / "models" / "verify_model.ts"
    ckpt_export(filepath=str(exported), ckpt_file=str(bundle / "models/model.pt"), **config)
    exported = torch.jit.load(exported).state_dict()
    shared = weights.keys() & exported.keys()  # a classifier is left out, and constants are written along
    assert len(shared) >= len(exported) - 2
    assert all(torch.equal(exported[key], weights[key]) for key in shared)
