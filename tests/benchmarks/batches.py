"""Training steps on a padded batch of bags, and iterations of a trainer with handlers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from unittest import mock

import torch
from monai.engines import SupervisedTrainer
from torch import Tensor
from torch.nn import functional

from monai_mil_ext.handlers import AttentionAnchorHandler, AttentionPriorHandler
from monai_mil_ext.losses import NormalGuidanceLoss, NSFKLLoss
from monai_mil_ext.networks import nets
from monai_mil_ext.networks.nets.transformers import qgmil
from tests.benchmarks.baselines import adamw

__all__ = ["padded_bags", "with_handlers"]


def padded_bags(largest: int = 8000, count: int = 8) -> dict[str, Callable[[], None]]:
    """Return training steps of QG-MIL on bags of log-uniform sizes from a sixteenth of ``largest`` to ``largest``.

    ``padded`` computes padding and masks it, ``ours`` skips it, ``single`` processes one bag after the other.
    """
    sizes = torch.tensor([largest / 16 * 16 ** (i / (count - 1)) for i in range(count)]).round().long()
    mask = torch.arange(int(sizes.max())) < sizes.unsqueeze(1)
    x = torch.randn(*mask.shape, 1024)
    bags = [x[i : i + 1, :n].clone() for i, n in enumerate(sizes.tolist())]
    net = nets.QGMIL.from_preset("qgmil_base", 1024, 1).train()
    optimizer = adamw(net.parameters())

    def backward(bag: Tensor, mask: Tensor | None, weight: float = 1.0) -> None:
        logits = net(bag, mask)
        (weight * functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))).backward()

    def ours() -> None:
        optimizer.zero_grad()
        backward(x, mask)
        optimizer.step()

    def padded() -> None:
        with mock.patch.object(qgmil, "packed_layout", return_value=None):
            ours()

    def single() -> None:
        optimizer.zero_grad()
        for bag in bags:
            backward(bag, None, 1 / count)
        optimizer.step()

    return {"padded": padded, "ours": ours, "single": single}


def with_handlers(instances: int = 10_000, iterations: int = 5) -> dict[str, Callable[[], None]]:
    """Return runs of a few iterations of MONAI's trainer on ABMIL: ``plain``, and with Normal Guidance and an anchor.

    The latter is ``terms``, or ``short`` with the scores of the anchor in bfloat16. ``least`` is the plain trainer with
    an additional forward pass per step, a lower bound for an anchor in full precision.
    """
    batch = {"image": torch.randn(1, instances, 1024), "label": torch.ones(1, dtype=torch.long)}

    def run(*handlers: object, extra_forward: bool = False) -> Callable[[], None]:
        net = nets.ABMIL(1024, 2, hidden_size=512)
        twin = copy.deepcopy(net)
        trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=1,
            train_data_loader=[batch] * iterations,
            network=net,
            optimizer=adamw(net.parameters()),
            loss_function=torch.nn.CrossEntropyLoss(),
            train_handlers=handlers,
        )

        def epoch() -> None:
            trainer.state.epoch = 0
            trainer.state.iteration = 0
            trainer.run()
            with torch.no_grad():
                for _ in range(iterations if extra_forward else 0):
                    twin(batch["image"])

        return epoch

    def terms(anchor_dtype: torch.dtype | None) -> Callable[[], None]:
        return run(
            AttentionPriorHandler(NormalGuidanceLoss()), AttentionAnchorHandler(NSFKLLoss(), anchor_dtype=anchor_dtype)
        )

    return {"plain": run(), "terms": terms(None), "short": terms(torch.bfloat16), "least": run(extra_forward=True)}
