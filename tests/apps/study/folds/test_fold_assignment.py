"""Tests of the assignment of patients to folds and to validation parts."""

import itertools
from collections import Counter

import pytest

from monai_mil_ext.apps.study.folds.fold_assignment import Draw, assign_folds, draw_validation
from monai_mil_ext.apps.study.folds.fold_patients import FoldPatient


def patients(counts, site="", num_cases=1, start=0):
    """Return patients of classes with the given counts."""
    names = [label for label, count in counts.items() for _ in range(count)]
    return [
        FoldPatient(
            f"{site}p{i + start}",
            tuple(f"{site}p{i + start}_{case}" for case in range(num_cases)),
            frozenset([label]),
            label,
            label,
            site,
            frozenset([site]),
        )
        for i, label in enumerate(names)
    ]


def test_draws_depend_on_seed_repeat_fold_and_name_and_are_uniform():
    values = [Draw(*numbers)(name) for numbers in itertools.product((0, 1), repeat=3) for name in "ab"]
    assert len(set(values)) == 16
    counts = Counter(int(Draw(0, 0)(i) * 4) for i in range(4000))
    assert all(900 < count < 1100 for count in counts.values())
    assert len(counts) == 4


def test_rest_of_the_classes_go_to_different_folds():
    folds = assign_folds(patients({"a": 7, "b": 3}), 5, Draw(0, 0))
    assert Counter(folds.values()) == dict.fromkeys(range(5), 2)


def test_known_folds_are_kept_and_filled_up():
    members = patients({"a": 10})
    known = {member.name: 0 for member in members[:4]}
    folds = assign_folds(members, 2, Draw(0, 0), known=known)
    assert known.items() <= folds.items()
    assert Counter(folds.values()) == {0: 5, 1: 5}


def test_patients_with_many_cases_are_not_in_one_fold():
    members = patients({"a": 4}, num_cases=9) + patients({"a": 4}, start=4)
    folds = assign_folds(members, 4, Draw(0, 0))
    assert {folds[member.name] for member in members[:4]} == set(range(4))


@pytest.mark.parametrize(
    ("counts", "expected"), [({"a": 40, "b": 10}, {"a": 8, "b": 2}), ({"a": 3, "b": 2}, {"a": 1, "b": 1})]
)
def test_validation_has_its_fraction_of_each_class(counts, expected):
    members = patients(counts)
    chosen = draw_validation(members, 0.2, Draw(0, 0))
    assert Counter(member.label for member in members if member.name in chosen) == expected


def test_validation_leaves_a_single_patient_of_a_class_in_training_and_is_even_over_sites():
    assert draw_validation(patients({"a": 1}), 0.5, Draw(0, 0)) == set()
    assert draw_validation(patients({"a": 9}), 0, Draw(0, 0)) == set()
    members = patients({"a": 20}, "A") + patients({"a": 40}, "B")
    chosen = draw_validation(members, 0.2, Draw(0, 0))
    assert Counter(name[0] for name in chosen) == {"A": 4, "B": 8}


def test_validation_keeps_known_parts():
    members = patients({"a": 20})
    known = {member.name: "val" if i < 2 else "train" for i, member in enumerate(members[:15])}
    chosen = draw_validation(members, 0.2, Draw(0, 0), known)
    assert {members[0].name, members[1].name} < chosen
    assert len(chosen) == 4
    assert chosen.isdisjoint(member.name for member in members[2:15])
