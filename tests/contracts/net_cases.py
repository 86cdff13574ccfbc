"""Small networks, one per class and special case, and a batch for laws. A new network adds a line to ``CASES``."""

from functools import partial

import pytest
import torch

from monai_mil_ext.networks import nets
from tests.contracts.laws import NUM_CLASSES

F, C = 6, NUM_CLASSES


def max_without_ties():
    """Return QG-MIL with max pooling and a norm without weights: the first weight of tests is 0 and would give ties."""
    net = nets.QGMIL(F, C, hidden_size=8, block=nets.QGMILBlock(num_heads=2, gate="none"), pooling="max")
    net.final_norm = torch.nn.RMSNorm(8, elementwise_affine=False)
    return net


def standardized():
    """Return a network with statistics that change every feature and the logits."""
    net = nets.StandardizedNet(nets.ABMIL(F, C, attention_size=5), F)
    return net.set_statistics(torch.arange(F) - 1.5, torch.arange(F) / 4 + 0.5, output_mean=0.25, output_scale=1.5)


def additive_without_kinks(centered=False):
    """Return additive MIL without the activations at 0 that weights and biases of 0 give, where they have no slope."""
    net = nets.AdditiveMIL(F, C, hidden_size=4, centered=centered)
    for layer in net.score_layers:
        layer.norm = torch.nn.LayerNorm(4, elementwise_affine=False)
    net.classify[1] = net.classify[3] = torch.nn.Softplus()
    return net


def two_sources(normalize=False):
    """Return a network for two sources; the index of the source is the nearest to the last feature."""
    return nets.SourceNet(nets.ABMIL(4, C, attention_size=5), {"10x": F - 1, "20x": 3}, 4, normalize)


GROUPED = nets.QGMILBlock(num_heads=2, num_kv_heads=1, norm="layer", gate="elementwise", ffn="mlp")
CASES = {  # name of the class, and after a hyphen the special case
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
    "ACMIL": partial(nets.ACMIL, F, C, hidden_size=4, attention_size=5, num_branches=3, num_instances=3),
    "AdditiveMIL": additive_without_kinks,
    "AdditiveMIL-centered": partial(additive_without_kinks, centered=True),
    "DSMIL": partial(nets.DSMIL, F, C, query_size=4),
    "DSMIL-mean": partial(nets.DSMIL, F, C, nonlinear_query=False, value_layer=True, combine="mean_logit"),
    "DTFDMIL": partial(nets.DTFDMIL, F, C, hidden_size=4, num_groups=2, detach=False, split="position"),
    "DTFDMIL-max-min": partial(nets.DTFDMIL, F, C, hidden_size=4, num_groups=2, distill="MaxMinS", detach=False),
    "DTFDMIL-unique": partial(nets.DTFDMIL, F, C, 4, num_groups=2, distill="MaxMinS", detach=False, unique=True),
    "CLAM": partial(nets.CLAM, F, C, hidden_size=4, attention_size=5, num_instances=2),
    "CLAM-multi-branch": partial(nets.CLAM, F, C, hidden_size=4, attention_size=5, multi_branch=True, gated=False),
    "CORAL": lambda: nets.CORAL(nets.ABMIL(F, 1, attention_size=5), C + 1),
    "CenterPrior": partial(nets.CenterPrior, F, C),
    "BagEnsemble": lambda: nets.BagEnsemble([nets.ABMIL(F, C, attention_size=5), nets.SmAP(F, C, attention_size=5)]),
    "BagEnsemble-multilabel": lambda: nets.BagEnsemble([nets.MeanMIL(F, C), nets.ABMIL(F, C)], "multilabel"),
    "BagEnsemble-ordinal": lambda: nets.BagEnsemble([nets.ABMIL(F, C), nets.ABMIL(F, C, num_heads=2)], "ordinal"),
    "BagEnsemble-survival": lambda: nets.BagEnsemble([nets.MaxMIL(F, C), nets.ABMIL(F, C)], "survival"),
    "BagEnsemble-regression": lambda: nets.BagEnsemble([nets.MeanMIL(F, C), nets.ABMIL(F, C)], "regression"),
    "InstanceConvMIL": partial(nets.InstanceConvMIL, F, C, kernel_size=4),
    "InstanceMaxMIL": partial(nets.InstanceMaxMIL, F, C),
    "MarkovMIL": partial(nets.MarkovMIL, F, C),
    "MaxMIL": partial(nets.MaxMIL, F, C),
    "MeanMIL": partial(nets.MeanMIL, F, C),
    "RecurrentMIL": partial(nets.RecurrentMIL, F, C, hidden_size=4),
    "RecurrentMIL-lstm": partial(nets.RecurrentMIL, F, C, hidden_size=4, cell="lstm", num_layers=2, differences=False),
    "RebinnedSurvivalNet": lambda: nets.RebinnedSurvivalNet(nets.ABMIL(F, C, attention_size=5), [2, 4], [1, 4]),
    "SequenceTransMIL": partial(nets.SequenceTransMIL, F, C, num_heads=2),
    "SmAP": partial(nets.SmAP, F, C, attention_size=5),
    "SmAP-mid": partial(nets.SmAP, F, C, attention_size=5, place="mid"),
    "SmAP-late": partial(nets.SmAP, F, C, attention_size=5, place="late"),
    "SmTP": partial(nets.SmTP, F, C, num_heads=2),
    "SourceNet": two_sources,
    "SourceNet-normalized": partial(two_sources, normalize=True),
    "StandardizedNet": standardized,
    "TransMIL": partial(nets.TransMIL, F, C, hidden_size=8, num_heads=2),
    "WindowMIL": partial(nets.WindowMIL, F, C, half_width=1.0, reach=3),
}
every_net = pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
SLOW_TO_COMPILE = CASES.keys() - {"ABMIL", "CORAL", "InstanceConvMIL", "MeanMIL"}
SLOW_TO_DIFFERENTIATE = {"QGMIL-cls", "RecurrentMIL", "RecurrentMIL-lstm", "TransMIL"}


def every_net_with_slow(names, buys):
    """Parametrize a test by all networks, of which some are marked slow."""
    slow = pytest.mark.slow(buys=buys)
    params = [pytest.param(make, id=name, marks=slow if name in names else []) for name, make in CASES.items()]
    return pytest.mark.parametrize("make", params)


X = torch.linspace(-2, 2, 2 * 5 * F, dtype=torch.float64).sin().view(2, 5, F)
MASK = torch.tensor([[True, True, True, True, True], [True, True, True, False, False]])
