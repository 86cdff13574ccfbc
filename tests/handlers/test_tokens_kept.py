"""TokensKeptHandler: how many tokens of ASMIL a step kept."""

import pytest
import torch
from ignite.engine import Events

from monai_mil_ext.handlers import TokensKeptHandler
from monai_mil_ext.networks.nets import ABMIL, ASMIL
from tests.handlers.training import CLASSES, F, bag_batches, hook_count, make_trainer


def asmil(**options):
    return ASMIL(F, CLASSES, hidden_size=8, num_heads=2, **options)


def train(net, *, epochs=1, evaluate=False):
    """The number of each step, and of the epoch."""
    handler, seen = TokensKeptHandler(), []
    trainer = make_trainer(net, bag_batches(20), handler, max_epochs=epochs)
    if evaluate:
        trainer.add_event_handler(Events.ITERATION_STARTED, lambda: net.eval()(torch.rand(1, 3, F)) is net.train())
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: seen.append(float(e.state.output[0]["tokens_kept"]))
    )
    trainer.run()
    return seen, trainer.state.metrics["tokens_kept"]


def test_an_exact_number_is_kept_in_every_step():
    seen, mean = train(asmil(n_drop=3))
    assert set(seen) == {5.0}
    assert mean == 5


@pytest.mark.parametrize("block", ["cross", "prenorm"])
def test_a_rate_keeps_its_share(block):
    net = asmil(block=block, token_drop=0.25)
    seen, mean = train(net, epochs=4, evaluate=True)
    assert mean == pytest.approx(sum(seen[-20:]) / 20)
    assert sum(seen) / 80 == pytest.approx(6, abs=0.5)  # 240 bags of 8 tokens: five standard deviations
    assert len(set(seen)) > 3
    assert hook_count(net) == 0


def test_all_are_kept_where_none_is_dropped():
    assert train(asmil(token_drop=0.0))[1] == 8


def test_a_network_without_tokens_is_named():
    with pytest.raises(ValueError, match="`layer` must be the path of a submodule of ABMIL, got 'summarize'"):
        make_trainer(ABMIL(F, CLASSES), bag_batches(1), TokensKeptHandler()).run()
