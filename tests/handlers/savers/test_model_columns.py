"""Tests of the columns of a model."""

import pytest

from monai_mil_ext.handlers.savers.model_columns import model_columns, short_hash


def test_model_columns_of_weights_without_a_record():
    columns = model_columns({"name": None, "version": None, "sha256": "ab" * 32, "trained_on": "unknown"})
    assert columns == {"model": "", "model_version": "", "model_sha256": "ab" * 6, "trained_on": "unknown"}
    assert model_columns(None) == {}


@pytest.mark.parametrize(
    ("sha256", "text"), [("ab" * 32, "ab" * 6), (["ab" * 32, "cd" * 32], "ab" * 6 + " " + "cd" * 6), (None, "")]
)
def test_short_hash_of_one_file_of_several_and_of_none(sha256, text):
    assert short_hash(sha256) == text
