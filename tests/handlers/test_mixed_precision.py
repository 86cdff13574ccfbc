"""Tests of mixed precision on a CPU: what MONAI's option does, and training in bfloat16 by the inferer."""

import copy

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.handlers import AttentionAnchorHandler, AttentionPriorHandler, GradientClipHandler
from monai_mil_ext.inferers import BagInferer
from monai_mil_ext.losses import NormalGuidanceLoss, NSFKLLoss
from monai_mil_ext.networks.nets import ABMIL, ASMIL, QGMIL
from tests.handlers.training import CLASSES, F, bag_batches, gradients, make_trainer
from tests.helpers import fill

NETS = {
    "ABMIL": lambda: ABMIL(F, CLASSES, hidden_size=8),
    "ASMIL": lambda: ASMIL(F, CLASSES, hidden_size=8, num_tokens=2, num_heads=2),
    "QGMIL": lambda: QGMIL(F, CLASSES, hidden_size=16),
}


def trained(net, count=1, handlers=(), **options):
    """Return a network after a run, and the trainer."""
    net = copy.deepcopy(net)
    trainer = make_trainer(net, bag_batches(count), *(handler(net) for handler in handlers), **options)
    torch.manual_seed(1)
    trainer.run()
    return net, trainer


@pytest.fixture(params=NETS.values(), ids=NETS)
def net(request):
    return fill(request.param())


@pytest.mark.filterwarnings("ignore:.*CUDA is not available", "ignore:.*GradScaler.*is deprecated")
def test_amp_of_monai_does_nothing_on_a_cpu(net):
    """If this fails, MONAI has learned it: the documentation of BagInferer can then recommend ``amp=True``."""
    assert_close(trained(net, amp=True)[0].state_dict(), trained(net)[0].state_dict(), rtol=0, atol=0)


def test_amp_dtype_of_the_inferer_trains_in_bfloat16_on_a_cpu(net):
    dtypes = []
    net.score_tap.register_forward_hook(lambda _module, _args, scores: dtypes.append(scores.dtype))
    half, trainer = trained(net, inferer=BagInferer(amp_dtype=torch.bfloat16), decollate=False)
    plain, exact = trained(net, inferer=BagInferer(), decollate=False)
    assert dtypes == [torch.bfloat16, torch.float32]
    assert trainer.state.output["pred"].dtype == trainer.state.output["loss"].dtype == torch.float32
    assert not torch.equal(trainer.state.output["pred"], exact.state.output["pred"])
    assert_close(trainer.state.output["pred"], exact.state.output["pred"], rtol=0.05, atol=0.02)
    for name, gradient in gradients(half).items():
        expected = gradients(plain)[name]
        assert gradient.dtype == torch.float32
        assert_close(gradient, expected, rtol=0, atol=0.1 * expected.abs().max().item() + 1e-3)
    assert any(not torch.equal(g, gradients(plain)[name]) for name, g in gradients(half).items())


def test_amp_dtype_of_the_inferer_works_with_the_terms(net):
    """Terms are computed in float32 from the scores in bfloat16, and the anchor runs in bfloat16 as well."""
    handlers = [
        lambda _: AttentionPriorHandler(NormalGuidanceLoss()),
        lambda _: AttentionAnchorHandler(NSFKLLoss(), beta=0.1, anchor_dtype=torch.bfloat16),
        lambda net: GradientClipHandler(net, 1.0),
    ]
    half, trainer = trained(net, 4, handlers, inferer=BagInferer(amp_dtype=torch.bfloat16), decollate=False)
    _, exact = trained(net, 4, handlers[:1] + handlers[2:], inferer=BagInferer(), decollate=False)
    assert all(trainer.state.output[name].dtype == torch.float32 for name in ("attention_prior", "attention_anchor"))
    assert trainer.state.metrics["attention_prior"] != exact.state.metrics["attention_prior"]
    assert trainer.state.metrics["attention_prior"] == pytest.approx(exact.state.metrics["attention_prior"], abs=0.05)
    assert all(p.isfinite().all() for p in half.parameters())
