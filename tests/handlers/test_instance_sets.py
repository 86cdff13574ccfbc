"""Tests of InstanceSetHandler in MONAI's evaluator."""

import json

import ignite.distributed as idist
import pytest
import torch
from ignite.engine import Engine

from monai_mil_ext.handlers import InstanceSetHandler
from monai_mil_ext.handlers.instance_sets import coverage_text
from monai_mil_ext.metrics import ConformalInstances
from tests.handlers.evaluation import bags, make_evaluator

MODEL = {"sha256": "ab" * 32}


def evaluate(folder, items, **options):
    handler = InstanceSetHandler(folder / "models", folder / "eval", **{"model": MODEL, **options})
    make_evaluator(items, handler).run()
    return handler


def read(path):
    return json.loads(path.read_text())


def run(handler, items):
    """Run an engine that gives items with attention."""

    def step(engine, batch):
        engine.state.batch = [{k: v for k, v in batch.items() if k != "attention"}]
        return [{"attention": batch["attention"]}]

    engine = Engine(step)
    handler.attach(engine)
    engine.run(items)


def item(i, rank, size=4, **more):
    attention, label = torch.arange(size, 0, -1.0), torch.eye(size).long()[rank - 1]
    return {"case_id": f"c{i}", "patient": f"p{i}", "attention": attention, "instance_label": label, **more}


def test_calibration_is_written_beside_the_model(tmp_path):
    handler = evaluate(tmp_path, bags(40), calibrate=True, source={"modality": "CT"}, alpha=0.2, target="all")
    written = read(tmp_path / "models/conformal.json")
    positive = [b for b in bags(40) if b["label"]]
    sizes = [len(b["image"]) for b in positive]
    assert written["num_bags"] == len({b["patient"] for b in positive}) == 20
    assert written["bag_sizes"] == [min(sizes), max(sizes)]
    assert (written["alpha"], written["target"], written["source"]) == (0.2, "all", {"modality": "CT"})
    assert (written["weights_sha256"], written["score_source"]) == (MODEL["sha256"], "mean")
    assert ConformalInstances.from_dict(written).to_dict() == handler.sets.to_dict()
    assert not (tmp_path / "eval/coverage.json").exists()
    assert "case" not in json.dumps(written)


def test_padding_heads_and_bags_without_lesions_are_left_out(tmp_path):
    mask = torch.tensor([True] * 4 + [False] * 2)
    padded = [item(i, 2, mask=mask) for i in range(9)]
    for bag in padded:
        bag["attention"] = torch.cat([bag["attention"], torch.full((2,), 99.0)])[:, None].expand(-1, 2)
        bag["instance_label"] = torch.cat([bag["instance_label"], torch.ones(2).long()])
    none = item(9, 1) | {"instance_label": torch.zeros(4)}
    unlabeled = {k: v for k, v in item(10, 1).items() if k != "instance_label"}
    handler = InstanceSetHandler(tmp_path, tmp_path, calibrate=True)
    run(handler, [*padded, none, unlabeled])
    assert (handler.sets.num_bags, handler.sets.threshold) == (9, 2)


def test_a_later_evaluation_reports_whether_the_guarantee_holds(tmp_path, caplog):
    calibration = InstanceSetHandler(tmp_path, tmp_path, calibrate=True)
    run(calibration, [item(i, 1) for i in range(40)])
    run(InstanceSetHandler(tmp_path, tmp_path / "same"), [item(i, 1) for i in range(20)])
    run(InstanceSetHandler(tmp_path, tmp_path / "other"), [item(i, 3) for i in range(20)])
    same, other = (read(tmp_path / name / "coverage.json") for name in ("same", "other"))
    assert (same["coverage"], same["holds"], same["shifted"]) == (1, True, False)
    assert (other["coverage"], other["holds"], other["shifted"]) == (0, False, True)
    assert (other["num_calibration_bags"], other["use"]) == (40, "research use only")


def test_the_bags_of_two_ranks_count_once(tmp_path, monkeypatch):
    monkeypatch.setattr(idist, "get_world_size", lambda: 2)
    monkeypatch.setattr(idist, "all_gather", lambda rows: [rows, rows[:1]])
    handler = InstanceSetHandler(tmp_path, tmp_path, calibrate=True)
    run(handler, [item(i, 1) for i in range(9)])
    assert handler.sets.num_bags == 9


def test_bags_without_names_are_patients_of_their_own(tmp_path):
    handler = InstanceSetHandler(tmp_path, tmp_path, calibrate=True)
    run(handler, [{k: v for k, v in item(i, 1).items() if k not in ("case_id", "patient")} for i in range(9)])
    assert handler.sets.num_bags == 9


def test_nothing_is_written_without_a_calibration_or_labels(tmp_path):
    run(InstanceSetHandler(tmp_path, tmp_path), [item(0, 1)])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="`calibrate` must be False without bags"):
        run(InstanceSetHandler(tmp_path, tmp_path, calibrate=True), [item(0, 1) | {"instance_label": torch.zeros(4)}])


def test_the_calibration_of_other_weights_is_refused(tmp_path):
    run(InstanceSetHandler(tmp_path, tmp_path, calibrate=True, model=MODEL), [item(i, 1) for i in range(9)])
    with pytest.raises(ValueError, match=r"`folder` must have a conformal\.json of these weights"):
        run(InstanceSetHandler(tmp_path, tmp_path, model={"sha256": "cd"}), [item(0, 1)])


@pytest.mark.parametrize("part", ["train", "val"])
def test_bags_that_the_weights_have_seen_do_not_calibrate(tmp_path, part):
    split = {"fold": 0, "train": [], "val": [], "test": [f"c{i}" for i in range(2, 9)], part: ["c0", "c1", "other"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    with pytest.raises(ValueError, match=r"or selected its epoch, got 2 of 9 by split\.json"):
        run(InstanceSetHandler(tmp_path, tmp_path, calibrate=True), [item(i, 1) for i in range(9)])
    assert not (tmp_path / "conformal.json").exists()
    run(InstanceSetHandler(tmp_path, tmp_path, calibrate=True), [item(i, 1) for i in range(2, 9)])
    assert read(tmp_path / "conformal.json")["split"] == "test"


def test_a_calibration_of_unknown_bags_says_so(tmp_path, caplog):
    run(InstanceSetHandler(tmp_path, tmp_path, calibrate=True), [item(i, 1) for i in range(9)])
    assert read(tmp_path / "conformal.json")["split"] == "not checked"
    assert "holds only if no patient of this calibration trained the network" in caplog.text


def test_the_sentence_of_an_evaluation():
    found = {"covered": 19, "num_bags": 20, "nominal": 0.9, "holds": True, "shifted": False}
    assert coverage_text(found) == "instance sets are right in 19 of 20: the guarantee of 90 % is not contradicted"
