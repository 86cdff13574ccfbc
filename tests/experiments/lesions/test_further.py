"""Tests of the results that are made of kept answers."""

import json
from dataclasses import replace

import pytest

from tests.experiments.lesions.rows import slice_rows, value_rows


@pytest.fixture
def protocol():
    from experiments.lesions.settings import read_protocol

    return replace(read_protocol(), seeds=(1, 2))


def test_pairs_of_all_cohorts_and_tests_are_written(protocol, tmp_path):
    from experiments.lesions.further import write_pairs
    from experiments.lesions.pairs import PAIRS

    rows = {name: {seed: value_rows(seed) for seed in protocol.seeds} for name in protocol.methods}
    write_pairs(lambda cohort, test: rows, protocol, tmp_path, num_samples=5)
    result = json.loads((tmp_path / "lesions_kernel.json").read_text())
    assert len(result["rows"]) == 2 * 4 * len(PAIRS["kernel"])
    assert result["rows"][0]["name"] == "trained on 1 lesion, 1 lesion: ABMIL + KG - ABMIL + NG"
    assert result["command"].endswith("--stage tables")
    assert (tmp_path / "lesions_chain.json").exists()


def test_sets_are_written_for_the_same_and_for_other_scans(protocol, tmp_path):
    from experiments.lesions.further import write_sets
    from experiments.lesions.sets import METHODS

    lifts = dict(zip(METHODS, range(len(METHODS)), strict=True))
    write_sets(
        lambda cohort, test: {m: slice_rows(k) for m, k in lifts.items()}, protocol, tmp_path, splits=5, num_samples=5
    )
    result, shift = (json.loads((tmp_path / f"lesions_sets{of}.json").read_text()) for of in ("", "_shift"))
    assert [row["name"] for row in result["rows"]] == list(METHODS)
    assert "of 40 scans with a lesion of 2 seeds" in result["note"]
    assert shift["rows"][0]["name"] == "2 lesions: center"
    assert len(shift["rows"]) == 3 * len(METHODS)
