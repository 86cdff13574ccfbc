"""Tests of the table of profiles."""

import pytest

ROW = {
    "what": "a step",
    "over": "published",
    "under": "ours",
    "ours": "ours",
    "goal": 2.0,
    "compared": "ratio",
    "at_most": False,
    "sides": {"published": {"products": 0.004, "pages": 0.008}, "ours": {"products": 0.005, "pages": 0.002}},
    "least": 0.004,
    "gflops": 100.0,
    "machine": "M",
    "load": [0.5, 1.0],
}


def said(**changes):
    from experiments.profile_table import sentence

    return sentence(ROW | changes)


def test_a_row_has_a_line_for_each_side():
    from experiments.profile_table import profile_table

    lines = profile_table({"rows": [ROW], "note": "N.", "unmeasured": []}).splitlines()
    assert lines == [
        "| row | side, ms | all | products | pages | least |",
        "| --- | --- | --: | --: | --: | --: |",
        "| a step | published | 12.0 | 4.00 | 8.00 | 4.00 |",
        "|  | ours | 7.00 | 5.00 | 2.00 | 4.00 |",
        "",
        f"- a step: {said()}",
        "",
        "On M, load 0.5 to 1.0, 100 to 100 GFLOP/s.",
        "N.",
    ]


def test_rows_of_two_machines_name_theirs():
    from experiments.profile_table import profile_table

    text = profile_table(
        {"rows": [ROW, ROW | {"what": "another", "machine": "P", "load": [2.0, 3.0]}], "note": "N.", "unmeasured": []}
    )
    assert "a step: measured on M, load 0.5 to 1.0, 100 to 100 GFLOP/s.\nanother: measured on P, load 2.0" in text


def test_rows_that_were_not_measured_are_named():
    from experiments.profile_table import profile_table

    text = profile_table({"rows": [ROW], "note": "N.", "unmeasured": ["an epoch", "a bag"]})
    assert text.endswith("GFLOP/s.\nNot measured yet: an epoch; a bag.\nN.\n")


def test_a_missed_goal_tells_what_would_have_to_go():
    assert said() == (
        "the goal allows 6.00 ms, and ours takes 7.00 ms, 4.00 ms of it products that both sides need; "
        "1.00 ms of the other 3.00 ms would have to go, and most beyond the other side is products of layers, 1.00 ms."
    )


def test_a_part_that_takes_less_than_the_other_side_is_not_blamed():
    sides = {"published": {"products": 0.006, "pages": 0.003}, "ours": {"products": 0.005, "pages": 0.002}}
    assert said(sides=sides).endswith("and no part takes more than that of the other side.")


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"goal": 1.2}, 10.0),
        ({"goal": 1.05, "at_most": True, "ours": "published"}, 7.35),
        ({"goal": 0.001, "compared": "beyond", "ours": "published"}, 8.0),
        ({"goal": 0.0065, "compared": "alone"}, 6.5),
    ],
)
def test_goals_of_each_kind_allow_their_seconds(changes, allowed):
    digits = 1 if allowed >= 10 else 2
    assert said(**changes).startswith(f"the goal allows {allowed:.{digits}f} ms, and ours takes ")


def test_a_goal_that_is_reached_or_out_of_reach_is_told():
    assert said(goal=1.5).endswith(
        "ours takes 7.00 ms here, so it is reached on this machine; "
        "most of the difference is the creation of pages, 6.00 ms less."
    )
    assert said(least=0.0065).endswith(
        "its products alone take 6.50 ms at the measured rate, so no implementation reaches it."
    )
