"""Tests of ResultsSaver, the base class of savers of one folder per case."""

import json

import pytest
import torch

from monai_mil_ext.data.scans import dicom_writer
from monai_mil_ext.handlers import ScanResultsSaver, SlideResultsSaver
from monai_mil_ext.handlers.savers import results_saver
from monai_mil_ext.handlers.savers.results_saver import ResultsSaver
from monai_mil_ext.utils import optional_dependency
from tests.handlers.savers.items import run, scan, slide


class TextSaver(ResultsSaver):
    """Saver of one file of text."""

    endings = (".txt",)
    choices = ("png",)

    def _write(self, folder, item):
        assert not (folder / "prediction.json").exists()
        folder.mkdir(parents=True, exist_ok=True)
        if "text" in item:
            (folder / f"{item['case_id']}.txt").write_text(item["text"])
        return {"kind": "text"}


def item(case_id="c1", **extra):
    return {"case_id": case_id, "pred": torch.tensor([0.25, 0.75]), "attention": None, **extra}


def test_results_saver_writes_a_folder_for_every_item(tmp_path):
    saver = TextSaver(tmp_path, pictures=["png"], settings="abc")
    run(saver, [item("c1", text="one"), item("c2", text="two")])
    assert (tmp_path / "c2" / "c2.txt").read_text() == "two"
    assert json.loads(saver.prediction_file("c1").read_text()) == {
        "case_id": "c1",
        "use": "research use only",
        "settings": "abc",
        "task": "classification",
        "probability": [0.25, 0.75],
        "prediction": 1,
        "kind": "text",
    }


MODEL = {"name": "tumor", "version": "2", "sha256": "0123456789abcdef", "trained_on": "model.json"}


def test_results_saver_writes_the_model_and_the_check_of_the_source(tmp_path):
    saver = TextSaver(tmp_path, pictures=[], model=MODEL)
    saver.save(item(source_check="agrees with the training"))
    written = json.loads(saver.prediction_file("c1").read_text())
    assert (written["model"], written["source_check"]) == (MODEL, "agrees with the training")


@pytest.mark.parametrize(
    ("model", "check", "note"),
    [
        (None, "agrees with the training", ""),
        (MODEL, "agrees with the training", "tumor 2, weights 0123456789ab; agrees with the training"),
        (MODEL, "mismatch: trained on 5x, got 20x", "tumor 2, weights 0123456789ab; mismatch: trained on 5x, got 20x"),
        ({**MODEL, "name": None, "trained_on": "unknown"}, None, "weights 0123456789ab; trained on: unknown"),
        (
            {**MODEL, "sha256": ["0" * 64, "1" * 64]},
            "not checked: encoder",
            "tumor 2, weights 000000000000 111111111111; not checked: encoder",
        ),
        ({"trained_on": "unknown", "sha256": None}, None, "model; trained on: unknown"),
    ],
)
def test_results_saver_describes_the_model_in_a_line(tmp_path, model, check, note):
    given = {} if check is None else {"source_check": check}
    assert TextSaver(tmp_path, pictures=[], model=model).note(item(**given)) == note


def test_results_saver_says_that_nothing_was_compared(tmp_path):
    saver = TextSaver(tmp_path, pictures=[], model=MODEL)
    saver.save(item())
    check = json.loads(saver.prediction_file("c1").read_text())["source_check"]
    assert check == "not checked: no transform compared the input with that of the training"


def test_results_saver_removes_files_of_an_earlier_run(tmp_path):
    saver = TextSaver(tmp_path, pictures=[])
    saver.save(item(text="one"))
    (tmp_path / "c1" / "notes.md").write_text("kept")
    saver.save(item())
    assert {path.name for path in (tmp_path / "c1").iterdir()} == {"notes.md", "prediction.json"}
    assert "settings" not in json.loads(saver.prediction_file("c1").read_text())


def test_results_saver_leaves_no_prediction_if_writing_fails(tmp_path):
    saver = TextSaver(tmp_path, pictures=[])
    saver.save(item(text="one"))
    with pytest.raises(TypeError, match="data must be str"):
        saver.save(item(text=1))
    assert not saver.prediction_file("c1").exists()


def test_results_saver_rejects_case_id_outside_of_the_folder(tmp_path):
    with pytest.raises(ValueError, match="`case_id` must be letters, digits"):
        TextSaver(tmp_path / "out", pictures=[]).save(item("../c1"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("saver", [ScanResultsSaver, SlideResultsSaver])
def test_results_saver_rejects_unknown_picture(saver, tmp_path):
    with pytest.raises(ValueError, match=r"`pictures` must be one of .*, got 'movie'"):
        saver(tmp_path, pictures=["movie"])


@pytest.mark.parametrize("pred", [[1.8387], [0.9, 0.8], [0.5, float("nan")], [-0.2, 1.2]])
def test_results_saver_refuses_what_is_no_probability_and_leaves_no_prediction(tmp_path, pred):
    saver = TextSaver(tmp_path, pictures=[])
    saver.save(item(text="one"))
    with pytest.raises(ValueError, match="`pred` must be probabilities "):
        saver.save({**item(text="two"), "pred": torch.tensor(pred)})
    assert list((tmp_path / "c1").iterdir()) == []


@pytest.mark.parametrize(
    ("task", "pred", "probability", "prediction"),
    [
        ("classification", [0.75], [0.25, 0.75], 1),
        ("classification", [0.25], [0.75, 0.25], 0),
        ("multilabel", [0.75, 1.0, 0.25], [0.75, 1.0, 0.25], [1, 1, 0]),
        ("ordinal", [0.25, 0.5, 0.25], [0.25, 0.5, 0.25], 1),
    ],
)
def test_results_saver_writes_the_prediction_of_every_task(tmp_path, task, pred, probability, prediction):
    saver = TextSaver(tmp_path, pictures=[], task=task)
    saver.save({**item(), "pred": torch.tensor(pred)})
    result = json.loads(saver.prediction_file("c1").read_text())
    assert (result["probability"], result["prediction"]) == (probability, prediction)


@pytest.mark.parametrize(
    ("task", "pred", "name", "output"),
    [
        ("survival", [0.75, 0.5], "survival", [0.75, 0.5]),
        ("regression", [61.5], "value", 61.5),
        ("cox", [-0.25], "risk", -0.25),
    ],
)
def test_results_saver_writes_no_probability_for_tasks_without_classes(tmp_path, task, pred, name, output):
    model = {**MODEL, "bin_edges": [6.0, 12.0]}
    saver = TextSaver(tmp_path, pictures=[], task=task, model=model)
    saver.save({**item(), "pred": torch.tensor(pred)})
    result = json.loads(saver.prediction_file("c1").read_text())
    assert (result["task"], result[name]) == (task, output)
    assert not {"probability", "prediction"} & result.keys()
    assert result.get("bin_edges") == ([6.0, 12.0] if task == "survival" else None)


def test_results_saver_predicts_the_class_at_the_operating_point(tmp_path):
    point = {"name": "screening", "class_name": "b", "threshold": 0.2}
    saver = TextSaver(tmp_path, pictures=[], class_names=["a", "b"], model={**MODEL, "operating_points": [point]})
    record = saver.save({**item(), "pred": torch.tensor([0.75, 0.25])})
    assert (record["prediction"], record["predicted_class"]) == (1, "b")
    assert record["operating_points"] == [point | {"is_positive": True}]
    assert (
        saver.prediction({"pred": torch.tensor([0.75, 0.25])}) == "probability of b 0.25 (threshold 0.2, screening: b)"
    )


@pytest.mark.parametrize(
    ("task", "pred", "named"),
    [
        ("classification", [0.25, 0.75], {"predicted_class": "b"}),
        ("multilabel", [0.75, 1.0, 0.25], {"predicted_class": "a; b"}),
        ("survival", [0.75, 0.5], {}),
    ],
)
def test_results_saver_names_the_predicted_classes_of_every_task(tmp_path, task, pred, named):
    names = ["a", "b", "c"][: len(pred)]
    record = TextSaver(tmp_path, pictures=[], class_names=names, task=task).save({**item(), "pred": torch.tensor(pred)})
    assert {key: record[key] for key in ("class_names", "predicted_class") if key in record} == {
        "class_names": names,
        **named,
    }


@pytest.mark.parametrize("saver", [ScanResultsSaver, SlideResultsSaver])
def test_savers_of_results_refuse_logits(tmp_path, saver):
    make = scan if saver is ScanResultsSaver else slide
    with pytest.raises(ValueError, match=r"`pred` must be probabilities in \[0, 1\], got -1"):
        saver(tmp_path).save(make(pred=torch.tensor([-1.0, 2.0])))
    with pytest.raises(ValueError, match=r"`task` must be one of 'classification', .*, got 'binary'"):
        saver(tmp_path, task="binary")


def test_results_saver_writes_what_else_is_known_of_a_case(tmp_path):
    saver = TextSaver(tmp_path, pictures=[])
    saver.save(item(), {"input": "abc"})
    assert json.loads(saver.prediction_file("c1").read_text())["input"] == "abc"
    saver.save(item())
    assert "input" not in json.loads(saver.prediction_file("c1").read_text())


def test_results_saver_discards_the_files_of_one_case_only(tmp_path):
    saver = TextSaver(tmp_path, pictures=[])
    for case in ("c1", "c2"):
        saver.save(item(case, text="one"))
    saver.discard("c1")
    saver.discard("c3")
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["c2.txt", "prediction.json"]


def test_results_saver_options_are_all_but_folder_and_settings(tmp_path):
    saver = SlideResultsSaver(tmp_path, ["a", "b"], pictures=["tiles"], settings="x")
    options = {"pictures": ("tiles",), "model": None, "class_names": ("a", "b"), "task": "classification"}
    assert saver.options() == options
    with pytest.raises(ValueError, match="`class_names` must be one for each of 3 classes"):
        saver.check({"pred": torch.zeros(3)})
    saver.check({"pred": torch.zeros(2)})


@pytest.mark.parametrize("options", [{"pictures": ["png"]}, {"pictures": [], "dicom": ["seg"]}])
def test_a_missing_package_is_said_before_the_first_case(tmp_path, monkeypatch, options):
    for module, name in ((results_saver, "matplotlib"),):
        monkeypatch.setattr(module, name, optional_dependency("figures", f"no_{name}"))
    absent = optional_dependency("dicom", "no_highdicom")
    monkeypatch.setattr(dicom_writer, "optional_dependency", lambda extra, name: absent)
    with pytest.raises(ImportError, match=r"pip install monai-mil-ext\[(figures|dicom)\]"):
        ScanResultsSaver(str(tmp_path), **options)
    ScanResultsSaver(str(tmp_path), pictures=[])
