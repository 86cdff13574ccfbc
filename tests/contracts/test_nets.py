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


def max_without_ties():
    """The weights of tests start with 0; a feature that a norm multiplies by it is the same in all instances."""
    net = nets.QGMIL(F, C, hidden_size=8, block=nets.QGMILBlock(num_heads=2, gate="none"), pooling="max")
    net.final_norm = torch.nn.RMSNorm(8, elementwise_affine=False)
    return net


GROUPED = nets.QGMILBlock(num_heads=2, num_kv_heads=1, norm="layer", gate="elementwise", ffn="mlp")
CASES = {  # name of the class, then what is special
    "ABMIL": partial(nets.ABMIL, F, C, attention_size=5),
    "ABMIL-plain": partial(nets.ABMIL, F, C, attention_size=5, gated=False),
    "ABMIL-projected": partial(nets.ABMIL, F, C, hidden_size=4, attention_size=5, num_heads=2, dropout=0.5),
    "ABMIL-per-class": partial(nets.ABMIL, F, C, hidden_size=4, attention_size=5, per_class=True),
    "ASMIL": partial(nets.ASMIL, F, C, hidden_size=4, num_tokens=3, num_heads=2),
    "ASMIL-prenorm": partial(nets.ASMIL, F, C, hidden_size=4, num_tokens=2, num_heads=2, block="prenorm", n_drop=1),
    "QGMIL": partial(nets.QGMIL, F, C, hidden_size=8, block=nets.QGMILBlock(num_heads=2)),
    "QGMIL-cls": partial(nets.QGMIL, F, C, hidden_size=8, num_layers=2, block=GROUPED, pooling="cls"),
    "QGMIL-mean": partial(nets.QGMIL, F, C, hidden_size=8, block=GROUPED, pooling="mean"),
    "QGMIL-max": max_without_ties,
    "ACMIL": partial(nets.ACMIL, F, C, hidden_size=4, attention_size=5, num_branches=3, num_top=3),
    "CORAL": lambda: nets.CORAL(nets.ABMIL(F, 1, attention_size=5), C + 1),
    "CenterPrior": partial(nets.CenterPrior, F, C),
    "InstanceConvMIL": partial(nets.InstanceConvMIL, F, C, kernel_size=4),
    "InstanceMaxMIL": partial(nets.InstanceMaxMIL, F, C),
    "MaxMIL": partial(nets.MaxMIL, F, C),
    "MeanMIL": partial(nets.MeanMIL, F, C),
    "SequenceTransMIL": partial(nets.SequenceTransMIL, F, C, num_heads=2),
    "SmAP": partial(nets.SmAP, F, C, attention_size=5),
    "SmAP-mid": partial(nets.SmAP, F, C, attention_size=5, place="mid"),
    "SmAP-late": partial(nets.SmAP, F, C, attention_size=5, place="late"),
    "SmTP": partial(nets.SmTP, F, C, num_heads=2),
    "TransMIL": partial(nets.TransMIL, F, C, hidden_size=8, num_heads=2),
    "WindowMIL": partial(nets.WindowMIL, F, C, half_width=1.0, reach=3),
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
    apart = {"EncodedBag"}  # takes images: tests/networks/test_encoded_bag.py puts it through the same laws
    assert networks - {"BagNet"} - apart == {case.split("-")[0] for case in CASES}
