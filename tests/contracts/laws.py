"""Laws of all networks: ``law(make, x, mask)`` raises unless the network ``make()`` keeps the law.

``x`` (B, N, F) is float64, and each row of ``mask`` (B, N) starts with its valid instances, at least one.
"""

import copy
import io

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.testing import assert_close

from tests.helpers import fill

NUM_CLASSES = 3
DTYPE = torch.float64
TIGHT = {"rtol": 1e-8, "atol": 1e-10}  # float64: allows another order of summation, but no wrong term
JUNK = (float("nan"), float("inf"), -float("inf"), 1e30)
DYNAMIC = torch.export.Dim.DYNAMIC


def tested(make):
    return fill(make()).double()


def parts(out, rows=slice(None), real=None):
    """Return the comparable parts of an output: some bags, and only the valid instances."""
    kept = {"logits": out.logits[rows], "embedding": out.embedding[rows] if out.embedding is not None else None}
    for name in ("attention", "scores"):
        part = getattr(out, name)
        kept[name] = part if part is None else part[rows] if real is None else part[rows][real]
    return {name: part for name, part in kept.items() if part is not None}


def same(a, b, **tolerance):
    assert a.keys() == b.keys()
    for name in a:
        assert_close(a[name], b[name], **(tolerance or TIGHT), msg=lambda m, name=name: f"{name}: {m}")


def outputs_and_gradients(net, x, mask, real):
    """Return outputs and gradients of a training step on a batch, for the valid entries ``real`` of ``x``."""
    net.zero_grad(set_to_none=True)
    x = x.clone().requires_grad_()
    out = net.forward_bag(x, mask)
    (out.logits.square().sum() + (0 if out.scores is None else out.scores[real].square().sum())).backward()
    gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    return parts(out, real=real) | gradients | {"x": x.grad[real]}, x.grad[~real]


def output_has_documented_shapes(make, x, mask):
    out, (b, n) = tested(make).forward_bag(x, mask), mask.shape
    assert out.logits.shape == (b, NUM_CLASSES)
    assert out.attention is None or (out.attention.ndim == 3 and out.attention.shape[:2] == (b, n))
    assert out.embedding is None or (out.embedding.ndim == 2 and len(out.embedding) == b)
    assert (out.scores is None) is not make().gives_scores
    assert out.scores is None or (out.scores.ndim == 3 and out.scores.shape[:2] == (b, n))


def input_is_not_modified(make, x, mask):
    given, given_mask = x.clone(), mask.clone()
    tested(make)(given, given_mask)
    assert_close((given, given_mask), (x, mask), rtol=0, atol=0)


def padding_changes_nothing(make, x, mask):
    net, n = tested(make), mask.shape[1]
    longer_mask = torch.nn.functional.pad(mask, (0, 2))
    longer = torch.nn.functional.pad(x, (0, 0, 0, 2))
    clean, _ = outputs_and_gradients(net, longer[:, :n].where(mask[..., None], 0), mask, mask)
    for junk in JUNK:
        dirty = longer.where(longer_mask[..., None], junk)
        seen, at_padding = outputs_and_gradients(net, dirty, longer_mask, longer_mask)
        same(seen, clean)
        assert not at_padding.any()
        attention = net.forward_bag(dirty, longer_mask).attention
        assert attention is None or not attention[~longer_mask].any()


def bags_are_independent(make, x, mask):
    net = tested(make)
    x = x.clone().requires_grad_()
    together = net.forward_bag(x, mask)
    for i, real in enumerate(mask):
        alone = net.forward_bag(x[i : i + 1, real])
        same(parts(together, rows=i, real=real), parts(alone, rows=0))
        (gradient,) = torch.autograd.grad(together.logits[i].sum(), x, retain_graph=True)
        assert not gradient[torch.arange(len(x)) != i].any()


def order_changes_nothing(make, x, mask):
    net, order = tested(make), torch.randperm(mask.shape[1], generator=torch.Generator().manual_seed(0))
    there, back = net.forward_bag(x[:, order], mask[:, order]), net.forward_bag(x, mask)
    same(parts(there), parts(back._replace(**{k: v[:, order] for k, v in per_instance(back).items()})))


def per_instance(out):
    return {k: v for k, v in (("attention", out.attention), ("scores", out.scores)) if v is not None}


def attention_is_a_distribution(make, x, mask):
    attention = tested(make).forward_bag(x, mask).attention
    assert (attention >= 0).all()
    assert_close(attention.sum(1), torch.ones_like(attention[:, 0]), **TIGHT)


def score_tap_passes_scores(make, x, mask):
    net, seen = tested(make), []
    net.score_tap.register_forward_hook(lambda *args: seen.append(args[-1]))
    net(x, mask)
    out = net.forward_bag(x, mask)
    assert len(seen) == 2, "the tap must be called once in a forward pass"
    assert_close(seen, [out.scores, out.scores], rtol=0, atol=0)
    weights = list(net.parameters())
    if weights:  # a network without weights has no gradient
        seen[0].square().sum().backward()
        assert any(p.grad is not None and p.grad.any() for p in weights)


def forward_agrees_with_forward_bag(make, x, mask):
    for net in (make().double().train(), tested(make)):
        for _ in range(2):  # the second time with a hook on the tap
            torch.manual_seed(0)
            logits = net(x, mask)
            torch.manual_seed(0)
            assert_close(net.forward_bag(x, mask).logits, logits, rtol=0, atol=0)
            net.score_tap.register_forward_hook(lambda *args: None)


def eval_is_deterministic(make, x, mask):
    net = tested(make)
    same(parts(net.forward_bag(x, mask)), parts(net.forward_bag(x, mask)), rtol=0, atol=0)


def empty_bag_is_finite(make, x, mask):
    half = mask & (torch.arange(len(mask)) > 0)[:, None]
    for given, real in ((x.where(half[..., None], torch.nan), half), (x[:, :0], mask[:, :0]), (x[:, :0], None)):
        net, bag = make().double().train(), given.clone().requires_grad_()
        out = net.forward_bag(bag, real)
        assert out.attention is None or not out.attention[0].any()
        out.logits.square().sum().backward()
        assert all(t.isfinite().all() for t in (out.logits, bag.grad, *gradients(net)))


def no_bags_give_no_logits(make, x, mask):
    for given, real in ((x[:0], mask[:0]), (x[:0], None), (x[:0, :0], None)):
        for net in (make().double().train(), tested(make).eval()):
            bags = given.clone().requires_grad_()
            out = net.forward_bag(bags, real)
            assert out.logits.shape == (0, NUM_CLASSES)
            assert out.attention is None or out.attention.shape[:2] == given.shape[:2]
            out.logits.square().sum().backward()
            assert all(not t.any() for t in (bags.grad, *gradients(net)))


def large_features_stay_finite(make, x, mask):
    net, bags = fill(make()).float().train(), (x.float() * 1e15).requires_grad_()
    out = net.forward_bag(bags, mask)
    out.logits.sum().backward()
    assert all(t.isfinite().all() for t in (out.logits, bags.grad, *gradients(net)))


def gradients(net):
    return [p.grad for p in net.parameters() if p.grad is not None]


def every_parameter_has_a_gradient(make, x, mask):
    net = make().double().train()
    net(x.clone().requires_grad_(), mask).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def state_dict_restores_network(make, x, mask):
    a, b, file = make().double().eval(), make().double().eval(), io.BytesIO()
    torch.save(a.state_dict(), file)
    file.seek(0)
    b.load_state_dict(torch.load(file, weights_only=True))
    same(parts(a.forward_bag(x, mask)), parts(b.forward_bag(x, mask)), rtol=0, atol=0)


def deepcopy_is_independent(make, x, mask):
    net = tested(make)
    before, twin = net(x, mask), copy.deepcopy(net)
    for p in net.parameters():
        p.data.zero_()
    assert_close(twin(x, mask), before, rtol=0, atol=0)


def export_serves_any_bag_size(make, x, mask):
    net, shape = tested(make), {0: DYNAMIC, 1: DYNAMIC}
    masked = torch.export.export(net, (x, mask), dynamic_shapes={"x": shape, "mask": shape}).module()
    plain = torch.export.export(net, (x,), dynamic_shapes={"x": shape}).module()
    for n in (1, 2, 9):
        bag, real = torch.randn(2, n, x.shape[-1], dtype=x.dtype), torch.arange(n) < torch.tensor([[n], [1]])
        assert_close((masked(bag, real), plain(bag)), (net(bag, real), net(bag)), **TIGHT)


def torchscript_agrees(make, x, mask):
    net, file = tested(make), io.BytesIO()
    torch.jit.save(torch.jit.script(net), file)
    file.seek(0)
    scripted = torch.jit.load(file)
    assert_close((scripted(x, mask), scripted(x)), (net(x, mask), net(x)), **TIGHT)
    same(parts(scripted.forward_bag(x, mask)), parts(net.forward_bag(x, mask)))


def compiles_without_graph_break(make, x, mask, backend="aot_eager", sizes=(5, 1)):
    torch.compiler.reset()
    net = tested(make)
    compiled = torch.compile(net, backend=backend, fullgraph=True, dynamic=True)
    for n in sizes:
        bag, real = x[:, :n].clone().requires_grad_(), mask[:, :n]
        logits, inputs = (net(bag, real), compiled(bag, real)), [bag, *net.parameters()]
        assert_close(logits[1], logits[0], **TIGHT)
        gradients = [torch.autograd.grad(y.square().sum(), inputs, allow_unused=True) for y in logits]
        assert_close(gradients[1], gradients[0], **TIGHT)


def autocast_is_close(make, x, mask):
    net, x = fill(make()), x.where(mask[..., None], torch.nan).float()
    exact = net.forward_bag(x, mask)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net.forward_bag(x, mask)
    assert_close(rough.logits.float(), exact.logits, rtol=0.05, atol=0.05)
    assert not list(net.parameters()) or not torch.equal(rough.logits.float(), exact.logits), "nothing ran in bfloat16"
    if exact.attention is not None:
        assert rough.attention.dtype == torch.float32
        room = 1e-6 if claimed(attention_is_a_distribution, make) else 0.05  # other sums are not exact
        assert_close(rough.attention.sum(1), exact.attention.sum(1), rtol=0, atol=room)
    half = copy.deepcopy(net).bfloat16()(x.bfloat16(), mask)
    assert half.dtype == torch.bfloat16
    assert_close(half.float(), exact.logits, rtol=0.05, atol=0.05)


def values_are_not_needed(make, x, mask):
    """Run on the device `meta` and under FakeTensorMode, where tensors have a shape but no values."""
    net, x, mask = tested(make), x.repeat(1, 9, 1), mask.repeat(1, 9)  # long enough to be packed
    expected = shapes(net.forward_bag(x, mask))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        assert shapes(net.forward_bag(mode.from_tensor(x), mode.from_tensor(mask))) == expected
        assert shapes(net.forward_bag(mode.from_tensor(x))) == expected
    net = net.to("meta")
    assert shapes(net.forward_bag(x.to("meta"), mask.to("meta"))) == expected
    assert shapes(net.forward_bag(x.to("meta"))) == expected


def shapes(out):
    return {name: part.shape for name, part in parts(out).items()}


def vmap_agrees(make, x, mask):
    net, x, mask = tested(make), x.repeat(1, 9, 1), mask.repeat(1, 9)
    x, mask = torch.stack([x, x.flip(0)]), torch.stack([mask, mask.flip(0)])
    assert_close(torch.func.vmap(net)(x), torch.stack([net(bags) for bags in x]), **TIGHT)
    expected = [torch.stack([net(bags, real) for bags in x]) for real in mask]
    for real, logits in zip(mask, expected, strict=True):
        assert_close(torch.func.vmap(lambda bags, real=real: net(bags, real))(x), logits, **TIGHT)
    assert_close(torch.func.vmap(net)(x, mask), torch.stack([logits[i] for i, logits in enumerate(expected)]), **TIGHT)


def gradients_are_exact_in_float64(make, x, mask):
    net = tested(make)
    weights = dict(net.named_parameters())
    assert {part.dtype for part in parts(net.forward_bag(x, mask)).values()} == {torch.float64}

    def call(x, *values):
        return torch.func.functional_call(net, dict(zip(weights, values, strict=True)), (x, mask))

    inputs = [t.detach().clone().requires_grad_() for t in (x, *weights.values())]
    assert torch.autograd.gradcheck(call, inputs, raise_exception=False), "gradients differ from finite differences"


def bad_input_is_named(make, x, mask):
    net, (b, n, f) = tested(make), x.shape
    bad = {
        rf"`x` must have shape \(B, N, {f}\), got \({b}, {n}, {f + 1}\)": (x.new_zeros(b, n, f + 1), None),
        rf"`x` must have shape \(B, N, {f}\), got \({n}, {f}\)": (x[0], None),
        rf"`mask` must have shape \(B, N\) = \({b}, {n}\), got \({b}, {n + 1}\)": (x, torch.ones(b, n + 1) > 0),
        r"`mask` must be of dtype torch.bool .*, got torch.float64": (x, mask.double()),
    }
    for message, arguments in bad.items():
        with pytest.raises(ValueError, match=message):
            net(*arguments)
    rule = "of dtype torch.float64, like the weights" if list(net.parameters()) else "floating point"
    for dtype in (torch.int64, torch.uint8, torch.bool, torch.float16, torch.float32):
        if list(net.parameters()) or not dtype.is_floating_point:
            with pytest.raises(ValueError, match=f"`x` must be {rule}, got {dtype}"):
                net(x.to(dtype), mask)


EXCEPTIONS = {  # class attribute by which a network declares, with False, that it does not keep the law
    order_changes_nothing: "permutation_invariant",
    attention_is_a_distribution: "attention_is_distribution",
    export_serves_any_bag_size: "exports_dynamic_n",
    score_tap_passes_scores: "gives_scores",
    every_parameter_has_a_gradient: "logits_see_all_weights",
    compiles_without_graph_break: "is_traceable",
    vmap_agrees: "is_traceable",
}


def claimed(law, make):
    """Return whether a network declares that it keeps a law."""
    return getattr(make(), EXCEPTIONS.get(law, ""), True)


def exceptions_are_needed(make, x, mask):
    for law in EXCEPTIONS:
        if not claimed(law, make):
            with pytest.raises(Exception):  # noqa: B017, PT011
                law(make, x, mask)


CHEAP = [
    output_has_documented_shapes,
    input_is_not_modified,
    padding_changes_nothing,
    bags_are_independent,
    order_changes_nothing,
    attention_is_a_distribution,
    score_tap_passes_scores,
    forward_agrees_with_forward_bag,
    eval_is_deterministic,
    empty_bag_is_finite,
    no_bags_give_no_logits,
    every_parameter_has_a_gradient,
]
EXPENSIVE = [
    state_dict_restores_network,
    deepcopy_is_independent,
    export_serves_any_bag_size,
    torchscript_agrees,
    compiles_without_graph_break,
    autocast_is_close,
    large_features_stay_finite,
    values_are_not_needed,
    vmap_agrees,
    gradients_are_exact_in_float64,
    bad_input_is_named,
    exceptions_are_needed,
]
