"""Tests of the record of a scan model: trained on small CT series, asked for other scans and with other options."""

import csv
import json
import os
import re
import shutil

import pytest
import torch

from monai_mil_ext.data import ModelRecord
from monai_mil_ext.utils.exceptions import root_cause
from tests.bundles.conftest import BUNDLE

from .ct_series import OPTIONS, SIDE, encoder


@pytest.fixture
def infer(start, trained, scans, tmp_path):
    """Infer a scan, and return its prediction."""

    def run(name="a", *overlays, folder=trained, **options):
        paths = {"ckpt_dir": str(folder), "output_dir": str(tmp_path / "out"), "input": str(scans / name)}
        start("inference", *overlays, **paths, case_id="c", **{**OPTIONS, "pictures": [], **options}).run()
        return json.loads((tmp_path / "out" / "c" / "prediction.json").read_text())

    return run


def test_training_records_what_the_model_was_trained_on(trained):
    record = ModelRecord.read(trained)
    source = record.sources[0]
    assert (record.name, record.class_names, record.task["activation"]) == ("scan_mil", ("benign", "tumor"), "softmax")
    assert record.network["class"] == "ABMIL"
    assert record.network["arguments"] == {"in_features": 16, "num_classes": 2, "hidden_size": 128, "dropout": 0.25}
    assert (source.encoder, source.width, source.plane, source.window) == ("Sequential", 16, "axial", (-1000.0, 400.0))
    assert (source.spatial_size, source.modality, source.spacing) == ((SIDE,), ("CT",), (2.5, 2.5))
    assert (source.lowest, source.highest) == ((-1024.0, -1024.0), (2 * 1647.0 - 1024.0,) * 2)
    assert (record.cohort["cases"], record.cohort["patients"], record.cohort["classes"]) == (4, 4, {"0": 2, "1": 2})
    assert not (trained / "network.json").exists()
    text = (trained / "model.json").read_text()
    assert [word for word in (str(trained), "Secretname", '"a"') if word in text] == []


def test_inference_takes_its_options_from_the_record_and_agrees(infer):
    result = infer()
    assert result["source_check"] == "agrees with the training"
    assert (result["model"]["name"], result["model"]["trained_on"]) == ("scan_mil", "model.json")
    assert result["class_names"] == ["benign", "tumor"]
    assert result["predicted_class"] == result["class_names"][result["prediction"]]


PERCENTILES = {
    "_target_": "ScaleIntensityRangePercentilesd",
    "keys": "image",
    "lower": 1,
    "upper": 99,
    "b_min": 0,
    "b_max": 1,
}
MISMATCHES = [
    ({"hu_window": [-160, 240], "allow_mismatch": "false"}, "^trained on window .*, got window -160 to 240$"),
    ({"hu_window": [-160, 240]}, r"trained on window -1000 to 400, got window -160 to 240$"),
    ({"plane": "coronal"}, r"trained on plane axial, got plane coronal$"),
    ({"spatial_size": 16, "encoder": encoder(0.01).replace("64,", "256,")}, r"slices of 8 px.*, got .*slices of 16 px"),
    ({"encoder": encoder(0.02)}, r"^trained on encoder with fingerprint (\w{12}), got encoder with fingerprint (?!\1)"),
    ({"encoder": {"_target_": "torch.nn.Flatten"}}, "^trained on encoder Sequential, got encoder Flatten$"),
    (
        {"preprocessing#transforms#2": PERCENTILES},
        r"^trained on window -1000 to 400, got normalization ScaleIntensityRangePercentiles\(lower=1, upper=99",
    ),
    ({"preprocessing#transforms#2#clip": False}, r"^trained on preprocessing \w{12}, got preprocessing \w{12}$"),
    ({"name": "mr"}, "^trained on modality CT, got modality MR$"),
    ({"name": "far.nii.gz"}, "^trained on slices 2.5 mm apart, got slices 10 mm apart$"),
    (
        {"name": "bytes.nii.gz"},
        "^trained on values from -1024 and values up to 2270, got values from 0 and values up to 255$",
    ),
]


@pytest.mark.parametrize(("options", "match"), MISMATCHES)
def test_inference_refuses_what_differs_from_the_training(infer, options, match):
    with pytest.raises(Exception, match=r".") as error:
        infer(**options)
    cause = root_cause(error.value)
    assert isinstance(cause, ValueError)
    assert re.search(match, str(cause)), str(cause)


@pytest.mark.parametrize("options", [{"hu_window": [-160, 240]}, {"name": "mr"}, {"name": "bytes.nii.gz"}])
def test_inference_marks_what_differs_on_request(infer, options, tmp_path):
    result = infer(**options, allow_mismatch=True, pictures=["html"])
    assert result["source_check"].startswith("mismatch: trained on ")
    for name in ("c.html", "c_scores.json"):
        assert "mismatch: trained on " in (tmp_path / "out" / "c" / name).read_text()


def test_inference_says_what_a_scan_does_not_state(infer):
    assert infer("nifti.nii.gz")["source_check"] == "not checked: modality"


def own_preprocessing(file):
    """An overlay that replaces the whole preprocessing by one without the comparison."""
    file.write_text(
        "preprocessing:\n  _target_: Compose\n  transforms:\n"
        "  - {_target_: monai_mil_ext.transforms.LoadScand, keys: image}\n"
        "  - {_target_: ScaleIntensityRangePercentilesd, keys: image, lower: 1, upper: 99, b_min: 0, b_max: 1}\n"
        "  - {_target_: monai_mil_ext.transforms.SliceBagd, keys: image, spatial_size: 8}\n"
        "  - {_target_: CopyItemsd, keys: image, times: 1, names: slices}\n"
        "  - {_target_: monai_mil_ext.transforms.EncodeInstancesd, keys: image, encoder: '@encoder'}\n"
    )
    return os.path.relpath(file.with_suffix(""), BUNDLE / "configs")


def test_inference_compares_a_preprocessing_that_replaces_the_whole(infer, tmp_path):
    overlay = own_preprocessing(tmp_path / "own.yaml")
    with pytest.raises(RuntimeError, match=r".") as error:
        infer("a", overlay)
    assert str(root_cause(error.value)).startswith("trained on window -1000 to 400, got normalization ScaleIntensity")
    result = infer("a", overlay, allow_mismatch=True)
    assert result["source_check"] == "not checked: no transform compared the input with that of the training"


def run_cohort(start, trained, scans, out, *overlays, **options):
    (out / "scans.csv").write_text("case_id,image\nok,a\nother,mr\nbytes,bytes.nii.gz\n")
    paths = {"ckpt_dir": str(trained), "output_dir": str(out), "cohort": str(out / "scans.csv"), "root": str(scans)}
    workflow = start("inference", *overlays, "cohort_inference", **paths, **OPTIONS, pictures=[], **options)
    with pytest.raises(RuntimeError, match="Failed to evaluate"):
        workflow.run()
    with open(out / "results.csv") as file:
        return {row["case_id"]: row["status"] for row in csv.DictReader(file)}


def test_cohort_inference_gives_refused_scans_a_row(start, trained, scans, tmp_path):
    status = run_cohort(start, trained, scans, tmp_path)
    assert (status["ok"], status["other"]) == ("done", "refused: trained on modality CT, got modality MR")
    assert status["bytes"].startswith("refused: trained on values from -1024 and")


def test_cohort_inference_refuses_another_option_for_every_scan(start, trained, scans, tmp_path):
    status = run_cohort(start, trained, scans, tmp_path, plane="coronal")
    assert set(status.values()) == {"refused: trained on plane axial, got plane coronal"}


def test_cohort_inference_compares_a_preprocessing_that_replaces_the_whole(start, trained, scans, tmp_path):
    status = run_cohort(start, trained, scans, tmp_path, own_preprocessing(tmp_path / "own.yaml"))
    assert all(text.startswith("refused: trained on window -1000 to 400, got normal") for text in status.values())


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the model whose files a test changes."""
    (tmp_path / "copy").mkdir()
    for name in ("model.pt", "model.json"):
        shutil.copy(trained / name, tmp_path / "copy")
    return tmp_path / "copy"


def test_weights_without_a_record_are_used_and_marked(infer, copy, tmp_path):
    (copy / "model.json").unlink()
    result = infer(folder=copy, in_features=16, spatial_size=SIDE, pictures=["html"])
    assert (result["model"]["trained_on"], result["model"]["name"]) == ("unknown", None)
    assert result["source_check"] == "not checked: it is not known what the model was trained on"
    assert "class_names" not in result
    assert "trained on: unknown" in (tmp_path / "out" / "c" / "c.html").read_text()


def test_replaced_weights_are_refused_or_marked(infer, copy):
    weights = torch.load(copy / "model.pt", weights_only=True)
    torch.save({name: value + 0.1 for name, value in weights.items()}, copy / "model.pt")
    with pytest.raises(RuntimeError, match=r".") as error:
        infer(folder=copy)
    assert "must have the weights that model.json describes, got others in 'model.pt'" in str(root_cause(error.value))
    result = infer(folder=copy, allow_mismatch=True)
    assert result["model"]["trained_on"] == "unknown"
    assert result["source_check"] == "not checked: it is not known what the model was trained on"


def test_inference_refuses_other_names_of_the_classes(infer):
    for allow_mismatch in (False, True):
        with pytest.raises(RuntimeError, match=r".") as error:
            infer(class_names=["tumor", "benign"], allow_mismatch=allow_mismatch)
        assert "`class_names` must be ['benign', 'tumor'], as in the training" in str(root_cause(error.value))


def test_inference_refuses_a_model_of_another_task(infer, copy):
    with pytest.raises(RuntimeError, match=r".") as error:
        infer(task="multilabel")
    assert "`ckpt_dir` must have a model for multilabel, got one for classification" in str(root_cause(error.value))
    values = json.loads((copy / "model.json").read_text())
    values["task"]["kind"] = "segmentation"
    (copy / "model.json").write_text(json.dumps(values))
    with pytest.raises(RuntimeError, match=r".") as error:
        infer(folder=copy)
    assert "'segmentation' is not one of ['classification'" in str(root_cause(error.value))


def test_inference_loads_weights_of_flare_and_ddp(infer, copy):
    weights = torch.load(copy / "model.pt", weights_only=True)
    expected = infer()["probability"]
    (copy / "model.json").unlink()
    for content in ({"model": weights, "train_conf": {}}, {f"module.{name}": w for name, w in weights.items()}):
        torch.save(content, copy / "model.pt")
        assert infer(folder=copy, in_features=16, spatial_size=SIDE)["probability"] == expected


def test_a_protocol_of_one_logit_needs_no_option_at_inference(infer, copy):
    from monai_mil_ext.apps.bundle import save_model
    from monai_mil_ext.networks.nets import ABMIL

    torch.manual_seed(0)
    record = ModelRecord.read(copy)
    save_model(copy, ABMIL(16, 1, gated=False), "plain", sources=record.sources, task={"class_names": ["no", "yes"]})
    result = infer(folder=copy)
    assert (len(result["probability"]), result["class_names"]) == (2, ["no", "yes"])
    assert result["source_check"] == "agrees with the training"
