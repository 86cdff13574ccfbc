"""Tests of ModelIdentity and of the codes of classes."""

import pytest

from monai_mil_ext.data.scans.results.model_identity import ModelIdentity, class_code


def test_model_identity_states_what_is_known():
    known = ModelIdentity.of({"name": "tumor", "version": 2, "sha256": "ab"}, "as in the training", ["no", "yes"])
    assert known.parameters() == {"model": "as in the training", "weights SHA-256": "ab", "classes": "no, yes"}
    items = [(item.name.meaning, getattr(item, "TextValue", "")) for item in known.for_report()]
    assert ("Algorithm Version", "2") in items
    assert ("Algorithm Parameters", "weights SHA-256: ab") in items
    (segment,) = known.for_segment()
    assert (segment.AlgorithmName, segment.AlgorithmSource) == ("tumor", "monai_mil_ext")
    assert segment.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"


@pytest.mark.parametrize("model", [{}, {"name": None, "version": None, "sha256": None}])
def test_model_identity_does_without_a_record(model):
    unknown = ModelIdentity.of(model)
    assert (unknown.name, unknown.version, unknown.parameters()) == ("monai_mil_ext", "1", {})
    assert len(unknown.for_report()) == 4  # name, version, manufacturer and family
    assert "AlgorithmParameters" not in unknown.for_segment()[0]


def test_model_identity_fits_the_longest_value():
    assert len(ModelIdentity.of({"name": "n" * 80}).name) == 64
    code = class_code("c" * 80)
    assert (len(code.value), len(code.meaning), code.scheme_designator) == (16, 64, "99MONAIMIL")
    assert class_code("c" * 81).value != code.value
