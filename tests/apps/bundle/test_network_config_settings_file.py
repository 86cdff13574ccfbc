"""Tests of reading settings and their defaults."""

import pytest

from monai_mil_ext.apps.bundle import read_json
from monai_mil_ext.utils import write_json


def test_read_json_prefers_the_file_to_defaults(tmp_path):
    write_json(tmp_path / "s.json", {"in_features": 12, "class_names": ["a", "b"]})
    settings = read_json(tmp_path / "s.json", in_features=1024, num_classes=2)
    assert settings == {"in_features": 12, "num_classes": 2, "class_names": ["a", "b"]}


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_read_json_rejects_a_file_that_is_not_json(tmp_path, text):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ValueError, match="`path` must be a JSON file of settings, got 's"):
        read_json(tmp_path / "s.json")
