"""Every network keeps every law of ``laws.py``. A new network joins by one line in ``CASES``."""

import inspect
from functools import partial

import pytest
import torch
from hypothesis import given

from monai_mil_ext.networks import nets
from tests.contracts.laws import CHEAP, DEAR, NUM_CLASSES, claimed
from tests.helpers import bags

F, C = 6, NUM_CLASSES
CASES = {  # name of the class, then what is special
    "ABMIL": partial(nets.ABMIL, F, C, attention_size=5),
    "ABMIL-plain": partial(nets.ABMIL, F, C, attention_size=5, gated=False),
    "ABMIL-projected": partial(nets.ABMIL, F, C, hidden_size=4, attention_size=5, num_heads=2, dropout=0.5),
}
every_net = pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
X = torch.linspace(-2, 2, 2 * 5 * F, dtype=torch.float64).sin().view(2, 5, F)
MASK = torch.tensor([[True, True, True, True, True], [True, True, True, False, False]])


def named(functions):
    return pytest.mark.parametrize("law", functions, ids=lambda law: law.__name__)


@named(CHEAP)
@every_net
@given(batch=bags(F, dtype=torch.float64))
def test_law(law, make, batch):
    if claimed(law, make):
        law(make, *batch)


@named(DEAR)
@every_net
def test_law_on_one_batch(law, make):
    if claimed(law, make):
        law(make, X, MASK)


def test_every_public_net_has_a_case():
    public = {name: getattr(nets, name) for name in nets.__all__}
    networks = {name for name, net in public.items() if inspect.isclass(net) and issubclass(net, nets.BagNet)}
    assert networks - {"BagNet"} == {case.split("-")[0] for case in CASES}
