"""Tests of pseudonyms of cases."""

import pytest

from monai_mil_ext.data import pseudonymize

ITEMS = [{"case_id": "Secret_1", "image": "a"}, {"case_id": "Secret_2", "image": "b"}]


def table(folder, *rows, header="case_id,pseudonym"):
    path = folder / "names.csv"
    path.write_text("\n".join([header, *rows]))
    return path


def test_pseudonymize_replaces_case_ids_alone(tmp_path):
    names = table(tmp_path, "Secret_2,y", "Secret_1,x", "Secret_3,z")
    assert pseudonymize(ITEMS, names) == [{"case_id": "x", "image": "a"}, {"case_id": "y", "image": "b"}]
    assert pseudonymize(ITEMS) == ITEMS
    assert ITEMS[0]["case_id"] == "Secret_1"


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (["Secret_1,x"], "must have every case, got none for 1 of 2"),
        (["Secret_1,x", "Secret_2,x"], "each pseudonym once, got the same in rows 2, 3"),
        (["Secret_1,x", "Secret_1,y", "Secret_2,z"], "each case_id once, got the same in rows 2, 3"),
        (["Secret_1,../x", "Secret_2,y"], "`pseudonym` must be letters"),
        (["Secret_1,", "Secret_2,y"], "`pseudonym` must be"),
    ],
)
def test_pseudonymize_refuses_a_table_and_names_no_case(tmp_path, rows, error):
    with pytest.raises(ValueError, match=error) as raised:
        pseudonymize(ITEMS, table(tmp_path, *rows))
    assert "Secret" not in str(raised.value)


def test_pseudonymize_needs_both_columns(tmp_path):
    with pytest.raises(ValueError, match=r"columns case_id and pseudonym, got none of \['pseudonym'\]"):
        pseudonymize(ITEMS, table(tmp_path, "Secret_1,x", header="case_id,name"))
