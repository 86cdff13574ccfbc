"""Tests of the configs of studies."""

from pathlib import Path

import pytest
from monai.bundle import ConfigParser

ROOT = Path(__file__).parents[2] / "bundles"


@pytest.mark.parametrize("bundle", ["bag_classifier", "scan_mil", "wsi_mil"])
def test_a_column_that_a_message_asks_for_can_be_named(bundle, tmp_path):
    table = tmp_path / "cohort.csv"
    table.write_text("case_id,who,image,label\n" + "".join(f"c{i},p{i},c{i}.h5,{i % 2}\n" for i in range(6)))
    parser = ConfigParser()
    parser.read_config(ROOT / bundle / "configs" / "study.yaml")
    parser.update({"table": str(table), "columns#patient": "who"})
    assert parser.get_parsed_content("cohort_columns").patient == "who"
