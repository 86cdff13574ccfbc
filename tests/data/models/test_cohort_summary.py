"""Tests of the summary of a cohort."""

import json

from monai_mil_ext.data import file_sha256, summarize_cohort


def test_summarize_cohort_counts_and_keeps_no_case(tmp_path):
    (tmp_path / "cohort.csv").write_text("case_id\n")
    items = [{"case_id": f"s{i}", "patient": f"p{i // 2}", "label": i % 3} for i in range(6)]
    summary = summarize_cohort(items, tmp_path / "cohort.csv", fold=1, num_folds=5, seed=7)
    assert summary["cases"] == 6
    assert summary["patients"] == 3
    assert summary["classes"] == {"0": 2, "1": 2, "2": 2}
    assert summary["table_sha256"] == file_sha256(tmp_path / "cohort.csv")
    assert "s1" not in json.dumps(summary)
