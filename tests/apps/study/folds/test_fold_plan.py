"""Tests of the folds of a study."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_mil_ext.apps.study import FoldPlan, Task

PARTS = ("train", "val", "test")
BINARY = Task("classification", ("benign", "malignant"))
TASKS = {
    "classification": BINARY,
    "ordinal": Task("ordinal", ("low", "middle", "high")),
    "multilabel": Task("multilabel", ("edema", "mass")),
    "regression": Task("regression"),
    "cox": Task("cox"),
}


def cohort(labels, sites=("",), bags_each=1):
    """Return items of patients with the given labels, at the sites in turn, with up to ``bags_each`` bags."""
    return [
        {"case_id": f"p{p}_s{s}", "patient": f"p{p}", "label": label, "site": sites[p % len(sites)]}
        for p, label in enumerate(labels)
        for s in range(1 + p % bags_each)
    ]


def random_cohort(kind, size, seed):
    rng = np.random.default_rng(seed)
    items = []
    for case in range(size):
        item = {"case_id": f"c{case}", "patient": f"p{rng.integers(size * 2 // 3)}", "site": f"s{rng.integers(3)}"}
        item["label"] = {
            "classification": int(rng.random() < 0.3),
            "ordinal": int(rng.integers(3)),
            "multilabel": [float(rng.integers(2)), rng.choice([0.0, 1.0, np.nan])],
        }.get(kind, float(rng.normal()))
        items.append({**item, "time": float(rng.random()), "event": int(rng.random() < 0.6)})
    return items


def part_of_patients(fold, splits):
    return {splits.patients[case]: part for part in PARTS for case in fold[part]}


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(sorted(TASKS)),
    by=st.sampled_from(["patient", "site", "spread"]),
    size=st.integers(40, 80),
    folds=st.integers(2, 6),
    repeats=st.integers(1, 2),
    fraction=st.sampled_from([0, 0.2, 0.5]),
    seed=st.integers(0, 999),
)
def test_every_case_is_tested_once_a_repeat_and_no_patient_is_divided(kind, by, size, folds, repeats, fraction, seed):
    items = random_cohort(kind, size, seed)
    plan = FoldPlan(folds, repeats, by, fraction, seed)
    splits = plan.split(items, TASKS[kind])  # refuses a patient in two parts
    cases = {item["case_id"] for item in items}
    for fold in splits.folds:
        assert Counter(case for part in PARTS for case in fold[part]) == dict.fromkeys(cases, 1)
        assert all(fold[part] for part in PARTS if part != "val" or fraction)
        assert bool(fold["val"]) == bool(fraction)
    for repeat in range(repeats):
        tested = [c for f, r in zip(splits.folds, splits.repeats, strict=True) if r == repeat for c in f["test"]]
        assert Counter(tested) == dict.fromkeys(cases, 1)
    shuffled = [items[i] for i in np.random.default_rng(seed).permutation(len(items))]
    assert plan.split(shuffled, TASKS[kind]) == splits
    assert plan.extend(splits, shuffled, TASKS[kind]) == splits


@pytest.mark.parametrize("by", ["patient", "site", "spread"])
@pytest.mark.parametrize("kind", sorted(TASKS))
def test_notes_of_every_task_are_sentences(kind, by):
    notes = FoldPlan(3, by=by).notes(random_cohort(kind, 40, 0), TASKS[kind])
    assert all(note[0].isupper() or note[0].isdigit() for note in notes)
    assert all(note.endswith(".") for note in notes)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 2), max_size=60).map(lambda rest: [0, 1, 2] * 6 + rest),
    sites=st.integers(1, 7),
    folds=st.integers(2, 6),
    seed=st.integers(0, 99),
)
def test_spread_differs_by_one_patient_of_each_class_and_site(labels, sites, folds, seed):
    items = cohort(labels, [f"s{i}" for i in range(sites)])
    task = TASKS["ordinal"]
    splits = FoldPlan(folds, by="spread", seed=seed).split(items, task)
    assert len(splits) == folds
    of_case = {item["case_id"]: item for item in items}
    for keys in (("label", "site"), ("label",), ()):
        counts = [Counter(tuple(of_case[c][k] for k in keys) for c in fold["test"]) for fold in splits.folds]
        for name in set().union(*counts):
            found = [count[name] for count in counts]
            assert max(found) - min(found) <= 1


def test_folds_by_patient_are_stratified():
    items = cohort([0] * 40 + [1] * 15)
    for fold in FoldPlan().split(items, BINARY).folds:
        assert Counter(int(c[1:-3]) >= 40 for c in fold["test"]) == {False: 8, True: 3}
        assert Counter(int(c[1:-3]) >= 40 for c in fold["val"]) == {False: 6, True: 2}


def test_a_regression_is_stratified_by_quantiles():
    items = cohort([float(i) for i in range(50)])
    values = {item["case_id"]: item["label"] for item in items}
    for fold in FoldPlan().split(items, TASKS["regression"]).folds:
        assert Counter(int(values[c] // 10) for c in fold["test"]) == dict.fromkeys(range(5), 2)


def test_folds_of_patients_with_many_bags_have_similar_sizes():
    items = cohort([0, 1] * 30, bags_each=10)
    sizes = [len(fold["test"]) for fold in FoldPlan().split(items, BINARY).folds]
    assert max(sizes) - min(sizes) <= 10


def test_seeds_and_repeats_and_validation_parts_differ():
    items = cohort([0, 1] * 20)
    splits, other = FoldPlan(repeats=2).split(items, BINARY), FoldPlan(seed=1).split(items, BINARY)
    assert splits.repeats == [0] * 5 + [1] * 5
    assert splits.folds[0]["test"] != splits.folds[5]["test"] != other.folds[0]["test"] != splits.folds[0]["test"]
    counts = Counter(case for fold in splits.folds[:5] for case in fold["val"])
    assert max(counts.values()) < 4


def test_by_site_leaves_out_a_site():
    items = cohort([0, 1, 1, 0] * 10, ["C", "A", "B"], bags_each=2)
    site = {item["case_id"]: item["site"] for item in items}
    splits = FoldPlan(by="site").split(items, BINARY)
    assert [{site[c] for c in fold["test"]} for fold in splits.folds] == [{"A"}, {"B"}, {"C"}]
    for fold in splits.folds:
        assert {site[c] for c in fold["val"]} == {"A", "B", "C"} - {site[c] for c in fold["test"]}


def test_by_site_refuses_what_it_cannot_do():
    items = cohort([0, 1, 1, 0] * 5, ["A", "B", ""])
    match = "`by` must be 'site' only if all cases have a site .* got 6 patients without a site: fill in"
    with pytest.raises(ValueError, match=match):
        FoldPlan(by="site").split(items, BINARY)
    with pytest.raises(ValueError, match="at least two, got 1 site: fill in"):
        FoldPlan(by="site").split(cohort([0, 1] * 5, ["A"]), BINARY)
    match = "must have two classes, got malignant only in fold 0, whose test part is site 'A': use folds by patient or"
    with pytest.raises(ValueError, match=match):
        FoldPlan(by="site").split(cohort([0, 1] * 5, ["A", "B"]), BINARY)


def test_a_patient_of_several_sites_is_tested_with_most_of_his_cases():
    items = cohort([0, 1, 1, 0] * 5, ["A", "B"])
    items += [{**items[0], "case_id": f"x{i}", "site": "B"} for i in range(2)]
    splits = FoldPlan(by="site").split(items, BINARY)
    assert {"p0_s0", "x0", "x1"} <= set(splits.folds[1]["test"])
    assert "1 patient with cases of several sites" in " ".join(FoldPlan(by="site").notes(items, BINARY))


@pytest.mark.parametrize(
    ("labels", "task", "count"),
    [
        ([0] * 20 + [1] * 2, BINARY, 2),
        ([0] * 20 + [1] * 4, BINARY, 4),
        ([0] * 5 + [1] * 5, BINARY, 5),
        ([0] * 20 + [1] * 20 + [2] * 2, TASKS["ordinal"], 5),
        ([0] * 20 + [1] * 20 + [2] * 3, TASKS["ordinal"], 3),
        ([0.5, 1.5, 2.5, 3.5], TASKS["regression"], 2),
    ],
)
def test_few_patients_of_a_class_make_fewer_folds(labels, task, count):
    items = cohort(labels)
    splits = FoldPlan().split(items, task)
    assert len(splits) == count
    label = {item["case_id"]: item["label"] for item in items}
    if task is BINARY:
        assert all({label[c] for c in fold[part]} == {0, 1} for fold in splits.folds for part in ("train", "test"))
    notes = FoldPlan().notes(items, task)
    assert any(f"{count} folds are used instead of 5" in note for note in notes) == (count < 5)
    rare = [note for note in notes if "Class 'high' (2 patients) is missing in the test part of 3 of 5 folds" in note]
    assert len(rare) == (labels[-1] == 2 and count == 5)


def test_too_few_patients_are_refused():
    with pytest.raises(ValueError, match="2 patients of each of two classes for two folds, got 21 in all, 20 of"):
        FoldPlan().split(cohort([0] * 20 + [1]), BINARY)
    with pytest.raises(ValueError, match="at least 4 patients for two folds, got 3 in all: add cases"):
        FoldPlan().split(cohort([0.1, 0.2, 0.3]), TASKS["regression"])
    times = [{"case_id": str(i), "patient": str(i), "time": 1.0, "event": int(i == 0)} for i in range(9)]
    with pytest.raises(ValueError, match="with an event, for two folds, got 9 in all, 1 of event"):
        FoldPlan().split(times, TASKS["cox"])
    with pytest.raises(ValueError, match="`items` must be cases with different `case_id`, got 'p0_s0' more than once"):
        FoldPlan().split(cohort([0, 1]) * 2, BINARY)
    with pytest.raises(ValueError, match="got no item"):
        FoldPlan().split([], BINARY)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"by": "center"}, "`by` must be one of 'patient', 'site', 'spread', got 'center'"),
        ({"num_folds": 1}, "`num_folds` must be at least 2, got 1"),
        ({"repeats": 0}, "`repeats` must be a positive integer, got 0"),
        ({"val_fraction": 0.6}, "`val_fraction` must be from 0 to 0.5, got 0.6"),
        ({"on_bad": "keep"}, "`on_bad` must be one of 'refuse', 'skip'"),
    ],
)
def test_invalid_options_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        FoldPlan(**options)


def test_the_column_split_is_used_as_given():
    items = cohort([0, 1] * 20)
    for i, item in enumerate(items):
        item["split"] = ("train", "train", "train", "train", "val", "val", "test", " Test")[i % 8]
    splits = FoldPlan().split(items, BINARY)
    wanted = {p: sorted(i["case_id"] for i in items if i["split"].strip().lower() == p) for p in PARTS}
    assert splits.folds == [wanted]
    without = [item for item in items if item["split"] != "val"]
    fold = FoldPlan().split(without, BINARY).folds[0]
    assert fold["test"] == wanted["test"]
    assert sorted(fold["train"] + fold["val"]) == wanted["train"]
    assert len(fold["val"]) == 4
    assert FoldPlan(val_fraction=0).split(without, BINARY).folds == [{**wanted, "val": []}]


def test_invalid_columns_split_are_refused(caplog):
    items = [{**item, "split": ("train", "test")[i % 2]} for i, item in enumerate(cohort([0, 0, 1, 1] * 5))]
    with pytest.raises(ValueError, match=r"patient 'p0' in train \['p0_s0'\] and test \['new'\]"):
        FoldPlan().split([*items, {**items[0], "case_id": "new", "split": "test"}], BINARY)
    with pytest.raises(ValueError, match="got 1 cases without a `split`: 'p0_s0'"):
        FoldPlan().split([{**items[0], "split": ""}, *items[1:]], BINARY)
    loose = FoldPlan(on_bad="skip")
    splits = loose.split([{**items[0], "split": ""}, *items[1:]], BINARY)
    assert "p0_s0" in splits.patients
    assert not any("p0_s0" in splits.folds[0][part] for part in PARTS)
    assert "1 cases without a `split` are left out" in caplog.text
    assert "1 case without a fixed part is not used." in loose.notes([{**items[0], "split": ""}, *items[1:]], BINARY)
    with pytest.raises(ValueError, match="`split` must be one of 'train', 'val', 'test', got 'trial'"):
        FoldPlan().split([{**items[0], "split": "trial"}, *items[1:]], BINARY)
    with pytest.raises(ValueError, match="must have training and test cases, got no test"):
        FoldPlan().split([{**item, "split": "train"} for item in items], BINARY)
    with pytest.raises(ValueError, match="`by` must be 'patient' and `repeats` 1 with fixed parts, got 'site' and 1"):
        FoldPlan(by="site").split(items, BINARY)


def test_a_split_file_is_used_as_given(tmp_path):
    items = cohort([0, 1] * 10)
    plan = FoldPlan(num_folds=4, repeats=2, seed=3)
    splits = plan.split(items, BINARY)
    splits.write(tmp_path / "splits.json")
    assert FoldPlan(4, 2, seed=3, split_file="").split(items, BINARY) == splits
    fixed = FoldPlan(split_file=tmp_path / "splits.json")
    assert fixed.split(items, BINARY).folds == splits.folds
    assert fixed.split(items, BINARY).repeats == [0] * 4 + [1] * 4
    new = {**items[0], "case_id": "new", "patient": "new"}
    with pytest.raises(ValueError, match="got 1 cases of the cohort that are in no part: 'new'"):
        fixed.split([*items, new], BINARY)
    with pytest.raises(ValueError, match="got 1 cases of the file that are not in the cohort: 'p0_s0'"):
        fixed.split(items[1:], BINARY)
    skipped = FoldPlan(split_file=tmp_path / "splits.json", on_bad="skip").split([*items[1:], new], BINARY)
    assert "p0_s0" not in skipped.patients
    skipped.select([*items[1:], new], 0, "test")
    rows = "\n".join(f"{i},{items[i]['case_id']},{items[i + 10]['case_id']}" for i in range(10))
    (tmp_path / "splits_0.csv").write_text(f",train,test\n{rows}\n")
    fold = FoldPlan(split_file=tmp_path / "splits_0.csv").split(items, BINARY).folds[0]
    assert fold["test"] == sorted(item["case_id"] for item in items[10:])
    assert len(fold["val"]) == 2


@settings(max_examples=40, deadline=None)
@given(by=st.sampled_from(["patient", "site", "spread"]), seed=st.integers(0, 99), more=st.integers(1, 20))
def test_extend_keeps_the_parts_of_earlier_patients(by, seed, more):
    items = random_cohort("classification", 60, seed)
    plan = FoldPlan(4, 2, by, seed=seed)
    before = plan.split(items, BINARY)
    added = [
        {**item, "case_id": f"n{item['case_id']}"} for item in random_cohort("classification", 60, seed + 1)[:more]
    ]
    known = {item["patient"]: item["site"] for item in items}
    added = [{**item, "site": known.get(item["patient"], item["site"])} for item in added]
    if by == "site":  # by which the majority of cases could change
        added = [{**item, "patient": f"n{item['patient']}"} for item in added]
    after = plan.extend(before, [*added, *items], BINARY)
    assert len(after) == len(before)
    for old, new in zip(before.folds, after.folds, strict=True):
        parts = part_of_patients(new, after)
        assert part_of_patients(old, before).items() <= parts.items()
        assert len(new["test"]) >= len(old["test"])
    assert plan.extend(before, items[5:], BINARY).patients.keys() == {item["case_id"] for item in items[5:]}


def test_extend_adds_new_patients_to_the_smallest_fold_of_their_class():
    items = cohort([0] * 11 + [1] * 9)
    plan = FoldPlan(5)
    before = plan.split(items, BINARY)
    after = plan.extend(before, cohort([0] * 11 + [1] * 9 + [1]), BINARY)
    few = [i for i, fold in enumerate(before.folds) if sum(int(c[1:-3]) >= 11 for c in fold["test"]) == 1]
    assert [i for i, fold in enumerate(after.folds) if "p20_s0" in fold["test"]] == few


def test_extend_adds_a_site_as_a_further_fold_and_repeats():
    items = cohort([0, 1, 1, 0] * 6, ["B", "C"])
    before = FoldPlan(by="site").split(items, BINARY)
    new = [{**item, "case_id": f"n{i}", "patient": f"n{i}", "site": "A"} for i, item in enumerate(items[:6])]
    after = FoldPlan(by="site", repeats=2).extend(before, items + new, BINARY)
    assert after.repeats == [0, 0, 0, 1, 1, 1]
    assert [f["test"] for f in after.folds[:2]] == [f["test"] for f in before.folds]
    assert all(set(new["val"]) >= set(old["val"]) for old, new in zip(before.folds, after.folds[:2], strict=True))
    assert after.folds[2]["test"] == [f"n{i}" for i in range(6)]
    once = FoldPlan().split(items, BINARY)
    assert FoldPlan(repeats=3).extend(once, items, BINARY) == FoldPlan(repeats=3).split(items, BINARY)
    with pytest.raises(ValueError, match="`previous` must have at most the 3 folds of the plan, got 5"):
        FoldPlan(3).extend(once, items, BINARY)
    with pytest.raises(ValueError, match="`previous` must have the seed 1 of the plan, got 0"):
        FoldPlan(seed=1).extend(once, items, BINARY)


def test_extend_keeps_a_drawn_validation_part_of_fixed_parts():
    items = [
        {**item, "split": ("train", "train", "train", "test")[i // 2 % 4]} for i, item in enumerate(cohort([0, 1] * 20))
    ]
    before = FoldPlan().split(items, BINARY)
    new = [{**items[0], "case_id": f"a{i}", "patient": f"a{i}"} for i in range(3)]
    after = FoldPlan().extend(before, [*new, *items], BINARY)
    assert set(before.folds[0]["val"]) <= set(after.folds[0]["val"])
    assert set(before.folds[0]["train"]) <= set(after.folds[0]["train"])


def test_extend_changes_between_fixed_and_drawn_parts():
    items = cohort([0, 1] * 20)
    fixed = [{**item, "split": "test" if i % 8 > 5 else "train"} for i, item in enumerate(items)]
    drawn = FoldPlan().split(items, BINARY)
    assert FoldPlan().extend(FoldPlan().split(fixed, BINARY), items, BINARY) == drawn
    fold = FoldPlan().extend(drawn, fixed, BINARY).folds[0]
    assert fold["test"] == FoldPlan().split(fixed, BINARY).folds[0]["test"]
    assert fold["val"]


def test_extend_makes_new_folds_if_a_test_part_would_be_empty(caplog):
    items = cohort([0, 1] * 5)
    before = FoldPlan().split(items, BINARY)
    gone = set(before.folds[0]["test"])
    left = [item for item in items if item["case_id"] not in gone]
    assert FoldPlan().extend(before, left, BINARY) == FoldPlan().split(left, BINARY)
    assert "All test cases of a fold are gone: the folds are made anew." in caplog.text


def test_extend_follows_a_patient_whose_name_is_corrected():
    items = cohort([0, 1] * 20)
    before = FoldPlan().split(items, BINARY)
    joined = [*items[:-1], {**items[-1], "patient": "p0"}]
    after = FoldPlan().extend(before, joined, BINARY)
    for old, new in zip(before.folds, after.folds, strict=True):
        part = next(part for part in PARTS if "p0_s0" in old[part])
        assert {"p0_s0", "p39_s0"} <= set(new[part])
