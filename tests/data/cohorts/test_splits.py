"""Tests of splits of cohorts by patient."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_mil_ext.data import CohortSplits, split_cohort, write_bag

PARTS = ("train", "val", "test")


def cohort(labels, bags_each=2):
    """Return items of patients with the given labels, with one or several bags each."""
    return [
        {"case_id": f"p{p}_s{s}", "patient": f"p{p}", "label": label, "image": f"p{p}_s{s}.h5"}
        for p, label in enumerate(labels)
        for s in range(1 + p % bags_each)
    ]


LABELS = st.lists(st.integers(0, 1), max_size=30).map(lambda rest: [0, 1] * 5 + rest)


@given(labels=LABELS, folds=st.integers(2, 4), fraction=st.sampled_from([0, 0.25, 0.5]), seed=st.integers(0, 99))
def test_split_cohort_keeps_patients_together(labels, folds, fraction, seed):
    items = cohort(labels)
    splits = split_cohort(items, folds, fraction, repeats=2, seed=seed)
    cases = {item["case_id"] for item in items}
    assert len(splits) == 2 * folds
    for fold in splits.folds:
        assert sorted(case for part in PARTS for case in fold[part]) == sorted(cases)
        patients = [{splits.patients[case] for case in fold[part]} for part in PARTS]
        assert sum(map(len, patients)) == len(set().union(*patients))
        assert bool(fold["val"]) == bool(fraction)
    for repeat in (splits.folds[:folds], splits.folds[folds:]):
        assert Counter(case for fold in repeat for case in fold["test"]) == dict.fromkeys(cases, 1)
    assert split_cohort(items, folds, fraction, repeats=2, seed=seed) == splits


def test_split_cohort_stratifies():
    items = cohort([0] * 60 + [1] * 20, bags_each=1)
    label = {item["case_id"]: item["label"] for item in items}
    for fold in split_cohort(items, 5, 0.25).folds:
        counts = {part: Counter(label[case] for case in fold[part]) for part in PARTS}
        assert counts == {"train": {0: 36, 1: 12}, "val": {0: 12, 1: 4}, "test": {0: 12, 1: 4}}


def test_split_cohort_seeds_and_repeats_differ():
    items = cohort([0, 1] * 20)
    splits, other = split_cohort(items, 4, repeats=2), split_cohort(items, 4, seed=7)
    assert splits.folds[:4] != splits.folds[4:]
    assert splits.folds[:4] != other.folds


def test_split_cohort_stratify_keys():
    items = [
        {"case_id": f"s{i}", "patient": f"p{i}", "label": torch.tensor([i % 2, i // 2 % 2]), "event": i % 2}
        for i in range(24)
    ]
    for key in ("label", "event", None):
        splits = split_cohort(items, 3, 0.5, stratify=key)
        assert [len(splits.folds[0][part]) for part in PARTS] == [8, 8, 8]
    kinds = Counter(str(items[int(case[1:])]["label"].tolist()) for case in split_cohort(items, 3).folds[0]["test"])
    assert set(kinds.values()) == {2}


def test_split_cohort_names_a_small_class():
    match = "`items` must have enough patients of class 1 for 5 folds and validation, got 4: use fewer folds"
    with pytest.raises(ValueError, match=match):
        split_cohort(cohort([0] * 20 + [1] * 4), 5)
    with pytest.raises(ValueError, match="enough patients of class 1 for 2 folds and validation, got 2"):
        split_cohort(cohort([0] * 20 + [1] * 2), 2)
    assert len(split_cohort(cohort([0] * 20 + [1] * 3), 2, 0)) == 2
    with pytest.raises(ValueError, match="enough patients for 3 folds, got 2: use fewer"):
        split_cohort(cohort([0, 1]), 3, 0, stratify=None)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_folds": 1}, "`num_folds` must be from 2, `repeats` from 1, .*, got 1, 1, 0.2"),
        ({"val_fraction": 0.8}, "`val_fraction` from 0 to 0.5, got 5, 1, 0.8"),
        ({"repeats": 0}, "got 5, 0, 0.2"),
        ({"stratify": "grade"}, "`stratify` must be a key of every item, got 'grade' for 'p0_s0'"),
    ],
)
def test_split_cohort_refuses_invalid_options(options, match):
    with pytest.raises(ValueError, match=match):
        split_cohort(cohort([0, 1] * 10), **options)
    with pytest.raises(ValueError, match="`case_id` must be different for every item, got 'p0_s0' more than once"):
        split_cohort(cohort([0, 1])[:1] * 2)


def test_cohort_splits_write_read_and_select(tmp_path):
    items = cohort([0, 1] * 10)
    splits = split_cohort(items, 3, seed=5)
    splits.write(tmp_path / "splits.json")
    again = CohortSplits.read(tmp_path / "splits.json")
    assert (again.folds, again.patients, again.seed) == (splits.folds, splits.patients, 5)
    assert "p0_s0.h5" not in (tmp_path / "splits.json").read_text()
    for part in PARTS:
        picked = again.select(items, 2, part)
        assert [item["case_id"] for item in picked] == [
            i["case_id"] for i in items if i["case_id"] in splits.folds[2][part]
        ]
        assert picked[0]["image"].endswith(".h5")


def test_cohort_splits_refuse_leakage(tmp_path):
    patients = {"a": "p", "b": "p", "c": "q"}
    with pytest.raises(ValueError, match=r"one part, got 1:\n  fold 0: patient 'p' in train \['a'\] and test \['b'\]"):
        CohortSplits([{"train": ["a"], "val": [], "test": ["b", "c"]}], patients)
    with pytest.raises(ValueError, match=r"fold 1: patient 'q' in train \['c'\] and val \['c'\]"):
        CohortSplits([{"train": ["a"], "val": [], "test": []}, {"train": ["c"], "val": ["c"], "test": []}], patients)
    with pytest.raises(ValueError, match="fold 0: 'x' without a patient"):
        CohortSplits([{"train": ["x"], "val": [], "test": []}], patients)
    good = {"folds": [{"train": ["a"], "val": ["b"], "test": ["c"]}], "patients": patients, "seed": 0}
    (tmp_path / "s.json").write_text(json.dumps(good))
    with pytest.raises(ValueError, match="fold 0: patient 'p' in train"):
        CohortSplits.read(tmp_path / "s.json")


def test_cohort_splits_select_refuses_other_items():
    items = cohort([0, 1] * 10)
    splits = split_cohort(items, 3)
    others = [{**items[0], "patient": "p9"}, *items[2:], {**items[1], "case_id": "new"}]
    match = "got cases not in the splits: 'new'; missing: 'p1_s0'; of another patient: 'p0_s0'"
    with pytest.raises(ValueError, match=match):
        splits.select(others, 0, "train")
    with pytest.raises(ValueError, match="`fold` must be from 0 to 2, got 3"):
        splits.select(items, 3, "train")
    with pytest.raises(ValueError, match="`part` must be one of 'train', 'val', 'test', got 'tset'"):
        splits.select(items, 0, "tset")


def test_cohort_splits_begin_a_repeat_with_a_case_that_was_tested():
    folds = [{"train": ["c"], "val": [], "test": ["a"]}, {"train": ["c"], "val": [], "test": ["a", "b"]}]
    assert split_cohort(cohort([0, 1] * 20), 4, repeats=3).repeats == [0] * 4 + [1] * 4 + [2] * 4
    assert CohortSplits([], {}).repeats == []
    assert CohortSplits(folds, {case: case for case in "abc"}).repeats == [0, 1]


@pytest.mark.parametrize("text", ["{", "[]", '{"folds": [{}], "patients": {}, "seed": 0}', '{"folds": 3}'])
def test_cohort_splits_read_refuses_other_files(tmp_path, text):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ValueError, match=r"`path` must be a file that CohortSplits wrote, got 's.json'"):
        CohortSplits.read(tmp_path / "s.json")
    with pytest.raises(FileNotFoundError, match=r"a file of splits that exists, got 'none.json'"):
        CohortSplits.read(tmp_path / "none.json")


def test_cohort_splits_check_content_refuses_duplicates(tmp_path):
    items = []
    for i, name in enumerate("abcd"):
        write_bag(tmp_path / f"{name}.h5", {"features": np.full((2, 3), min(i, 2))}, {"case_id": name})
        items.append({"case_id": name, "patient": name, "image": str(tmp_path / f"{name}.h5")})
    patients = {name: name for name in "abcd"}
    leak = CohortSplits([{"train": ["a", "c"], "val": [], "test": ["b", "d"]}], patients)
    with pytest.raises(ValueError, match="must not share bags, got 1:\n  fold 0: 'c' in train is 'd' in test"):
        leak.check_content(items)
    CohortSplits([{"train": ["a", "b"], "val": [], "test": ["c", "d"]}], patients).check_content(items)


def test_cohort_splits_check_fold_refuses_other_folds(tmp_path):
    items, path = cohort([0, 1] * 10, bags_each=1), tmp_path / "split.json"
    splits = split_cohort(items, 4, 0.25)
    splits.write_fold(path, 2)
    splits.check_fold(path, 2)
    seen = set(splits.folds[2]["train"]) | set(splits.folds[2]["val"])
    again = split_cohort(items, 4, 0.25, seed=9)
    for other, fold in ((splits, 1), (again, 2)):
        test = other.folds[fold]["test"]
        count = f"{len(seen & set(test))} of its {len(test)} test bags were used in training"
        with pytest.raises(ValueError, match=rf"trained for, 2 with .* by 'split.json', got {fold}: {count}"):
            other.check_fold(path, fold)
    inner = split_cohort(items, 4, 0.5)  # the same test, other bags to choose by
    assert inner.folds[2]["test"] == splits.folds[2]["test"]
    with pytest.raises(ValueError, match="got 2: 0 of its 5 test bags were used in training"):
        inner.check_fold(path, 2)


@pytest.mark.parametrize("content", ["", "{}", '{"fold": 0, "train": 3, "val": [], "test": []}'])
def test_cohort_splits_check_fold_refuses_other_files(tmp_path, content):
    splits = split_cohort(cohort([0, 1] * 5), 2)
    message = r"`path` must be an existing file saved by training, got 'split\.json'"
    with pytest.raises(FileNotFoundError, match=message):
        splits.check_fold(tmp_path / "split.json", 0)
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(ValueError, match=r"`path` must be a file that CohortSplits wrote, got 'split\.json'"):
        splits.check_fold(tmp_path / "split.json", 0)
