"""Tests that every network keeps every law of ``laws.py``. A new network adds one line to ``net_cases.py``."""

import inspect

import pytest
from hypothesis import given

from monai_mil_ext.networks import nets
from tests.contracts import laws
from tests.contracts.net_cases import (
    CASES,
    MASK,
    SLOW_TO_COMPILE,
    SLOW_TO_DIFFERENTIATE,
    F,
    X,
    every_net,
    every_net_with_slow,
)
from tests.helpers import bags


def on_random_batches(law):
    """Test a law that is cheap enough for many random batches."""

    @every_net
    @given(batch=bags(F, dtype=laws.DTYPE))
    def test(make, batch):
        if laws.claimed(law, make):
            law(make, *batch)

    return test


def on_one_batch(law, every_net=every_net):
    """Test a law on one fixed batch."""

    @every_net
    def test(make):
        if laws.claimed(law, make):
            law(make, X, MASK)

    return test


test_law_output_has_documented_shapes = on_random_batches(laws.output_has_documented_shapes)
test_law_input_is_not_modified = on_random_batches(laws.input_is_not_modified)
test_law_padding_changes_nothing = on_random_batches(laws.padding_changes_nothing)
test_law_bags_are_independent = on_random_batches(laws.bags_are_independent)
test_law_order_changes_nothing = on_random_batches(laws.order_changes_nothing)
test_law_attention_is_a_distribution = on_random_batches(laws.attention_is_a_distribution)
test_law_score_tap_passes_scores = on_random_batches(laws.score_tap_passes_scores)
test_law_forward_agrees_with_forward_bag = on_random_batches(laws.forward_agrees_with_forward_bag)
test_law_eval_is_deterministic = on_random_batches(laws.eval_is_deterministic)
test_law_empty_bag_is_finite = on_random_batches(laws.empty_bag_is_finite)
test_law_no_bags_give_no_logits = on_one_batch(laws.no_bags_give_no_logits)
test_law_every_parameter_has_a_gradient = on_random_batches(laws.every_parameter_has_a_gradient)

test_law_state_dict_restores_network = on_one_batch(laws.state_dict_restores_network)
test_law_deepcopy_is_independent = on_one_batch(laws.deepcopy_is_independent)
test_law_export_serves_any_bag_size = on_one_batch(
    laws.export_serves_any_bag_size,
    every_net_with_slow(SLOW_TO_COMPILE, "torch.export gives the logits of bags of any size"),
)
test_law_torchscript_agrees = on_one_batch(laws.torchscript_agrees)
test_law_compiles_without_graph_break = on_one_batch(
    laws.compiles_without_graph_break,
    every_net_with_slow(SLOW_TO_COMPILE, "torch.compile traces the network as one graph"),
)
test_law_autocast_is_close = on_one_batch(laws.autocast_is_close)
test_law_large_features_stay_finite = on_one_batch(laws.large_features_stay_finite)
test_law_values_are_not_needed = on_one_batch(laws.values_are_not_needed)
test_law_vmap_agrees = pytest.mark.filterwarnings("ignore:There is a performance drop")(on_one_batch(laws.vmap_agrees))
test_law_gradients_are_exact_in_float64 = on_one_batch(
    laws.gradients_are_exact_in_float64,
    every_net_with_slow(SLOW_TO_DIFFERENTIATE, "exact gradients of networks with class tokens"),
)
test_law_bad_input_is_named = on_one_batch(laws.bad_input_is_named)
test_law_exceptions_are_needed = on_one_batch(laws.exceptions_are_needed)


def test_every_law_of_laws_has_a_test():
    tests = {name for name in globals() if name.startswith("test_law_")}
    assert tests == {f"test_law_{law.__name__}" for law in laws.CHEAP + laws.EXPENSIVE}


def test_every_public_bag_net_has_a_case():
    public = {name: getattr(nets, name) for name in nets.__all__}
    networks = {name for name, net in public.items() if inspect.isclass(net) and issubclass(net, nets.BagNet)}
    others = {"EncodedBag"}  # takes images: tests/networks/nets/test_encoded_bag.py runs the same laws on it
    assert networks - {"AttentionPoolNet", "BagNet"} - others == {case.split("-")[0] for case in CASES}
