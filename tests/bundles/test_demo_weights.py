"""Tests of the bundles as they are in the repository by the check of the model zoo (its ci/verify_bundle.py)."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch
from monai.bundle import (
    ckpt_export,
    download_large_files,
    verify_metadata,
    verify_net_in_out,
)

ROOT = Path(__file__).parents[2]
SMALL = 2 * 2**20  # bytes of weights in the repository
SHIPPED = ["bag_classifier", "scan_mil", "wsi_mil"]


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A copy of the tracked files of a bundle in models/, as in the zoo, whose check runs outside of a bundle."""

    def make(name):
        command = ["git", "ls-files", f"bundles/{name}"]
        tracked = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
        for file in tracked:
            copy = tmp_path / "models" / Path(file).relative_to("bundles")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / file, copy)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [str(Path("models") / name), *sys.path])
        return Path("models") / name

    return make


def check_as_the_zoo(bundle):
    """The steps of the zoo's check in its mode `full`; properties, which need data, are in test_zoo_rules.py."""
    assert (bundle / "LICENSE").exists()
    assert (bundle / "models" / "model.pt").exists()
    meta = str(bundle / "configs" / "metadata.json")
    config = str(bundle / "configs" / "inference.yaml")
    content = json.loads(Path(meta).read_text())
    assert content["version"] in content["changelog"]
    verify_metadata(meta, str(ROOT / "tests" / "bundles" / "schema.json"))
    named = {"net_id": "network_def", "meta_file": meta, "config_file": config, "bundle_root": str(bundle)}
    verify_net_in_out(**named)
    exported = bundle / "models" / "verify_model.ts"
    ckpt_export(filepath=str(exported), ckpt_file=str(bundle / "models" / "model.pt"), **named)
    weights = torch.load(bundle / "models" / "model.pt", map_location="cpu", weights_only=True)
    written = torch.jit.load(exported).state_dict()
    shared = weights.keys() & written.keys()  # a classifier is left out, and constants are written along
    assert len(shared) >= len(written) - 2
    assert all(torch.equal(written[key], weights[key]) for key in shared)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_cloned_bundle_passes_the_check_of_the_zoo(name, clone):
    bundle = clone(name)
    assert (bundle / "models" / "model.pt").stat().st_size <= SMALL
    record = json.loads((bundle / "models" / "model.json").read_text())
    digest = hashlib.sha256((bundle / "models" / "model.pt").read_bytes()).hexdigest()
    assert record["weights"] == [{"file": "model.pt", "sha256": digest}]
    check_as_the_zoo(bundle)


@pytest.mark.network
def test_the_encoder_passes_the_check_of_the_zoo_with_its_large_file(clone, ct):
    bundle = clone("instance_encoder")
    (bundle / "models").mkdir()
    shutil.copy(ct / "mobilenet_v2.pth", bundle / "models" / "model.pt")  # as `download_large_files` fetches it
    download_large_files(str(bundle))  # is there already, and has the hash
    check_as_the_zoo(bundle)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_metrics_of_metadata_and_card_are_the_measured_ones(name):
    folder = ROOT / "bundles" / name
    rows = json.loads((ROOT / "docs" / "results" / f"demo_{name}.json").read_text())["rows"]
    metrics = json.loads((folder / "configs" / "metadata.json").read_text())["eval_metrics"]
    card = (folder / "docs" / "README.md").read_text()
    expected = {}
    for key in ("bag_auroc", "bag_accuracy"):
        values = [row["values"][key] for row in rows]
        expected[key] = round(values[0], 3)
        expected[f"{key}_mean_of_{len(rows)}_folds"] = round(mean(values), 3)
        expected[f"{key}_sd_of_{len(rows)}_folds"] = round(stdev(values), 3)
        assert f"{mean(values):.3f} ± {stdev(values):.3f}" in card
    assert metrics == expected
    assert f"{metrics['bag_auroc']:.3f}, {metrics['bag_accuracy']:.3f}" in card
