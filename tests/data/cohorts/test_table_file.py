"""Tests of read_table: CSV, TSV and Excel."""

import zipfile

import numpy as np
import openpyxl
import pytest

from monai_mil_ext.data.cohorts.table_file import join_tables, read_table
from tests.data.cohort_files import write_table

ROWS = [["bag", "patient", "label"], ["a b", "007", "1"], ["c", "", "2.5"]]
READ = [{"bag": "a b", "patient": "007", "label": "1"}, {"bag": "c", "patient": "", "label": "2.5"}]


@pytest.mark.parametrize(("name", "delimiter"), [("t.csv", ","), ("t.csv", ";"), ("t.tsv", "\t"), ("T.CSV", ",")])
def test_read_table_keeps_text(tmp_path, name, delimiter):
    table = read_table(write_table(tmp_path / name, ROWS, delimiter))
    assert table.columns == ROWS[0]
    assert table.rows == READ
    assert table.numbers == [2, 3]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(("line", "delimiter"), [("sep=;", ";"), ('"sep=|"', "|"), ("SEP=,", ","), ("", "\t")])
def test_read_table_reads_what_excel_writes_as_text(tmp_path, encoding, line, delimiter):
    rows = [delimiter.join(row).replace("007", "Zoë") for row in ROWS]
    text = "\r\n".join([*([line] if line else []), *rows])
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    table = read_table(tmp_path / "t.csv")
    assert (table.columns, table.rows[0]["patient"], table.rows[1]["label"]) == (ROWS[0], "Zoë", "2.5")
    assert table.numbers == ([3, 4] if line else [2, 3])


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_read_table_finds_the_delimiter_beside_a_name_with_commas(tmp_path, delimiter):
    names = ["bag", "patient", "diagnosis, of two readers"]
    table = read_table(write_table(tmp_path / "t.csv", [names, ["a", "p", "benign, nos"]], delimiter))
    assert table.rows == [dict(zip(names, ["a", "p", "benign, nos"], strict=True))]


def test_read_table_of_excel_equals_csv(tmp_path):
    book = openpyxl.Workbook()
    for row in (["bag", "patient", "label", None], ["a b", "007", 1.0, None], [None] * 4, ["c", None, 2.5, None]):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    table = read_table(tmp_path / "t.xlsx")
    assert table.columns == ROWS[0]
    assert table.rows == READ
    assert table.numbers == [2, 4]


def test_read_table_short_and_empty_rows(tmp_path):
    (tmp_path / "t.csv").write_text('a,b\n1\n\n,\n" x ,y", 2 ,\n')
    table = read_table(tmp_path / "t.csv")
    assert table.rows == [{"a": "1", "b": ""}, {"a": "x ,y", "b": "2"}]
    assert table.numbers == [2, 5]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"", "a table with column names and a row, got 0 rows in 't.csv'"),
        (b"a,b\n", "got 1 rows in 't.csv'"),
        (b"a,a\n1,2\n", r"columns must have distinct names, got \['a'\] in 't.csv'"),
        (b"a,,b\n1,2,3\n", r"columns must have distinct names, got \['a', '', 'b'\]"),
        (b"a,b\n1,2,3\n1,2\n4,5,6\n", r"at most the 2 cells of row 1, got more in \[2, 4\] of 't.csv'"),
        (b"a,b\n\xff\xfe,1\n", "a readable table in UTF-8, UTF-16 or Excel's .xlsx, got 't.csv'"),
        (b'a,b\n"1,2\n', "a readable table in UTF-8, UTF-16 or Excel's .xlsx, got 't.csv'"),
        ("a,b\n1,2\n".encode("utf-16-le"), "a readable table in UTF-8, UTF-16 or Excel's .xlsx, got 't.csv'"),
    ],
)
def test_read_table_refuses_invalid_tables(tmp_path, text, match):
    (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(ValueError, match=match):
        read_table(tmp_path / "t.csv")


def test_read_table_refuses_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a table that exists, got 'none.csv'"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "t.xlsx").write_text("no zip")
    with pytest.raises(ValueError, match=r"a readable table .*, got 't.xlsx'"):
        read_table(tmp_path / "t.xlsx")
    (tmp_path / "t.ods").touch()
    with pytest.raises(ValueError, match=r"`path` must be one of '.csv', '.tsv', '.xlsx', got '.ods'"):
        read_table(tmp_path / "t.ods")


def test_read_table_refuses_every_damaged_workbook(tmp_path):
    book = openpyxl.Workbook()
    for row in ROWS:
        book.active.append(row)
    book.save(tmp_path / "good.xlsx")
    random = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "good.xlsx") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for number in range(60):  # members are damaged before they are compressed, so that no checksum tells
        damaged = dict(members)
        name = sorted(members)[number % len(members)]
        at = int(random.integers(len(members[name])))
        damaged[name] = members[name][:at] + (b"<" if number % 2 else b"") + members[name][at + 1 + number % 7 :]
        with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as archive:
            for member, content in damaged.items():
                archive.writestr(member, content)
        try:
            read_table(tmp_path / "t.xlsx")
        except ValueError as error:
            assert "'t.xlsx'" in str(error)  # noqa: PT017


def test_read_table_passes_over_the_index_of_a_data_frame(tmp_path):
    (tmp_path / "t.csv").write_text(",bag,label\n0,a,1.0\n1,b,\n")
    table = read_table(tmp_path / "t.csv")
    assert (table.columns, table.numbers) == (["bag", "label"], [2, 3])
    assert table.rows == [{"bag": "a", "label": "1.0"}, {"bag": "b", "label": ""}]


def test_join_tables_of_patients_whose_numbers_a_data_frame_has_changed(tmp_path):
    (tmp_path / "slide.csv").write_text("FILENAME,PATIENT\na,12.0\nb,007\n")
    (tmp_path / "clini.csv").write_text("PATIENT,KRAS\n12,1\n7,0\n")
    table = join_tables([read_table(tmp_path / f"{name}.csv") for name in ("slide", "clini")], "FILENAME", "PATIENT")
    assert [row["KRAS"] for row in table.rows] == ["1", ""]


def test_read_table_reads_json(tmp_path):
    (tmp_path / "t.json").write_text('{"scans": [{"bag": "a", "label": 1.0}, {"label": true, "site": null}]}')
    rows = [{"bag": "a", "label": "1", "site": ""}, {"bag": "", "label": "True", "site": ""}]
    assert read_table(tmp_path / "t.json") == (["bag", "label", "site"], rows, [1, 2])
    (tmp_path / "t.json").write_text('{"scans": "a"}')
    with pytest.raises(ValueError, match=r"must be JSON of the form .*, got 't\.json'"):
        read_table(tmp_path / "t.json")
