"""Tests of the methods of a study."""

import pytest
import torch
from monai.bundle import ConfigParser

from monai_mil_ext.apps.study import StudyMethod, parse_methods
from monai_mil_ext.apps.study.methods import METHODS, find_classifier


@pytest.mark.parametrize("name", METHODS)
def test_each_method_builds_a_network(name):
    net = parse_methods(name)[0].build(16, 3).eval()
    assert net.forward_bag(torch.rand(2, 5, 16), None).logits.shape == (2, 3)


def test_names_are_read_as_people_write_them():
    names = [
        method.name
        for method in parse_methods(["abmil,QG-MIL", "Trans MIL+ng", "as-mil", "ABMIL+Anchor", "ABMIL + kg"])
    ]
    assert names == ["ABMIL", "QGMIL", "TransMIL+NG", "ASMIL", "ABMIL+anchor", "ABMIL+KG"]


def test_terms_of_the_loss():
    plain, guided, anchored, asmil, acmil = parse_methods("ABMIL,ABMIL+NG,ABMIL+anchor,ASMIL,ACMIL")
    (both,) = parse_methods("ABMIL+NG+KG")
    assert (plain.kernel_guidance, both.kernel_guidance, both.guidance) == (0, 1.0, 1.0)
    assert (plain.guidance, plain.anchor, plain.branches) == (0, 0, 0)
    dsmil, clam, branched = parse_methods("DSMIL,clam,CLAM MB")
    assert (dsmil.branches, clam.instances, branched.network["multi_branch"]) == (1.0, 0.3 / 0.7, True)
    dtfd, entropy = parse_methods("DTFD-MIL,ABMIL+aem")
    assert (dtfd.name, dtfd.branches, entropy.name, entropy.entropy) == ("DTFDMIL", 1.0, "ABMIL+AEM", 0.1)
    assert (guided.guidance, anchored.anchor, asmil.anchor, acmil.branches) == (1.0, 0.01, 0.01, 1.0)


def test_the_anchor_is_that_of_asmil():
    anchor = parse_methods("ASMIL")[0].make_anchor()
    assert (anchor.weight, anchor.momentum, type(anchor.loss).__name__) == (0.01, 0.999, "NSFKLLoss")


def test_an_unknown_name_lists_all_and_the_nearest():
    with pytest.raises(ValueError, match=r"TransMIL.*got 'ABMLI'; did you mean 'ABMIL'"):
        parse_methods("ABMLI")
    with pytest.raises(ValueError, match=r"terms \+NG, \+KG, \+AEM, \+MHIM, \+anchor, got \+foo"):
        parse_methods("ABMIL+foo")
    with pytest.raises(ValueError, match="different methods"):
        parse_methods("ABMIL,abmil")


@pytest.mark.parametrize("name", ["AdditiveMIL", "CLAM-MB", "CenterPrior", "InstanceConvMIL"])
def test_masked_hard_instances_need_a_classifier_of_the_embedding(name):
    assert parse_methods("ABMIL+MHIM, TransMIL+mhim")[0].mining == 0.1
    with pytest.raises(ValueError, match=rf"must have \+MHIM only on a network that classifies an .*'{name}'"):
        parse_methods(f"{name}+MHIM")


@pytest.mark.parametrize(("name", "classifier"), [("ABMIL", "classify"), ("QGMIL", "classifier"), ("DSMIL", None)])
def test_classifier_of_the_embedding_is_found_and_the_random_state_is_kept(name, classifier):
    (method,) = parse_methods(name)
    state = torch.random.get_rng_state()
    assert find_classifier(method) == classifier
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", ["MeanMIL+NG", "MeanMIL+KG", "MeanMIL+AEM", "ABMIL,max+anchor"])
def test_a_term_on_attention_needs_a_network_that_has_it(name):
    terms = r"\+NG, \+KG, \+AEM, \+MHIM, \+anchor"
    with pytest.raises(ValueError, match=f"must have {terms} only on a network with attention, got 'M"):
        parse_methods(name)


def test_a_network_of_the_user_by_its_target():
    config = {"_target_": "monai_mil_ext.networks.nets.ABMIL", "hidden_size": 8, "name": "narrow"}
    (method,) = parse_methods(config)
    assert method.name == "narrow"
    assert method.build(4, 2).in_features == 4


class SumOfInstances(torch.nn.Module):
    """Network of a user, which knows no masks."""

    def forward(self, x):
        """Return the sums (B, F) of bags (B, N, F)."""
        return x.sum(dim=1)


def test_a_network_of_the_user_in_the_config_of_a_bundle():
    config = {"target": "monai_mil_ext.networks.nets.ABMIL", "hidden_size": 8, "name": "narrow"}
    content = {"m": ["MeanMIL", "monai_mil_ext.networks.nets.ABMIL", config]}
    methods = parse_methods(ConfigParser(content).get_parsed_content("m"))
    assert [method.name for method in methods] == ["MeanMIL", "ABMIL", "narrow"]
    assert methods[2].build(16, 2).in_features == 16


def test_a_network_without_masks_does_not_see_padding():
    net = StudyMethod("plain", {"_target_": f"{__name__}.SumOfInstances"}).build(4, 4)
    mask = torch.tensor([[True, False, False], [True, True, True]])
    assert net(torch.ones(2, 3, 4), mask)[:, 0].tolist() == [1.0, 3.0]


def test_a_name_must_be_a_folder():
    with pytest.raises(ValueError, match="`name` must be letters"):
        StudyMethod("../a", {"_target_": "x"})
