"""Tests of CLAM beyond the laws of all networks, which are in tests/contracts."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from monai_mil_ext.losses import CLAMInstanceLoss, SmoothSVMLoss
from monai_mil_ext.networks.nets import CLAM, load_reference_state_dict
from tests.helpers import fill
from tests.networks.baseline_cases import DATA, TOLERANCE, expected, published_bags, published_weights, tapped


def published(name):
    """The network with weights of the published code, in training mode without dropout."""
    classes = DATA["cases"][name]["config"]["C"]
    net = CLAM(24, classes, num_instances=4, multi_branch=name == "clam_mb", dropout=0).double()
    load_reference_state_dict(net, published_weights(name))
    return net.train()


@pytest.mark.parametrize("name", ["clam_sb", "clam_mb"])
def test_clam_matches_the_published_code(name):
    net, (x, _) = published(name), published_bags(name)
    case, seen = DATA["cases"][name], tapped(net, "instance_tap")
    out = net.forward_bag(x)
    for key, got in (("logits", out.logits), ("scores", out.scores), ("attention", out.attention)):
        assert_close(got[0], expected(name, key), **TOLERANCE)
    embedding = out.embedding.flatten()
    assert_close(embedding[:4], expected(name, "embedding", "first"), **TOLERANCE)
    assert_close(embedding.square().sum(), expected(name, "embedding", "sum_sq"), **TOLERANCE)
    config = case["config"]
    kind = {"ce": "cross_entropy", "svm": "svm"}[config["instance_loss"]]
    label = torch.tensor([config["label"]])
    instance = CLAMInstanceLoss(kind, config["subtyping"])(seen["instance_tap"], label)
    assert_close(instance, expected(name, "instance_loss"), **TOLERANCE)
    bag = cross_entropy(out.logits, label)
    assert_close(bag, expected(name, "bag_loss_ce"), **TOLERANCE)
    assert_close(0.7 * bag + 0.3 * instance, expected(name, "total_loss"), **TOLERANCE)
    for c, row in enumerate(case["instance"]):
        top = net._ranked(out.scores, None)[0, :, c if name == "clam_mb" else 0]
        assert top.tolist() == row["top"]
        z = seen["instance_tap"][0, c]
        inside = row["role"] == "in"
        rows, target = (z, [1] * 4 + [0] * 4) if inside else (z[:4], [0] * 4)
        for loss, key in ((cross_entropy, "ce"), (SmoothSVMLoss(), "svm")):
            assert_close(loss(rows, torch.tensor(target)).item(), row[key], rtol=1e-9, atol=1e-9)
    assert sum(p.numel() for p in net.parameters()) == case["parameter_count"]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 790_791),
        ({"attention_size": 384}, 922_247),
        ({"multi_branch": True}, 791_048),
        ({"multi_branch": True, "attention_size": 384}, 922_632),
    ],
    ids=str,
)
def test_clam_has_the_published_number_of_parameters(options, count):
    assert sum(p.numel() for p in CLAM(1024, 2, **options).parameters()) == count


def make(**options):
    return fill(CLAM(6, 3, hidden_size=8, attention_size=5, num_instances=3, dropout=0, **options)).double().train()


@pytest.mark.parametrize("multi_branch", [False, True])
def test_instance_loss_of_a_padded_batch_is_the_mean_of_single_bags(multi_branch):
    net, x, label = make(multi_branch=multi_branch), torch.randn(4, 7, 6).double(), torch.tensor([0, 2, 1, 1])
    counts, seen, loss = torch.tensor([7, 2, 1, 4]), tapped(net, "instance_tap"), CLAMInstanceLoss(subtyping=True)
    mask = torch.arange(7) < counts[:, None]
    net(x.where(mask[..., None], torch.nan), mask)
    together = loss(seen["instance_tap"], label, counts)
    alone = []
    for i, n in enumerate(counts.tolist()):
        net(x[i : i + 1, :n])
        alone.append(loss(seen["instance_tap"], label[i : i + 1], counts[i : i + 1]))
    assert_close(together, torch.stack(alone).mean())


def test_instance_loss_trains_neither_the_attention_nor_the_classifier_of_bags():
    net, seen = make(), {}
    net.instance_tap.register_forward_hook(lambda *args: seen.update(z=args[-1]))
    net(torch.randn(2, 9, 6).double())
    CLAMInstanceLoss()(seen["z"], torch.tensor([0, 2])).backward()
    trained = {name.split(".")[0] for name, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained == {"embed", "classify_instance"}
    assert not net.classify_instance[1].weight.grad.any()


def test_each_logit_of_many_branches_depends_on_its_own_attention():
    net, x = make(multi_branch=True).eval(), torch.randn(1, 9, 6).double()
    before = net(x)
    with torch.no_grad():
        net.attend.score.weight[0] += 1
    changed = (net(x) - before).abs()[0]
    assert changed[0] > 1e-6
    assert not changed[1:].any()


def test_one_logit_has_two_instance_classifiers():
    assert len(CLAM(6, 1, hidden_size=8).classify_instance) == 2


def test_instance_tap_is_silent_in_evaluation():
    net = make().eval()
    seen = tapped(net, "instance_tap")
    net(torch.randn(1, 9, 6).double())
    assert not seen


@pytest.mark.parametrize(("dropout", "last"), [(0.0, 2), (0.25, 3)])
def test_published_names_of_ungated_attention(dropout, last):
    names = CLAM(6, 2, gated=False, dropout=dropout).reference_names()
    scorer = {name for name in names if name.startswith("attention_net.3")}
    assert scorer == {f"attention_net.3.module.{i}.{p}" for i in (0, last) for p in ("weight", "bias")}
