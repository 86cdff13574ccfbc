"""Tests of scan_mil on digits: training, evaluation, inference and resuming in seconds."""

import csv
import json
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch

from tests.bundles.conftest import BUNDLE
from tests.workflows import causes, configs_of, open_workflow, paths


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """Ten epochs on three of four stacks of digits."""
    out = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(BUNDLE)
        workflow = open_workflow(*configs_of("train", "digits"), kind=None, **paths(digits, out), epochs=10)
        workflow.run()
        workflow.finalize()
    return out


def test_scan_mil_learns_and_localizes(start, digits, trained):
    start("train", "digits", "evaluate", **paths(digits, trained)).run()
    report = json.loads((trained / "report.json").read_text())
    assert report["use"] == "research use only"
    assert list(report["patients"]) == ["digits_0"]
    assert report["values"]["bag_auroc"] >= 0.9
    assert report["values"]["instance_auroc"] >= max(0.8, report["values"]["center_auroc"] + 0.2)
    bags = list(csv.DictReader((trained / "bags.csv").open()))
    assert len(bags) == report["num_bags"] == 80
    slices = [s for s in csv.DictReader((trained / "instances.csv").open()) if s["case_id"] == bags[0]["case_id"]]
    assert len(slices) == int(bags[0]["num_instances"])
    assert sum(float(s["attention"]) for s in slices) == pytest.approx(1, abs=1e-5)


def test_scan_mil_calibrates_sets_of_slices_that_inference_states(start, digits, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "models")
    out = {**paths(digits, trained), "ckpt_dir": str(tmp_path / "models"), "output_dir": str(tmp_path)}
    start("train", "digits", "evaluate", **out, calibrate=True, set_alpha=0.5, num_samples=5).run()
    written = json.loads((tmp_path / "models/conformal.json").read_text())
    assert (written["num_bags"], written["alpha"]) == (1, 0.5)  # sub-volumes of one patient
    assert written["source"]["plane"] == "axial"
    start("train", "digits", "evaluate", **out).run()
    coverage = json.loads((tmp_path / "coverage.json").read_text())
    assert (coverage["num_bags"], coverage["coverage"], coverage["holds"]) == (1, 1, True)
    start("inference", "digits", **out, input=str(digits / "digits_0.nii.gz"), case_id="c1", pictures=[]).run()
    entry = json.loads((tmp_path / "c1/prediction.json").read_text())["instance_set"]
    low, high = written["bag_sizes"]
    assert entry["missing"] == f"the scan has 40 slices, those of the calibration {low} to {high}"


def test_scan_mil_train_logs_both_terms(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(trained))
    log.Reload()
    assert {"train_loss", "attention_prior", "bag_auroc"} <= set(log.Tags()["scalars"])
    tags = log.Tags()["images"]
    assert {tag.split("_slices")[0] for tag in tags} == {"attention/digits_0"}
    assert [image.step for tag in tags for image in log.Images(tag)] == [10, 10]
    assert log.Tensors("use/text_summary")[0].tensor_proto.string_val == [b"research use only"]


def test_scan_mil_inference_writes_scores_in_the_voxels_of_the_scan(start, digits, trained, tmp_path):
    out = {**paths(digits, trained), "output_dir": str(tmp_path)}
    scan, reference = digits / "digits_0.nii.gz", digits / "digits_0_reference.nii.gz"
    start("inference", "digits", **out, input=str(scan), reference=str(reference), case_id="c1").run()
    folder = tmp_path / "c1"
    result = json.loads((folder / "prediction.json").read_text())
    attention = np.array([s["attention"] for s in result["slices"]])
    assert attention.sum() == pytest.approx(1, abs=1e-5)
    assert [s["position_mm"] for s in result["slices"]] == [5.0 * i for i in range(40)]
    assert result["top_slices"] == np.argsort(-attention, kind="stable")[:4].tolist()
    written, source = nib.load(folder / "c1_scores.nii.gz"), nib.load(scan)
    assert (written.affine == source.affine).all()
    assert written.shape == source.shape
    np.testing.assert_allclose(written.get_fdata()[3, 3], attention, atol=1e-6)
    assert b"research use only" in written.header["descrip"].item()
    assert (folder / "c1.png").stat().st_size > 10_000
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert folder / "viewer" / "index.html" in files
    assert not any(str(digits) in path.read_text(errors="ignore") for path in files)


def test_scan_mil_inference_draws_in_the_plane_of_its_slices(start, digits, trained, tmp_path):
    out = {**paths(digits, trained), "output_dir": str(tmp_path), "input": str(digits / "digits_0.nii.gz")}
    key = "preprocessing#transforms#4"  # the only one that is changed
    changed = {f"{key}#plane": "coronal", f"{key}#spatial_size": 8, "allow_mismatch": True, "case_id": "c1"}
    start("inference", "digits", **out, pictures=[], **changed).run()
    result = json.loads((tmp_path / "c1/prediction.json").read_text())
    assert result["source_check"].startswith("mismatch: trained on plane axial")
    written = nib.load(tmp_path / "c1/c1_scores.nii.gz").get_fdata()
    assert result["plane"] == "coronal"
    assert len(result["slices"]) == written.shape[1]
    assert (written == written[:1, :, :1]).all()


def test_scan_mil_inference_refuses_dicom_of_a_file_before_it_encodes(start, digits, trained, tmp_path):
    out = {**paths(digits, trained), "output_dir": str(tmp_path), "input": str(digits / "digits_0.nii.gz")}
    workflow = start("inference", "digits", **out, dicom=["seg"])
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        workflow.run()
    assert "`dicom` must be empty for scans that are no DICOM folders" in str(causes(error.value))
    assert workflow.parser.get_parsed_content("evaluator").state.iteration == 0
    assert not list(tmp_path.iterdir())


def test_scan_mil_kfold_leaves_out_one_patient_after_the_other(start, digits, tmp_path):
    for fold in (1, 3):
        where = {"ckpt_dir": str(tmp_path / f"m{fold}"), "output_dir": str(tmp_path / "e" / f"fold_{fold}")}
        where |= {"dataset_dir": str(digits), "folds_dir": str(tmp_path / "e")}
        where |= {"num_samples": 10}
        start("train", "digits", "kfold", **where, fold=fold, epochs=1).run()
        with (tmp_path / "e" / f"fold_{fold}" / "bags.csv").open() as file:
            assert {row["patient"] for row in csv.DictReader(file)} == {f"digits_{fold}"}
    table = json.loads((tmp_path / "e" / "folds.json").read_text())
    assert set(table["folds"]) == {"1", "3"}


@pytest.mark.parametrize(
    ("protocol", "override"), [("published", {"gated": False, "hidden_size": "$None"}), ("modern", {})]
)
def test_scan_mil_inference_with_a_network_of_one_output(start, digits, tmp_path, protocol, override):
    where = paths(digits, tmp_path)
    net = start("train", "digits", "protocol", protocol, **where).parser.get_parsed_content("network_def")
    torch.save(net.state_dict(), tmp_path / "model.pt")
    same = {f"unrecorded_network#{key}": value for key, value in {"num_classes": 1, **override}.items()}
    workflow = start("inference", "digits", **where, **same, input=str(digits / "digits_1.nii.gz"), case_id="c1")
    workflow.run()
    with torch.no_grad():
        scan = workflow.parser.get_parsed_content("dataset")[0]["image"]
        positive = net.eval()(scan[None]).sigmoid().item()
    result = json.loads((tmp_path / "c1" / "prediction.json").read_text())
    assert result["probability"] == pytest.approx([1 - positive, positive], abs=1e-6)
    assert result["prediction"] == (positive > 0.5)


def test_scan_mil_refuses_a_checkpoint_of_another_network(start, digits, tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "model.pt")
    workflow = start("train", "digits", "evaluate", **paths(digits, tmp_path))
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        workflow.run()
    assert "must have the weights of this ABMIL, got others: Missing key(s) in state_dict" in causes(error.value)


def test_scan_mil_names_an_unknown_patient(start, digits, tmp_path):
    workflow = start("train", "digits", **paths(digits, tmp_path), test_patient="digits_9")
    with pytest.raises(RuntimeError, match="Failed to instantiate") as error:
        workflow.run()
    assert "`test_patient` must be one of 'digits_0', 'digits_1', 'digits_2', 'digits_3', got 'digits_9'" in causes(
        error.value
    )


@pytest.mark.parametrize(
    "num_workers", [0, pytest.param(2, marks=pytest.mark.slow(buys="exact resume with worker processes"))]
)
def test_scan_mil_train_resumes_a_killed_run_exactly(start, digits, tmp_path, num_workers):
    from ignite.engine import Events

    def run(name, kill_at=None):
        settings = {**paths(digits, tmp_path / name), "epochs": 4, "val_interval": 2, "num_workers": num_workers}
        workflow = start("train", "digits", **settings)
        trainer = workflow.parser.get_parsed_content("train#trainer")
        steps = []
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: steps.append(engine.state.iteration))
        if kill_at:

            @trainer.on(Events.ITERATION_COMPLETED(once=kill_at))
            def kill():
                raise KeyboardInterrupt

        workflow.run()
        return torch.load(tmp_path / name / "model.pt", weights_only=True), steps

    whole, _ = run("whole")
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        run("killed", kill_at=40)  # of 15 iterations an epoch: in the third
    resumed, steps = run("killed")
    assert steps == list(range(31, 61))  # from the end of the second epoch
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def test_scan_mil_names_a_label_outside_the_classes(start, digits, tmp_path):
    workflow = start("train", "digits", **paths(digits, tmp_path))
    for bag in workflow.parser.get_parsed_content("bags"):
        bag["label"] = 7
    with pytest.raises(RuntimeError, match="Failed to instantiate") as error:
        workflow.run()
    assert "`label` must be a class number from 0 to 1, got 7." in causes(error.value)


def test_scan_mil_accepts_a_scan_of_one_slice(start, digits, trained, tmp_path):
    volume = nib.load(digits / "digits_0.nii.gz")
    nib.save(volume.slicer[:, :, :1], tmp_path / "one.nii.gz")
    out = {**paths(digits, trained), "output_dir": str(tmp_path)}
    start("inference", "digits", **out, input=str(tmp_path / "one.nii.gz"), case_id="one").run()
    assert json.loads((tmp_path / "one" / "prediction.json").read_text())["slices"][0]["attention"] == 1.0


@pytest.mark.slow(buys="the command line refuses a misspelled key before it trains")
def test_scan_mil_refuses_a_misspelled_key_on_the_command_line(digits):
    run = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/train.yaml", "--epoch", "1"]
    done = subprocess.run(run, cwd=BUNDLE, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("Error: `epoch` must be one of 'imports'")
    assert error.endswith("got 'epoch'; did you mean 'epochs'?")
    assert "Traceback" not in done.stderr
    assert hint == "(MONAI_MIL_DEBUG=1 shows the traceback.)"
