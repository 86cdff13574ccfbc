"""Steps that are more than one bag: a padded batch of bags, and a trainer with its handlers."""

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

__all__ = ["padded_bags", "with_handlers"]


def padded_bags(largest: int = 8000, count: int = 8) -> dict[str, Callable[[], None]]:
    """A training step of QG-MIL on bags from a sixteenth of ``largest`` upwards, evenly spread over the logarithm.

    ``padded`` computes padding and masks it, ``ours`` leaves it out, ``single`` takes one bag after the other.
    """
    sizes = torch.tensor([largest / 16 * 16 ** (i / (count - 1)) for i in range(count)]).round().long()
    mask = torch.arange(int(sizes.max())) < sizes.unsqueeze(1)
    x = torch.randn(*mask.shape, 1024)
    bags = [x[i : i + 1, :n].clone() for i, n in enumerate(sizes.tolist())]
    net = nets.QGMIL.from_preset("qgmil_base", 1024, 1).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5)

    def backward(bag: Tensor, real: Tensor | None, share: float = 1.0) -> None:
        logits = net(bag, real)
        (share * functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))).backward()

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
    """A few iterations of MONAI's trainer on ABMIL, ``plain`` and with Normal Guidance and an anchor (``terms``).

    ``short`` is the same with the anchor's scores in bfloat16, ``least`` the plain trainer with one more forward a
    step: an anchor in full precision takes no less.
    """
    batch = {"image": torch.randn(1, instances, 1024), "label": torch.ones(1, dtype=torch.long)}

    def run(*handlers: object, more: bool = False) -> Callable[[], None]:
        net = nets.ABMIL(1024, 2, hidden_size=512)
        twin = copy.deepcopy(net)
        trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=1,
            train_data_loader=[batch] * iterations,
            network=net,
            optimizer=torch.optim.AdamW(net.parameters(), lr=1e-5),
            loss_function=torch.nn.CrossEntropyLoss(),
            train_handlers=handlers,
        )

        def epoch() -> None:
            trainer.state.epoch = 0
            trainer.state.iteration = 0
            trainer.run()
            with torch.no_grad():
                for _ in range(iterations if more else 0):
                    twin(batch["image"])

        return epoch

    def terms(anchor_dtype: torch.dtype | None) -> Callable[[], None]:
        return run(
            AttentionPriorHandler(NormalGuidanceLoss()), AttentionAnchorHandler(NSFKLLoss(), anchor_dtype=anchor_dtype)
        )

    return {"plain": run(), "terms": terms(None), "short": terms(torch.bfloat16), "least": run(more=True)}
