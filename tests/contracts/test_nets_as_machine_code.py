"""Networks as inductor compiles them: one case of each class whose parts no other class has.

`aot_eager` traces every case, in test_nets.py; a compilation takes half a minute of a core, too much for all of them.
"""

import pytest
from torch import nn

from tests.contracts.full_laws import it_runs_as_machine_code
from tests.contracts.test_nets import CASES, MASK, X

MADE_OF_OTHERS = {"CORAL", "SmTP"}  # around ABMIL; SequenceTransMIL with the smoother of SmAP


class Passes(nn.Module):
    """In place of Nystrom attention, whose pseudo-inverses alone take a minute to compile."""

    def forward(self, h, counts):
        return h.tanh()

    def first_scores(self, h):
        return h[..., :2]


def trans_mil():
    net = CASES["TransMIL"]()
    net.attend1, net.attend2 = Passes(), Passes()
    return net


CLASSES = {name.split("-")[0]: make for name, make in reversed(CASES.items())} | {"TransMIL": trans_mil}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CLASSES.keys() - MADE_OF_OTHERS))
def test_it_runs_as_machine_code(name):
    it_runs_as_machine_code(CLASSES[name], X, MASK)
