"""Tests of ResultsSaver, the base class of savers of one folder per case."""

import json

import pytest
import torch

from monai_mil_ext.handlers import ScanResultsSaver, SlideResultsSaver
from monai_mil_ext.handlers.savers.results_saver import ResultsSaver
from tests.handlers.savers.items import run


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
        "probability": [0.25, 0.75],
        "prediction": 1,
        "kind": "text",
    }


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
    assert saver.options() == {"pictures": ("tiles",), "class_names": ("a", "b")}
    with pytest.raises(ValueError, match="`class_names` must be one for each of 3 classes"):
        saver.check({"pred": torch.zeros(3)})
    saver.check({"pred": torch.zeros(2)})
