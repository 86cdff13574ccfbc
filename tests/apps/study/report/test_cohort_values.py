"""The cohort of a study is described by counts and without names of cases."""

import numpy as np
import torch

from monai_mil_ext.apps.study import Task
from monai_mil_ext.apps.study.report.cohort_values import describe_cohort, median_follow_up
from monai_mil_ext.data import write_bag
from tests.apps.study.cohort_bags import TASKS, make_items

TASK = TASKS["classification"]


def test_the_cohort_is_described_without_names_of_cases(tmp_path):
    items = [{**item, "site": "AB"[i % 2]} for i, item in enumerate(make_items(tmp_path))]
    facts = describe_cohort(items, TASK)
    assert (facts["num_cases"], facts["num_patients"], facts["num_sites"]) == (36, 36, 2)
    assert facts["labels"] == {"no": 18, "yes": 18}
    assert facts["sites"] == {"A": {"no": 18}, "B": {"yes": 18}}
    assert (facts["median_instances"], facts["range_instances"]) == (12, [12, 12])
    assert facts["num_features"] == 4
    numbers = describe_cohort(make_items(tmp_path, "regression"), TASKS["regression"])["labels"]
    assert (numbers["min"], numbers["max"]) == (50, 70)


def test_names_of_labels_may_have_a_plus(tmp_path):
    labels = [[1, 1], [1, 0], [0, 1], [np.nan, 1]]
    items = [{**item, "label": torch.tensor(row)} for item, row in zip(make_items(tmp_path), labels, strict=False)]
    items = [{**item, "site": "AB"[i // 2]} for i, item in enumerate(items)]
    facts = describe_cohort(items, Task("multilabel", ("ER+", "HER2+")))
    assert facts["labels"] == {"ER+": 2, "HER2+": 3}
    assert facts["sites"] == {"A": {"ER+": 2, "HER2+": 1}, "B": {"ER+": 0, "HER2+": 2}}


def test_follow_up_is_that_of_the_cases_without_event():
    truth = np.array([[2.0, 0], [3.0, 1], [5.0, 0], [6.0, 1], [9.0, 0], [12.0, 0]])
    assert median_follow_up(truth) == 9  # under observation: 5/6 after 2, 5/6 * 3/4 after 5, 5/16 after 9
    assert median_follow_up(np.array([[1.0, 1.0], [2.0, 1.0]])) is None
    items = [
        {"patient": str(i), "image": "", "time": t, "event": e, "num_instances": 1} for i, (t, e) in enumerate(truth)
    ]
    assert describe_cohort(items, TASKS["cox"])["median_follow_up"] == 9


def test_the_encoder_and_its_input_are_said_in_words(tmp_path):
    (item,) = make_items(tmp_path, num_cases=2)[:1]
    attributes = {"encoder": "MobileNetV2Features", "plane": "axial", "window": (-160.0, 240.0), "spatial_size": (224,)}
    write_bag(item["image"], {"features": torch.randn(5, 4)}, attributes)
    facts = describe_cohort([item], TASK)
    assert facts["encoder"].startswith("MobileNetV2 trained on ImageNet")
    assert facts["preparation"] == "axial, scaled to 224 \u00d7 224 pixels, values from -160 to 240"
    assert facts["instances"] == "slices"
