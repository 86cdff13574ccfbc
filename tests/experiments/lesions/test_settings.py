"""Tests of the protocol of the benchmark: what it holds fixed."""

import pytest


@pytest.fixture
def protocol():
    from experiments.lesions.settings import read_protocol

    return read_protocol()


def test_tests_show_heads_that_no_cohort_shows(protocol):
    for seed in (*protocol.seeds, protocol.quick_seed):
        learned = {(s.anatomy, s.seed, s.index) for name in protocol.cohorts for s in protocol.cohort(name, seed)}
        for name in protocol.tests:
            tested = {(s.anatomy, s.seed, s.index) for s in protocol.test(name, seed)}
            assert not learned & tested


def test_a_hundred_scans_with_lesions_are_tested_on_each_set(protocol):
    for name, options in protocol.tests.items():
        scans = [scan for seed in protocol.seeds for scan in protocol.test(name, seed)]
        numbers = [scan.num_lesions for scan in scans if scan.num_lesions]
        assert len(numbers) >= 100
        assert set(numbers) == {options["lesions"]}
        assert len(numbers) == len(scans) / 2


def test_the_quickstart_has_a_seed_of_its_own_and_known_methods(protocol):
    assert protocol.quick_seed not in protocol.seeds
    assert set(protocol.quick_methods) <= set(protocol.methods)


def test_the_demo_is_as_difficult_as_the_benchmark(protocol):
    from monai_mil_ext.data import LesionOptions

    assert protocol.drawing == LesionOptions()


def test_only_the_reference_uses_labels_of_slices(protocol):
    assert [name for name, spec in protocol.methods.items() if spec.get("slice_labels")] == ["slice-supervised"]
