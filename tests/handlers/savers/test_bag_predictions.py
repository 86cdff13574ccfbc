"""Tests of BagPredictionsSaver: every bag has a row, and a damaged file does not stop the others."""

import csv

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from monai.handlers import ROCAUC
from monai.inferers import SimpleInferer
from monai.transforms import Compose

from monai_mil_ext.data import BagCollate, write_bag
from monai_mil_ext.handlers import BagPredictionsSaver, BagResultsSaver
from monai_mil_ext.inferers import BagInferer
from monai_mil_ext.metrics import ConformalInstances
from monai_mil_ext.networks.nets import ABMIL, BagOutputWrapper
from monai_mil_ext.transforms import LoadBagd, LoadBagLabeld, LoadOrStatus, UnpackBagOutputd
from tests.helpers import fill


def cohort(folder, sizes):
    """Write bag files of the given sizes, with -1 for a truncated file and None for a missing one."""
    items = []
    for i, size in enumerate(sizes):
        file = folder / f"c{i}.h5"
        items.append({"image": str(file), "case_id": f"c{i}", "patient": f"p{i}", "label": i % 2})
        if size is not None:
            write_bag(file, {"features": torch.randn(abs(size), 3)})
        if size == -1:
            file.write_bytes(file.read_bytes()[:100])
    return items


def evaluator(items, handlers, inferer=None, num_workers=0, **options):
    load = Compose([LoadBagd("image"), LoadBagLabeld("label", num_classes=2)])
    dataset = Dataset(items, LoadOrStatus(load, {"image": [3]}))
    return SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(dataset, batch_size=1, num_workers=num_workers, collate_fn=BagCollate("image")),
        network=BagOutputWrapper(fill(ABMIL(3, 2))),
        inferer=inferer or BagInferer(),
        prepare_batch=PrepareBatchExtraInput({"mask": "mask"}),
        postprocessing=Compose([UnpackBagOutputd("pred"), lambda d: {**d, "pred": d["pred"].softmax(0)}]),
        val_handlers=handlers,
        **options,
    )


def rows(folder):
    return list(csv.DictReader((folder / "predictions.csv").open()))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bag_predictions_saver_finishes_all_other_bags_and_raises_at_the_end(tmp_path, num_workers):
    items, out = cohort(tmp_path, [4, 0, 2, -1, None, 5]), tmp_path / "out"
    engine = evaluator(items, [BagPredictionsSaver(out), BagResultsSaver(out, num_samples=5)], num_workers=num_workers)
    with pytest.raises(RuntimeError, match=r"got none for 3 of 6:\n  'c1' is empty\n  'c3' is unreadable: "):
        engine.run()
    table = rows(out)
    assert [row["case_id"] for row in table] == [f"c{i}" for i in range(6)]
    assert [row["status"].split(":")[0] for row in table] == ["done", "empty", "done", *["unreadable"] * 2, "done"]
    assert [row["num_instances"] for row in table] == ["4", "", "2", "", "", "5"]
    assert [bool(row["probability_1"]) for row in table] == [True, False, True, False, False, True]
    assert str(tmp_path) not in (out / "predictions.csv").read_text()
    others = list(csv.DictReader((out / "bags.csv").open()))
    assert [row["case_id"] for row in others] == ["c0", "c2", "c5"]
    for row in others:
        same = next(r for r in table if r["case_id"] == row["case_id"])
        assert float(row["probability_1"]) == pytest.approx(float(same["probability_1"]))


def test_bag_predictions_saver_raises_nothing_when_all_bags_are_done(tmp_path):
    engine = evaluator(cohort(tmp_path, [4, 2]), [BagPredictionsSaver(tmp_path)], SimpleInferer())
    for _ in range(2):
        engine.run()
        assert [row["status"] for row in rows(tmp_path)] == ["done", "done"]


def test_bag_predictions_saver_hides_blank_bags_from_metrics(tmp_path):
    metric = ROCAUC(
        output_transform=lambda items: (
            [i["pred"][1:] for i in items],
            [torch.as_tensor(i["label"]).reshape(1) for i in items],
        )
    )
    seen, items = [], cohort(tmp_path, [4, 3, 0, 2])
    engine = evaluator(items, [BagPredictionsSaver(tmp_path)], key_val_metric={"auroc": metric})
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(len(e.state.output)))
    with pytest.raises(RuntimeError, match="got none for 1 of 4"):
        engine.run()
    assert seen == [1, 1, 0, 1]
    clean = evaluator(items[:2] + items[3:], [], key_val_metric={"auroc": metric})
    clean.run()
    assert engine.state.metrics["auroc"] == clean.state.metrics["auroc"]


def test_bag_predictions_saver_writes_a_table_when_all_bags_fail(tmp_path):
    engine = evaluator(cohort(tmp_path, [0, None]), [BagPredictionsSaver(tmp_path)])
    with pytest.raises(RuntimeError, match="got none for 2 of 2"):
        engine.run()
    assert [row["status"].split(":")[0] for row in rows(tmp_path)] == ["empty", "unreadable"]


def test_bag_predictions_saver_writes_attention_of_instances(tmp_path):
    items = cohort(tmp_path, [4, 0, 2])
    engine = evaluator(items, [BagPredictionsSaver(tmp_path, instances=True)])
    with pytest.raises(RuntimeError, match="got none for 1 of 3"):
        engine.run()
    lines = list(csv.DictReader((tmp_path / "instances.csv").open()))
    assert [(line["case_id"], line["instance"]) for line in lines] == [
        *(("c0", str(i)) for i in range(4)),
        *(("c2", str(i)) for i in range(2)),
    ]
    assert {line["use"] for line in lines} == {"research use only"}
    attention = fill(ABMIL(3, 2)).forward_bag(LoadBagd("image")(items[2])["image"].unsqueeze(0)).attention[0, :, 0]
    assert [float(line["attention"]) for line in lines[4:]] == pytest.approx(attention.tolist(), abs=1e-6)
    assert "lines" not in rows(tmp_path)[0]


def test_bag_predictions_saver_writes_every_head_and_no_padding(tmp_path):
    engine, saver = evaluator(cohort(tmp_path, [2]), []), BagPredictionsSaver(tmp_path, instances=True)
    attention = torch.tensor([[0.25, 0.5], [0.75, 0.5], [0.0, 0.0]])
    engine.state.batch = [{"case_id": "a", "mask": torch.tensor([True, True, False])}]
    engine.state.output = [{"pred": torch.tensor([0.5, 0.5]), "attention": attention}]
    saver._collect(engine)
    saver._write(engine)
    lines = list(csv.DictReader((tmp_path / "instances.csv").open()))
    columns = [[float(line[key]) for key in ("attention", "attention_0", "attention_1")] for line in lines]
    assert columns == [[0.375, 0.25, 0.5], [0.625, 0.75, 0.5]]


def test_bag_predictions_saver_names_a_bag_without_attention(tmp_path):
    engine, saver = Engine(lambda *_: None), BagPredictionsSaver(tmp_path, instances=True)
    engine.state.batch, engine.state.output = [{"case_id": "a"}], [{"pred": torch.tensor([1.0, 0.0])}]
    with pytest.raises(ValueError, match="`instances` must be False for a network without attention, got none of 'a'"):
        saver._collect(engine)


def write(folder, preds, **options):
    """Write the predictions of bags "a", "b", ... and return the table."""
    engine, saver = Engine(lambda *_: None), BagPredictionsSaver(folder, **options)
    engine.state.batch = [{"case_id": chr(97 + i)} for i in range(len(preds))]
    engine.state.output = [{"pred": torch.tensor(pred)} for pred in preds]
    saver._collect(engine)
    saver._write(engine)
    return rows(folder)


def test_bag_predictions_saver_keeps_bags_of_one_case_id(tmp_path):
    engine, saver = Engine(lambda *_: None), BagPredictionsSaver(tmp_path)
    engine.state.batch = [{"case_id": case} for case in "aab"]
    engine.state.output = [{"pred": torch.tensor([p, 1 - p])} for p in (0.1, 0.2, 0.3)]
    saver._collect(engine)
    saver._write(engine)
    assert [(row["case_id"], float(row["probability_0"])) for row in rows(tmp_path)] == [
        ("a", pytest.approx(0.1)),
        ("a", pytest.approx(0.2)),
        ("b", pytest.approx(0.3)),
    ]


def test_bag_predictions_saver_names_the_predicted_class(tmp_path):
    table = write(tmp_path, [[0.1, 0.9], [0.7, 0.3]], class_names=["benign", "malignant"])
    assert [(row["prediction"], row["predicted_class"]) for row in table] == [("1", "malignant"), ("0", "benign")]
    with pytest.raises(ValueError, match=r"`class_names` must be one for each of 3 classes, got"):
        write(tmp_path, [[0.1, 0.2, 0.7]], class_names=["benign", "malignant"])


def test_bag_predictions_saver_gives_one_probability_two_columns(tmp_path):
    (row,) = write(tmp_path, [[0.97]])
    assert row["prediction"] == "1"
    assert [float(row[f"probability_{c}"]) for c in range(2)] == pytest.approx([0.03, 0.97])


@pytest.mark.parametrize(
    ("task", "pred", "columns"),
    [
        ("multilabel", [0.9, 0.8, 0.1], {"prediction_0": "1", "prediction_1": "1", "prediction_2": "0"}),
        ("multilabel", [0.75], {"prediction_0": "1", "probability_0": "0.75"}),
        ("ordinal", [0.25, 0.5, 0.25], {"prediction": "1"}),
        ("survival", [0.75, 0.5, 0.5], {"survival_0": "0.75", "survival_2": "0.5"}),
        ("regression", [61.5], {"value": "61.5"}),
        ("cox", [-0.25], {"risk": "-0.25"}),
    ],
)
def test_bag_predictions_saver_takes_probabilities_of_every_task(tmp_path, task, pred, columns):
    (row,) = write(tmp_path, [pred], task=task)
    assert row.items() >= columns.items()
    assert ("prediction" in row) == (task == "ordinal")


def test_bag_predictions_saver_takes_threshold_and_times_from_the_model(tmp_path):
    model = {"operating_points": [{"class_name": "b", "threshold": 0.2}], "bin_edges": [6.0, 12.0]}
    (row,) = write(tmp_path, [[0.7, 0.3]], class_names=["a", "b"], model=model)
    assert (row["prediction"], row["predicted_class"]) == ("1", "b")
    (row,) = write(tmp_path, [[0.75, 0.5]], task="survival", model=model)
    assert (row["survival_6"], row["survival_12"]) == ("0.75", "0.5")


@pytest.mark.parametrize("task", ["classification", "multilabel", "ordinal", "survival"])
def test_bag_predictions_saver_refuses_logits(tmp_path, task):
    with pytest.raises(ValueError, match=r"`pred` must be probabilities in \[0, 1\], got 1.84"):
        write(tmp_path, [[0.5, 1.84]], task=task)
    assert not (tmp_path / "predictions.csv").exists()


def test_bag_predictions_saver_states_the_set_of_each_bag(tmp_path):
    bags, labels = [torch.tensor([0.4, 0.3, 0.2, 0.1])] * 9, [torch.tensor([0, 1, 0, 0])] * 9
    sets = {**ConformalInstances().fit(bags, labels).to_dict(), "bag_sizes": [2, 6]}
    model = {"name": "tumor", "version": "1", "trained_on": "model.json", "instance_set": sets}
    saver = BagPredictionsSaver(tmp_path / "out", instances=True, model=model)
    evaluator(cohort(tmp_path, [5, 3, 7]), [saver]).run()
    table = rows(tmp_path / "out")
    assert [(row["set_size"], row["set_confidence"]) for row in table] == [("2", "0.9"), ("", "0.9"), ("", "0.9")]
    assert table[0]["set_sentence"].startswith("If the bag has a lesion, these 2 of 5 instances include at least one")
    assert "2 of 3 instances are needed, more than 50 % of the bag" in table[1]["set_sentence"]
    assert table[2]["set_sentence"].endswith("the bag has 7 instances, those of the calibration 2 to 6.")
    instances = list(csv.DictReader((tmp_path / "out" / "instances.csv").open()))
    first = [(float(row["attention"]), row["in_set"]) for row in instances if row["case_id"] == "c0"]
    assert [chosen for _, chosen in sorted(first, reverse=True)] == ["1", "1", "0", "0", "0"]
    assert {row["in_set"] for row in instances if row["case_id"] != "c0"} == {"0"}
