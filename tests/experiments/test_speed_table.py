"""Tests of the table of speed and memory."""

import pytest

ROW = {
    "what": "first",
    "goal": 2.0,
    "stretch": None,
    "at_most": False,
    "value": 2.5,
    "interval": None,
    "bound": None,
    "clock": None,
    "seconds": {},
    "detail": {},
    "threads": 2,
    "group": "Times",
}
TIMES = {
    "theirs": {"user": 0.5, "system": 0.25, "wall": 0.8, "spread": 0.1},
    "ours": {"user": 0.25, "system": 0.0, "wall": 0.3, "spread": 0.2},
    "bound": {"user": 0.1, "system": 0.0, "wall": 0.1, "spread": 0.9},
}


def table(*rows):
    from experiments.speed_table import benchmark_table

    return benchmark_table({"machine": "M", "versions": {"torch": "2"}, "note": "N.", "rows": rows})


def test_a_group_has_the_columns_that_it_needs():
    times = {"interval": [2.25, 2.75], "clock": "processor", "seconds": TIMES, "bound": 4.0, "load": [0.1, 1.25]}
    memory = {
        "group": "Memory",
        "what": "second",
        "detail": {"ours_kib": 1.5, "bound_kib": 1, "steps": 3},
        "threads": 1,
    }
    lines = table(ROW | times, ROW | memory, ROW | times | {"what": "third"}).splitlines()
    assert lines.pop(5).startswith("| third")  # beside the first of its group
    assert lines == [
        "### Times",
        "",
        "| what | goal | measured | interval | user | wall | note |",
        "| --- | --- | --: | --: | --: | --: | --- |",
        "| first | >= 2 | 2.50 | [2.25, 2.75] | 0.5 / 0.25 s | 0.8 / 0.3 s "
        "| system 0.25 / 0 s; spread 20 %; bound 4.00 |",
        "",
        "### Memory",
        "",
        "| what | goal | measured | note |",
        "| --- | --- | --: | --- |",
        "| second | >= 2 | 2.50 | ours 1.5 KiB; one thread |",
        "",
        "On M, 1 or 2 threads, load 0.1 to 1.2; torch 2.",
        "N.",
    ]


@pytest.mark.parametrize(
    ("value", "interval", "at_most", "cell"),
    [
        (2.1, None, False, "2.10"),
        (1.9, None, False, "**1.90, missed**"),
        (1.9, None, True, "1.90"),
        (2.1, [2.0, 2.2], False, "2.10"),
        (2.1, [1.9, 2.2], False, "2.10, open"),
        (1.9, [1.8, 2.1], False, "1.90, open"),
        (1.9, [1.8, 1.99], False, "**1.90, missed**"),
        (1.9, [1.8, 2.1], True, "1.90, open"),
        (2.2, [2.1, 2.3], True, "**2.20, missed**"),
    ],
)
def test_a_goal_is_met_by_the_whole_interval(value, interval, at_most, cell):
    assert f" 2 | {cell} |" in table(ROW | {"value": value, "interval": interval, "at_most": at_most})


def test_a_ratio_of_wall_clock_seconds_says_so():
    unknown = {side: {"user": None, "system": None, "wall": 3.0} for side in ("theirs", "ours")}
    line = table(ROW | {"clock": "wall", "seconds": unknown}).splitlines()[4]
    assert line == "| first | >= 2 | 2.50 | 3 / 3 s | wall |"


def test_rows_of_another_machine_name_it():
    lines = table(ROW, ROW | {"machine": "old", "threads": 1}, ROW).splitlines()
    notes = [line.rsplit("|", 2)[1].strip() for line in lines[4:7]]
    assert notes == ["-", "one thread; machine 2", "-"]
    assert lines[8:] == [
        "Rows without a number of a machine were measured on the first:",
        "",
        "1. M",
        "2. old",
        "",
        "With 1 or 2 threads; torch 2.",
        "N.",
    ]
