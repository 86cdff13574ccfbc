"""Tests of TokenCountHandler: numbers of tokens that ASMIL keeps."""

import pytest
import torch
from ignite.engine import Events

from monai_mil_ext.handlers import TokenCountHandler
from monai_mil_ext.networks.nets import ABMIL, ASMIL
from tests.handlers.training import CLASSES, F, bag_batches, hook_count, make_trainer


def asmil(**options):
    return ASMIL(F, CLASSES, hidden_size=8, num_heads=2, **options)


def train(net, *, epochs=1, evaluate=False):
    """Return the number of each step and of the epoch."""
    handler, seen = TokenCountHandler(), []
    trainer = make_trainer(net, bag_batches(20), handler, max_epochs=epochs)
    if evaluate:
        trainer.add_event_handler(Events.ITERATION_STARTED, lambda: net.eval()(torch.rand(1, 3, F)) is net.train())
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: seen.append(float(e.state.output[0]["tokens_kept"]))
    )
    trainer.run()
    return seen, trainer.state.metrics["tokens_kept"]


def test_token_count_of_an_exact_number():
    seen, mean = train(asmil(n_drop=3))
    assert set(seen) == {5.0}
    assert mean == 5


@pytest.mark.parametrize("block", ["cross", "prenorm"])
def test_token_count_of_a_rate(block):
    net = asmil(block=block, token_drop=0.25)
    seen, mean = train(net, epochs=4, evaluate=True)
    assert mean == pytest.approx(sum(seen[-20:]) / 20)
    assert sum(seen) / 80 == pytest.approx(6, abs=0.5)  # 240 bags of 8 tokens: five standard deviations
    assert len(set(seen)) > 3
    assert hook_count(net) == 0


def test_token_count_without_dropping():
    assert train(asmil(token_drop=0.0))[1] == 8


def test_token_count_names_a_network_without_tokens():
    with pytest.raises(ValueError, match="`layer` must be the path of a submodule of ABMIL, got 'summarize'"):
        make_trainer(ABMIL(F, CLASSES), bag_batches(1), TokenCountHandler()).run()
