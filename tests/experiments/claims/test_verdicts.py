"""Tests of the rule of the verdicts."""

import pytest


@pytest.mark.parametrize(
    ("sign", "interval", "seeds", "expected"),
    [
        (1, (0.001, 0.1), 3, "reproduced"),
        (1, (-0.1, -0.001), 3, "contradicted"),
        (1, (-0.001, 0.1), 3, "no difference seen"),
        (-1, (-0.1, -0.001), 3, "reproduced"),
        (-1, (0.001, 0.1), 3, "contradicted"),
        (0, (-0.019, 0.1), 3, "reproduced"),
        (0, (-0.05, 0.1), 3, "undecided"),
        (0, (-0.05, -0.001), 3, "contradicted"),
        (1, (0.001, 0.1), 2, "not run"),
        (1, None, 3, "not run"),
    ],
)
def test_the_interval_decides(sign, interval, seeds, expected):
    from experiments.claims.verdicts import verdict

    assert verdict(sign, interval, seeds) == expected
