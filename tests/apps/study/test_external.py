"""Tests of the models of a study on another cohort."""

import json

import numpy as np
import pytest
import torch

from monai_mil_ext.apps.study import Clinical, FoldPlan, Predictions, Study, StudyOptions, TrainingSettings
from monai_mil_ext.apps.study.work import predict_bags
from monai_mil_ext.data import write_bag
from monai_mil_ext.metrics import threshold_at_youden
from monai_mil_ext.utils import SourceMismatchError
from tests.apps.study.cohort_bags import TASKS, make_items

TASK = TASKS["classification"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    items = make_items(folder)
    for i, item in enumerate(items):
        item["covariates"] = {"age": str(50 + 7 * (i % 5) + 3 * item["label"])}
    options, training = StudyOptions(num_samples=20), TrainingSettings(epochs=2, learning_rate=0.05)
    study = Study(items, folder / "study", TASK, "MeanMIL", FoldPlan(2), training, clinical=Clinical(), options=options)
    study.run()
    return study, items


def test_the_ensemble_of_the_folds_predicts_another_cohort(finished, tmp_path):
    study, items = finished
    list_of_table = study.folder / "external" / "other" / "cohort" / "left_out.csv"
    list_of_table.parent.mkdir(parents=True)
    list_of_table.write_text("case,reason\nz,no label\n")
    path = study.evaluate_external(items[:12], "other")
    assert path == study.folder / "external" / "other" / "report.html"
    rows = Predictions.read(path.parent / "predictions" / "MeanMIL.csv")
    runs = study.work.runs()
    members = [study.work.network(r, study.folder / "runs" / r.name, {"settings": {}}) for r in runs]
    expected = np.mean([predict_bags(net, items[:12], TASK).output for net in members], axis=0)
    assert rows.output == pytest.approx(expected, abs=1e-6)
    content = json.loads((path.parent / "report.json").read_text())
    assert content["external"] == "other"
    assert content["cohort"]["left_out"] == [{"case_id": "z", "reason": "no label"}]
    assert content["summaries"]["MeanMIL"]["num_cases"] == 12
    assert set(content["clinical"]["summaries"]["MeanMIL"]) == {"clinical", "both"}
    assert content["clinical"]["columns"] == ["age"]
    for name in ("clinical", "both"):
        written = Predictions.read(path.parent / "predictions" / f"MeanMIL {name}.csv")
        assert (written.case_id, set(written.part)) == (rows.case_id, {"test"})


def test_patients_and_bags_of_the_study_are_told(finished, tmp_path):
    study, items = finished
    fresh = [{**item, "patient": f"other {item['patient']}"} for item in make_items(tmp_path, seed=1)]
    shared = [
        *fresh[:10],
        {**fresh[10], "patient": items[0]["patient"]},
        {**items[1], "case_id": "seen", "patient": "new"},
    ]
    notes = json.loads((study.evaluate_external(shared, "shared").parent / "report.json").read_text())["notes"]
    assert "1 of 12 bags of this cohort are those of the study: it is not external." in notes
    assert any(note.startswith("1 of 12 patients of this cohort have the name of a patient") for note in notes)
    notes = json.loads((study.evaluate_external(fresh[:12], "fresh").parent / "report.json").read_text())["notes"]
    assert not any("of this cohort" in note for note in notes)


def test_the_threshold_is_that_of_the_study(finished):
    study, items = finished
    record = json.loads((study.folder / "models/MeanMIL/model.json").read_text())
    path = study.evaluate_external(items[12:], "second")
    (entry,) = json.loads((path.parent / "report.json").read_text())["summaries"]["MeanMIL"]["thresholds"]
    assert entry["threshold"] == pytest.approx(record["operating_points"][0]["threshold"])


def test_all_thresholds_are_chosen_on_the_cases_of_the_study(finished, tmp_path):
    study, items = finished
    folder = study.evaluate_external(items[:6], "few").parent  # too few cases to choose a threshold
    content = json.loads((folder / "report.json").read_text())
    for name, summary in content["clinical"]["summaries"]["MeanMIL"].items():
        rows = Predictions.read(study.folder / "predictions" / f"MeanMIL {name}.csv").of_part("test")
        expected = threshold_at_youden(rows.truth.astype(int).tolist(), rows.output[:, 1].tolist())
        assert [row["threshold"] for row in summary["thresholds"]] == [pytest.approx(expected)]
    assert not any(note.startswith("The threshold of") for note in content["notes"])


def test_cases_that_cannot_be_used_are_left_out(finished, tmp_path):
    study, items = finished
    write_bag(tmp_path / "doe.h5", {"features": torch.full((5, 4), torch.nan)})
    bad = {**items[3], "case_id": "bad", "image": str(tmp_path / "doe.h5")}
    folder = study.evaluate_external([*items[:12], bad], "bad").parent
    cohort = json.loads((folder / "report.json").read_text())["cohort"]
    assert cohort["num_cases"] == 12
    assert [row["case_id"] for row in cohort["left_out"]] == ["bad"]
    assert "features must be finite" in cohort["left_out"][0]["reason"]


def test_results_of_another_table_do_not_stay(finished, tmp_path):
    study, items = finished
    folder = study.evaluate_external(items[:12], "changed").parent
    (folder / "predictions" / "OldMIL.csv").touch()
    (folder / "cohort").mkdir()
    study.evaluate_external(items[:10], "changed")
    assert len(Predictions.read(folder / "predictions" / "MeanMIL.csv")) == 10
    assert not (folder / "predictions" / "OldMIL.csv").exists()
    write_bag(tmp_path / "wide.h5", {"features": torch.rand(5, 7)})
    with pytest.raises(SourceMismatchError, match="got 7 features"):
        study.evaluate_external([{**items[0], "image": str(tmp_path / "wide.h5")}], "changed")
    assert {path.name for path in folder.iterdir()} == {"cohort", "checked.json"}


def test_a_report_stays_until_the_models_of_the_study_change(tmp_path, capsys):
    items, options = make_items(tmp_path), StudyOptions(num_samples=2)

    def study(methods, epochs=1):
        return Study(
            items[:24], tmp_path / "study", TASK, methods, FoldPlan(2), TrainingSettings(epochs=epochs), options=options
        )

    study("MeanMIL").run()
    path = study("MeanMIL").evaluate_external(items[24:], "other")
    study("MeanMIL,MaxMIL").run()  # the model that was evaluated is as before
    assert path.exists()
    assert "have changed" not in capsys.readouterr().out
    study("MeanMIL", epochs=2).run()
    assert {file.name for file in path.parent.iterdir()} == {"checked.json"}
    assert "The models have changed, so the report of 'other' is removed" in capsys.readouterr().out


def test_bags_of_another_source_are_refused(finished, tmp_path):
    study, items = finished
    write_bag(tmp_path / "wide.h5", {"features": torch.rand(5, 7)})
    other = [{**items[0], "image": str(tmp_path / "wide.h5")}]
    with pytest.raises(SourceMismatchError, match="trained on 4 features, got 7 features"):
        study.evaluate_external(other, "wide")


def test_names_and_unfinished_studies(finished, tmp_path):
    study, items = finished
    with pytest.raises(ValueError, match="`name`"):
        study.evaluate_external(items, "../x")
    with pytest.raises(ValueError, match="`items` must not be empty"):
        study.evaluate_external([], "x")
    fresh = Study(items, tmp_path / "fresh", TASK, "MeanMIL", FoldPlan(2))
    with pytest.raises(FileNotFoundError, match="run the study first"):
        fresh.evaluate_external(items, "x")


class MeanOfInstances(torch.nn.Linear):
    """Network of a user, which no record describes."""

    def forward(self, x):
        """Return the logits of bags (B, N, F)."""
        return super().forward(x.mean(dim=1))


def test_a_network_of_another_package_predicts_another_cohort(tmp_path):
    items = make_items(tmp_path)
    network = {"_target_": f"{__name__}.MeanOfInstances", "in_features": 4, "out_features": 2, "name": "mine"}
    options, training = StudyOptions(num_samples=20), TrainingSettings(epochs=2, learning_rate=0.05)
    study = Study(items, tmp_path / "study", TASK, network, FoldPlan(2), training, options=options)
    study.run()
    path = study.evaluate_external(items[:8], "other")
    assert len(Predictions.read(path.parent / "predictions" / "mine.csv")) == 8
    again = Study(items, tmp_path / "study", TASK, network, FoldPlan(2), training, options=StudyOptions(refit=True))
    with pytest.raises(ValueError, match="`refit` must be False to evaluate mine"):
        again.evaluate_external(items[:8], "other")
