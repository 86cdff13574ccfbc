import pytest

from monai_mil_ext.apps.check import CheckSettings
from monai_mil_ext.apps.check.check_settings import CheckedCase, Problem


@pytest.mark.parametrize(
    ("name", "value"),
    [("kind", "films"), ("level", "study"), ("plane", "oblique"), ("irregular", "maybe"), ("num_folds", -1)],
)
def test_other_values_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        CheckSettings(**{name: value})


def test_a_case_has_a_name_a_patient_and_paths_in_any_case():
    case = CheckedCase({}, "row 3")
    assert (case.name, case.patient, case.paths) == ("row 3", "row 3", [])
    case.add("`image` must exist.", "--root /")
    assert case.problems == [Problem("`image` must exist", "row 3", "--root /")]
