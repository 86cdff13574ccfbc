"""Tests of the config encode.yaml of instance_encoder on digits: from a cohort to feature files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest
import torch
from monai.bundle import ConfigWorkflow, verify_metadata
from monai.networks import nets

from monai_mil_ext.data import inspect_bag, read_bag
from tests.utils.dask_clusters import cluster

ROOT = Path(__file__).parents[3]
BUNDLE = ROOT / "bundles" / "instance_encoder"


@pytest.fixture
def cohort(digits, tmp_path):
    """A copy of the digits that a test may spoil."""
    others = shutil.ignore_patterns("features")  # which other tests make beside the scans
    return Path(shutil.copytree(digits, tmp_path / "data", ignore=others))


@pytest.fixture
def start(monkeypatch):
    """Make a workflow of the bundle's configs, initialized."""
    monkeypatch.chdir(BUNDLE)

    def make(cohort, *overlays, **override):
        files = [f"configs/{name}.yaml" for name in ("encode", *overlays)]
        paths = {"dataset_dir": str(cohort), "output_dir": str(cohort / "out")}
        workflow = ConfigWorkflow(files, workflow_type=None, logging_file=False, **{**paths, **override})
        workflow.initialize()
        return workflow

    return make


def report(workflow):
    workflow.run()
    return workflow.parser.get_parsed_content("report")


def test_instance_encoder_metadata_and_properties_are_valid(start, cohort):
    verify_metadata(str(BUNDLE / "configs" / "metadata.json"), str(ROOT / "tests" / "bundles" / "schema.json"))
    assert start(cohort, "digits").check_properties() == []


def test_instance_encoder_encode_writes_a_feature_file_per_scan(start, cohort, capsys):
    record = report(start(cohort, "digits"))
    assert [record[key] for key in ("scans", "done_before", "made", "failed", "instances")] == [4, 0, 4, 0, 160]
    file = cohort / "features" / record["folder"] / "digits_2.h5"
    bag = read_bag(file, ["features", "position", "instance_label", "affine", "encoder"])
    # rows of a slice run front to back and its columns right to left, as in digits
    volume = torch.from_numpy(nib.load(cohort / "digits_2.nii.gz").get_fdata()).float()
    torch.testing.assert_close(bag["features"], (volume / 16).permute(2, 1, 0).flatten(1))
    mask = nib.load(cohort / "digits_2_reference.nii.gz").get_fdata()
    assert bag["instance_label"].tolist() == mask[0, 0].tolist()
    assert bag["position"].tolist() == [5.0 * i for i in range(40)]
    assert (bag["encoder"], inspect_bag(file).in_features) == ("pixels", 64)
    assert "4 scans: 0 done before, 4 made, 0 failed; 160 instances in " in capsys.readouterr().out
    assert str(cohort).encode() not in file.read_bytes()
    assert report(start(cohort, "digits"))["done_before"] == 4


def test_instance_encoder_folder_depends_on_the_configuration_but_not_on_chunks(start, cohort):
    folders = {
        "first": report(start(cohort, "digits"))["folder"],
        "chunks": report(start(cohort, "digits", chunk_size=7))["folder"],
        "window": report(start(cohort, "digits", hu_window=[0, 20]))["folder"],
        "dtype": report(start(cohort, "digits", amp_dtype="$torch.bfloat16"))["folder"],
        "size": report(start(cohort, "digits", spatial_size=9, **{"encoder#input_spec#size": [9, 9]}))["folder"],
    }
    assert folders["chunks"] == folders["first"]
    assert len(set(folders.values())) == 4
    assert {path.name for path in (cohort / "features").iterdir()} == set(folders.values())


def test_instance_encoder_folder_depends_on_every_weight(start, cohort, tmp_path):
    options = {"spatial_dims": 2, "n_input_channels": 1, "num_classes": 2, "widen_factor": 0.1}
    torch.manual_seed(0)
    net = nets.resnet10(**options)
    folders = []
    for step in (0.0, 0.0, 1e-6):
        state = net.state_dict()
        state["layer4.0.conv1.weight"].view(-1)[5] += step
        torch.save(state, tmp_path / "weights.pt")
        override = {"checkpoint": str(tmp_path / "weights.pt"), "encoder_name": "resnet10", "encoder#options": options}
        record = report(start(cohort, "monai", hu_window=[0, 16], hounsfield=False, spatial_size=32, **override))
        folders.append((record["folder"], record["made"]))
    assert folders[1] == (folders[0][0], 0)
    assert folders[2][0] != folders[0][0]
    assert folders[2][1] == folders[0][1] == 4


def test_instance_encoder_hugging_face_encodes_gray_slices(start, cohort, tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    transformers.Dinov2Model(transformers.Dinov2Config(**sizes, mlp_ratio=1)).save_pretrained(tmp_path / "dino")
    processor = {"size": {"height": 28, "width": 28}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (tmp_path / "dino" / "preprocessor_config.json").write_text(json.dumps(processor))
    override = {
        "encoder_name": str(tmp_path / "dino"),
        "local_files_only": True,
        "hu_window": [0, 16],
        "hounsfield": False,
    }
    record = report(start(cohort, "hugging_face", spatial_size=28, **override))
    bag = read_bag(next((cohort / "features" / record["folder"]).glob("*.h5")), ["features", "encoder"])
    assert bag["features"].shape == (40, 16)
    assert bag["encoder"] == record["encoder"] == "dino"


def test_instance_encoder_encode_reports_a_corrupt_scan_and_fails(start, cohort, capsys):
    whole = (cohort / "digits_1.nii.gz").read_bytes()
    (cohort / "digits_1.nii.gz").write_bytes(whole[:500])
    workflow = start(cohort, "digits")
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        workflow.run()
    assert "got 1 that don't: ['digits_1']" in str(error.value.__cause__)
    record = json.loads((cohort / "out" / "features.json").read_text())
    assert (record["made"], record["failed"], list(record["reasons"].values())) == (3, 1, [["digits_1"]])
    assert str(cohort) not in (cohort / "out" / "features.json").read_text() + capsys.readouterr().out
    (cohort / "digits_1.nii.gz").write_bytes(whole)
    assert report(start(cohort, "digits"))["made"] == 1


@pytest.mark.slow(buys="processes share a cohort, and the exit status shows a corrupt scan")
def test_instance_encoder_encode_shares_a_cohort_among_processes(cohort):
    whole = (cohort / "digits_3.nii.gz").read_bytes()
    (cohort / "digits_3.nii.gz").write_bytes(whole[:500])
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    configs = "['configs/encode.yaml','configs/digits.yaml']"
    paths = ["--dataset_dir", str(cohort), "--output_dir", str(cohort / "out")]
    command = [*launch, "-m", "monai.bundle", "run", "--config_file", configs, *paths]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=BUNDLE, capture_output=True, text=True, check=False, env=environment)
    record = json.loads((cohort / "out" / "features.json").read_text())
    assert done.returncode != 0
    assert [record[key] for key in ("processes", "made", "failed")] == [2, 3, 1]
    assert done.stdout.count("4 scans: 0 done before, 3 made, 1 failed") == 1
    assert "Error: `cohort` must be scans that give features, got 1" in done.stderr
    (cohort / "digits_3.nii.gz").write_bytes(whole)
    done = subprocess.run(command, cwd=BUNDLE, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "4 scans: 3 done before, 1 made, 0 failed" in done.stdout


def test_instance_encoder_encode_on_dask_workers_writes_the_same_files(start, cohort):
    def files(**options):
        shutil.rmtree(cohort / "features", ignore_errors=True)
        folder = cohort / "features" / report(start(cohort, "digits", **options))["folder"]
        return {path.name: read_bag(path, ["features", "position"]) for path in folder.glob("*.h5")}

    with cluster({}) as address:
        made = files(scheduler=address)
    torch.testing.assert_close(made, files(), rtol=0, atol=0)
    assert len(made) == 4
