"""Tests of other runs that use the record of a scan model: evaluation, more training, the command line."""

import csv
import json
import subprocess
import sys

import pytest

from monai_mil_ext.data import ModelRecord
from monai_mil_ext.utils.exceptions import root_cause
from tests.bundles.conftest import BUNDLE

from .ct_series import SIDE, encoder, train


@pytest.fixture
def evaluate(start, trained, scans, tmp_path):
    """Evaluate the model on the scans, and return the report and the rows."""

    def run(**options):
        items = [{"case_id": c, "patient": c, "image": str(scans / c), "label": i % 2} for i, c in enumerate("abcd")]
        paths = {"dataset_dir": str(tmp_path), "ckpt_dir": str(trained), "output_dir": str(tmp_path), "num_samples": 10}
        sizes = {"in_features": 16, "spatial_size": SIDE, "encoder": encoder(0.01)}
        given = {"scans": items, "held_out": items, **paths, **sizes, **options}
        start("train", "scan_labels", "evaluate", **given).run()
        with (tmp_path / "bags.csv").open() as file:
            return json.loads((tmp_path / "report.json").read_text()), list(csv.DictReader(file))

    return run


def test_evaluation_agrees_with_the_training(evaluate):
    report, rows = evaluate()
    assert (report["model"]["name"], report["model"]["source_check"]) == ("scan_mil", "agrees with the training")
    assert [row["source_check"] for row in rows] == ["agrees with the training"] * 4
    assert {row["model"] for row in rows} == {"scan_mil"}
    assert report["class_names"] == ["benign", "tumor"]
    assert [row["predicted_class"] for row in rows] == [report["class_names"][int(row["prediction"])] for row in rows]


def test_evaluation_refuses_features_of_another_window_or_encoder(evaluate):
    for options, reason in (
        ({"hu_window": [-160, 240]}, "'a' is refused: trained on window -1000 to 400, got window -160 to 240"),
        ({"encoder": encoder(0.02)}, "'a' is refused: trained on encoder with fingerprint "),
    ):
        with pytest.raises(RuntimeError, match=r".") as error:
            evaluate(**options)
        assert str(root_cause(error.value)).startswith(reason)
    report, rows = evaluate(hu_window=[-160, 240], allow_mismatch=True)
    assert report["model"]["source_check"] == "mismatch: trained on window -1000 to 400, got window -160 to 240"
    assert {row["source_check"] for row in rows} == {report["model"]["source_check"]}


NETWORK = {"_target_": "monai_mil_ext.networks.nets.ASMIL", "in_features": 16, "num_classes": 2, "hidden_size": 16}


def test_training_is_not_resumed_with_another_network_of_equal_weights(scans, tmp_path):
    train(scans, tmp_path, network_def={**NETWORK, "num_heads": 2})
    (tmp_path / "model.json").unlink()  # a killed run has not written it yet
    with pytest.raises(RuntimeError, match=r".") as error:
        train(scans, tmp_path, network_def={**NETWORK, "num_heads": 4}, epochs=2)
    assert "must be the network that was trained, whose" in str(root_cause(error.value))
    assert "num_heads is 2, got 4" in str(root_cause(error.value))


def test_training_is_not_resumed_with_another_window(scans, tmp_path):
    train(scans, tmp_path)
    with pytest.raises(RuntimeError, match=r".") as error:
        train(scans, tmp_path, hu_window=[-160, 240], epochs=2)
    assert str(root_cause(error.value)).endswith("trained on window -1000 to 400, got window -160 to 240")


def test_training_does_not_start_from_weights_of_another_encoder(scans, trained, tmp_path):
    start_from = str(trained / "model.pt")
    with pytest.raises(RuntimeError, match=r".") as error:
        train(scans, tmp_path, encoder=encoder(0.02), start_from=start_from)
    assert "trained on encoder with fingerprint" in str(root_cause(error.value))
    train(scans, tmp_path, start_from=start_from, epochs=1)
    assert ModelRecord.read(tmp_path).sources == ModelRecord.read(trained).sources


@pytest.mark.slow(buys="the command line ends with the difference, for one scan and for a cohort")
def test_the_command_line_ends_with_the_difference(trained, scans, tmp_path):
    def run(*options):
        paths = [
            "--ckpt_dir",
            str(trained),
            "--output_dir",
            str(tmp_path),
            "--encoder",
            encoder(0.01),
            "--case_id",
            "c1",
        ]
        command = [sys.executable, "-m", "monai.bundle", "run", *options, *paths, "--pictures", "[]"]
        return subprocess.run(command, cwd=BUNDLE, capture_output=True, text=True, check=False)

    one = ["--config_file", "configs/inference.yaml", "--input", str(scans / "a")]
    refused = run(*one, "--hu_window", "[-160,240]", "--allow_mismatch", "false")
    assert refused.returncode != 0
    sentence = "trained on window -1000 to 400, got window -160 to 240"
    assert refused.stderr.splitlines()[-2].endswith(f"{sentence}. Consider `--allow_mismatch true`.")
    assert str(scans) not in refused.stderr.splitlines()[-2]
    marked = run(*one, "--hu_window", "[-160,240]", "--allow_mismatch", "true")
    assert marked.returncode == 0
    assert json.loads((tmp_path / "c1" / "prediction.json").read_text())["source_check"] == f"mismatch: {sentence}"
