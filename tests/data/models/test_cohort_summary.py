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


def test_summarize_cohort_hashes_several_tables(tmp_path):
    tables = [tmp_path / "slide.csv", tmp_path / "clini.csv"]
    tables[0].write_text("FILENAME,PATIENT\n")
    item = {"case_id": "a", "patient": "p"}
    assert summarize_cohort([item], tables)["table_sha256"] is None
    tables[1].write_text("PATIENT,label\n")
    both = summarize_cohort([item], [str(table) for table in tables])["table_sha256"]
    assert both != summarize_cohort([item], tables[::-1])["table_sha256"]
    assert summarize_cohort([item], tables[:1]) == summarize_cohort([item], tables[0])
