"""Networks as inductor compiles them; `aot_eager` traces every case, in test_nets.py.

A compilation takes half a minute of a core: `scripts/check slow` has one a class, CI those with parts of their own.
"""

import os

import pytest
from torch import nn

from tests.contracts.full_laws import it_runs_as_machine_code
from tests.contracts.test_nets import CASES, MASK, X


class Passes(nn.Module):
    """In place of Nystrom attention, whose pseudo-inverses alone take a minute to compile."""

    def forward(self, h, counts):
        return h.tanh()

    def first_scores(self, h):
        return h[..., :2]


def trans_mil_on_squares():
    net = CASES["TransMIL"]()
    net.attend1, net.attend2 = Passes(), Passes()
    return net


ALL = {name.split("-")[0]: make for name, make in reversed(CASES.items())}  # the first case of each class
IN_CI = ("ABMIL", "ACMIL", "ASMIL", "CenterPrior", "InstanceMaxMIL", "MaxMIL", "MeanMIL", "QGMIL", "SmAP")
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
CHOSEN = ALL if NIGHTLY else {name: ALL[name] for name in IN_CI} | {"TransMIL-squares": trans_mil_on_squares}


@pytest.mark.slow
@pytest.mark.parametrize("make", CHOSEN.values(), ids=CHOSEN)
def test_it_runs_as_machine_code(make):
    it_runs_as_machine_code(make, X, MASK)
