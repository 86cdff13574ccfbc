"""Tests of NormalGuidanceLoss: golden values, closed forms, and known behavior of the method."""

import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.losses import NormalGuidanceLoss

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "normal_guidance.json").read_text())
DIVERGENCES = ["forward_kl", "reverse_kl", "squared_error"]
SLICES = torch.arange(1, 49, dtype=torch.float64)


def one_bag(attention):
    return (attention / attention.sum()).view(1, -1, 1)


def bell(mean, sd):
    return one_bag(torch.exp(-((SLICES - mean) ** 2) / (2 * sd**2)))


SHAPES = {
    "one-hot": one_bag((SLICES == 13).double()),
    "sd 1": bell(20, 1.0),
    "sd 6": bell(24.5, 6.0),
    "uniform": one_bag(torch.ones_like(SLICES)),
    "two bells": (bell(8, 2.0) + bell(40, 2.0)) / 2,
}


@pytest.mark.parametrize("divergence", GOLDEN["cases"])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_normal_guidance_has_golden_values_and_gradients(divergence, dtype, atol):
    z = [torch.tensor(GOLDEN[name], dtype=dtype, requires_grad=True) for name in ("z1", "z2")]
    attention = torch.full((2, 8, 1), torch.nan, dtype=dtype)
    attention = torch.stack([torch.cat([zi.softmax(0), attention[0, len(zi) :, 0]]) for zi in z]).unsqueeze(-1)
    mask = torch.arange(8) < torch.tensor([[8], [5]])
    value = NormalGuidanceLoss(divergence)(attention, mask)
    value.backward()
    case = GOLDEN["cases"][divergence]
    assert_close(value.item(), case["value"], rtol=0, atol=atol)
    for zi, grad in zip(z, (case["grad_z1"], case["grad_z2"]), strict=True):
        assert_close(zi.grad, torch.tensor(grad, dtype=dtype), rtol=0, atol=atol)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_normal_guidance_gradient_has_closed_form(divergence):
    z = torch.randn(9, dtype=torch.float64, requires_grad=True)
    loss = NormalGuidanceLoss(divergence, eps=1e-12)
    loss(z.softmax(0).view(1, 9, 1)).backward()
    with torch.no_grad():
        a, j = z.softmax(0), torch.arange(1.0, 10.0, dtype=torch.float64)
        mu = (a * j).sum()
        r = torch.softmax(-((j - mu) ** 2) / (2 * (a * (j - mu) ** 2).sum()), 0)
        kl = (a * (a / r).log()).sum()
        expected = {
            "squared_error": 2 * a * ((a - r) - (a * (a - r)).sum()),
            "forward_kl": a - r,
            "reverse_kl": a * ((a / r).log() - kl),
        }[divergence]
    assert_close(z.grad, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("shape", "divergence", "value"),
    [
        ("uniform", "squared_error", 0.00304),
        ("uniform", "forward_kl", 0.0786),
        ("two bells", "squared_error", 0.0581),
        ("two bells", "forward_kl", 4.889),
    ],
)
def test_normal_guidance_has_known_values(shape, divergence, value):
    assert_close(NormalGuidanceLoss(divergence)(SHAPES[shape]).item(), value, rtol=0.01, atol=0)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_normal_guidance_of_a_bell_is_minimal(divergence):
    loss = NormalGuidanceLoss(divergence)
    values = {name: loss(shape).item() for name, shape in SHAPES.items()}
    assert min(values.values()) >= -1e-9
    assert abs(values["one-hot"]) < 1e-9
    assert max(values["sd 1"], values["sd 6"]) < 1e-5


def test_normal_guidance_of_two_heads_is_the_mean():
    attention = torch.rand(3, 12, 2, dtype=torch.float64).softmax(1)
    loss = NormalGuidanceLoss()
    assert_close(loss(attention), (loss(attention[..., :1]) + loss(attention[..., 1:])) / 2)


def test_normal_guidance_is_invariant_to_affine_positions():
    attention = torch.rand(2, 20, 1, dtype=torch.float64).softmax(1)
    j = torch.arange(1.0, 21.0, dtype=torch.float64).expand(2, -1)
    loss = NormalGuidanceLoss()
    for positions in (j, 5 * j + 100, -j):
        assert_close(loss(attention, positions=positions), loss(attention), rtol=0, atol=1e-6)
    assert_close(loss(attention.flip(1)), loss(attention), rtol=0, atol=1e-6)
    uneven = loss(attention, positions=j**2)
    assert not torch.isclose(uneven, loss(attention))
    mask = torch.arange(22).expand(2, -1) < 20
    padded = [
        torch.nn.functional.pad(t, pad, value=torch.nan) for t, pad in ((attention, (0, 0, 0, 2)), (j**2, (0, 2)))
    ]
    assert_close(loss(padded[0], mask, padded[1]), uneven)


def test_normal_guidance_renormalize_divides_rows_below_one():
    whole = torch.rand(2, 10, 3, dtype=torch.float64).softmax(1)
    row = whole * torch.tensor([0.9, 0.8, 0.7], dtype=torch.float64)
    plain, renormalizing = NormalGuidanceLoss(), NormalGuidanceLoss(renormalize=True)
    assert_close(renormalizing(row), plain(whole))
    assert_close(plain.moments(row), plain.moments(whole))
    missing = -torch.tensor([0.9, 0.8, 0.7], dtype=torch.float64).log().mean()  # sum of r log(1 / share)
    assert_close(plain(row), plain(whole) + missing)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_normal_guidance_moments_of_half_precision_on_a_long_bag(dtype):
    attention = torch.randn(1, 2000, 1).mul(2).softmax(1).to(dtype)
    loss = NormalGuidanceLoss()
    for moment, exact in zip(loss.moments(attention), loss.moments(attention.double()), strict=True):
        assert moment.dtype == torch.float32
        assert_close(moment.double(), exact, rtol=0, atol=0.01)


def test_normal_guidance_min_sd_penalizes_a_single_slice():
    assert NormalGuidanceLoss(min_sd=1.0)(SHAPES["one-hot"]).item() > 0.5
    assert NormalGuidanceLoss(min_sd=1.0).moments(SHAPES["one-hot"])[1].item() == 1.0


def test_normal_guidance_mean_ignores_empty_bags():
    attention = torch.rand(3, 6, 2, dtype=torch.float64).softmax(1)
    mask = torch.tensor([[True] * 6, [False] * 6, [True] * 4 + [False] * 2])
    each = NormalGuidanceLoss(reduction="none")(attention, mask)
    assert each.shape == (3,)
    assert each[1] == 0
    assert_close(NormalGuidanceLoss(reduction="sum")(attention, mask), each.sum())
    assert_close(NormalGuidanceLoss()(attention, mask), each.sum() / 2)


def test_normal_guidance_alone_converges_to_a_bell_at_the_center():
    z = torch.zeros(48, dtype=torch.float64, requires_grad=True)
    loss = NormalGuidanceLoss()
    optimizer = torch.optim.SGD([z], lr=2.0, momentum=0.9)
    for _ in range(3000):
        optimizer.zero_grad()
        loss(z.softmax(0).view(1, 48, 1)).backward()
        optimizer.step()
    mean, sd = loss.moments(z.softmax(0).view(1, 48, 1))
    assert_close(mean.item(), 24.5, rtol=0, atol=0.1)
    assert_close(sd.item(), 6.0, rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"divergence": "kl"}, r"`divergence` must be one of .*, got 'kl'"),
        ({"reduction": "max"}, r"`reduction` must be one of .*, got 'max'"),
        ({"eps": 0.0}, r"`eps` must be positive and finite, got 0.0"),
        ({"min_sd": -1.0}, r"`min_sd` must be positive and finite, got -1.0"),
        ({"min_sd": float("nan")}, r"`min_sd` must be positive and finite, got nan"),
    ],
)
def test_normal_guidance_rejects_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        NormalGuidanceLoss(**options)


def test_normal_guidance_rejects_bad_positions():
    with pytest.raises(ValueError, match=r"`positions` must have shape \(B, N\) = \(2, 5\), got \(5,\)"):
        NormalGuidanceLoss()(torch.ones(2, 5, 1), positions=torch.ones(5))


BAD_POSITIONS = [float("nan"), float("inf"), -float("inf"), 1e19, -1e19]


@pytest.mark.parametrize("bad", BAD_POSITIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_guidance_names_a_position_that_is_not_finite(bad, dtype):
    attention, positions = torch.rand(2, 5, 2).softmax(1), torch.arange(10, dtype=dtype).view(2, 5)
    positions[1, 3] = bad
    message = r"`positions` must be finite \(at most 1e\+15\) at valid instances, got .* at instance 3 of bag 1"
    for mask in (None, torch.arange(5) < torch.tensor([[2], [4]])):
        with pytest.raises(ValueError, match=message):
            NormalGuidanceLoss()(attention, mask, positions)
        with pytest.raises(ValueError, match=message):
            NormalGuidanceLoss().moments(attention, mask, positions)
    mask = torch.arange(5) < torch.tensor([[2], [3]])
    assert_close(NormalGuidanceLoss()(attention, mask, positions), NormalGuidanceLoss()(attention, mask))


def test_normal_guidance_takes_positions_without_values():
    """A compiled program, `vmap` and the device `meta` cannot look at positions."""
    attention, positions = torch.rand(3, 2, 5, 1).softmax(2), torch.arange(5.0).expand(3, 2, 5)
    loss = NormalGuidanceLoss()
    each = torch.stack([loss(a, None, p) for a, p in zip(attention, positions, strict=True)])
    assert_close(torch.func.vmap(lambda a, p: loss(a, None, p))(attention, positions), each)
    assert loss(attention[0].to("meta"), None, positions[0].to("meta")).shape == ()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    assert_close(compiled(attention[0], None, positions[0]), each[0])


@pytest.mark.parametrize("min_sd", [0.5, 2.0, 3.0])
def test_normal_guidance_min_sd_is_a_standard_deviation(min_sd):
    loss = NormalGuidanceLoss(min_sd=min_sd)
    mean, deviation = loss.moments(SHAPES["one-hot"])
    assert (mean.item(), deviation.item()) == (13.0, min_sd)
    assert loss(bell(13, min_sd)).item() == pytest.approx(0, abs=2e-3)
