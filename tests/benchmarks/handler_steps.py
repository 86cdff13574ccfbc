"""Cost of a trainer's handlers beyond the arithmetic of their terms: epochs of a trainer and of a loop by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from statistics import median

import torch
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from monai_mil_ext.handlers import AttentionAnchorHandler, AttentionPriorHandler
from monai_mil_ext.losses import NormalGuidanceLoss, NSFKLLoss
from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.networks.nets import ABMIL
from tests.benchmarks.measure import Measurement, median_interval, take_turns

__all__ = ["beyond_arithmetic", "epochs"]

Batch = dict[str, Tensor]


def beyond_arithmetic(steps: int = 100, turns: int = 25) -> Measurement:
    """Measure the milliseconds of the processor that Normal Guidance and an anchor cost a step of MONAI's trainer.

    The value leaves out what the same terms cost in a loop by hand, which logs nothing.
    """
    spent = take_turns(epochs(steps), turns)
    ms = {name: [1e3 * seconds.processor / steps for seconds in of] for name, of in spent.items()}
    sides = zip(ms["trainer_both"], ms["trainer"], ms["loop_both"], ms["loop"], strict=True)
    beyond = [both - plain - (loop_both - loop) for both, plain, loop_both, loop in sides]
    detail = {f"{name}_ms": round(median(values), 3) for name, values in ms.items()}
    return Measurement(median(beyond), interval=median_interval(beyond), turns=turns, detail=detail)


def epochs(steps: int) -> Mapping[str, Callable[[], object]]:
    """Return epochs on a bag of 30 instances with 768 features, by a trainer and by hand, without and with terms."""
    batch = {"image": torch.randn(1, 30, 768), "label": torch.ones(1, dtype=torch.long)}
    return {
        "loop": _loop(batch, steps, terms=False),
        "loop_both": _loop(batch, steps, terms=True),
        "trainer": _trainer(batch, steps),
        "trainer_both": _trainer(
            batch, steps, AttentionPriorHandler(NormalGuidanceLoss()), AttentionAnchorHandler(NSFKLLoss())
        ),
    }


def _network() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = ABMIL(768, 2).train()
    return network, torch.optim.AdamW(network.parameters(), lr=1e-5)


def _trainer(batch: Batch, steps: int, *handlers: object) -> Callable[[], object]:
    network, optimizer = _network()
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[batch] * steps,
        network=network,
        optimizer=optimizer,
        loss_function=nn.CrossEntropyLoss(),
        train_handlers=handlers,
        decollate=False,
    )

    def epoch() -> None:
        trainer.state.epoch = trainer.state.iteration = 0
        trainer.run()

    return epoch


def _loop(batch: Batch, steps: int, terms: bool) -> Callable[[], object]:
    """Return an epoch by hand; with terms, as the published codes compute them, inside of the loop."""
    network, optimizer = _network()
    anchor = copy.deepcopy(network).eval().requires_grad_(False)
    criterion, guidance, anchored = nn.CrossEntropyLoss(), NormalGuidanceLoss(), NSFKLLoss()
    scores: dict[str, Tensor] = {}
    weights, averages = list(network.parameters()), list(anchor.parameters())
    if terms:
        network.score_tap.register_forward_hook(lambda _layer, _args, output: scores.update(online=output))
        anchor.score_tap.register_forward_hook(lambda _layer, _args, output: scores.update(anchor=output))

    def step() -> None:
        optimizer.zero_grad()
        loss = criterion(network(batch["image"]), batch["label"])
        if terms:
            with torch.no_grad():
                anchor(batch["image"])
            loss = loss + guidance(masked_softmax(scores["online"], None))
            loss = loss + 0.01 * anchored(scores["online"], scores["anchor"])
        loss.backward()
        optimizer.step()
        if terms:
            with torch.no_grad():
                torch._foreach_lerp_(averages, weights, 0.001)

    def epoch() -> None:
        for _ in range(steps):
            step()

    return epoch
