"""Tests of TileScoresToHeatmap."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext.data import TileGrid
from monai_mil_ext.networks.nets import AdditiveMIL, ContributionWrapper
from monai_mil_ext.transforms import (
    InstanceScoresd,
    RankInstancesd,
    TileBagd,
    TileScoresToHeatmap,
    TileScoresToHeatmapd,
)
from tests.make_slide import stained, write_slide

SHAPE = (640, 480)  # width, height


@st.composite
def tiles(draw):
    """Any tiles, which may overlap and reach beyond the slide: coords (N, 2), size, downsample, scores (N, 2)."""
    n, size = draw(st.integers(1, 30)), draw(st.floats(20, 150))
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    coords = generator.integers(0, (640, 480), size=(n, 2))
    return coords, size, draw(st.floats(2, 20)), generator.random((n, 2))


@given(tiles())
def test_tile_scores_to_heatmap_pixel_is_the_mean_of_the_tiles_that_contain_its_center(drawn):
    coords, size, downsample, scores = drawn
    heat = TileScoresToHeatmap(downsample)(scores, coords, size, SHAPE)
    assert heat.shape == (2, math.ceil(480 / downsample), math.ceil(640 / downsample))
    for r, c in ((0, 0), (3, 5), (heat.shape[1] - 1, heat.shape[2] - 1), (heat.shape[1] // 2, heat.shape[2] // 2)):
        middle = np.array([c + 0.5, r + 0.5]) * downsample
        inside = ((coords <= middle) & (middle < coords + size)).all(axis=1)
        expected = scores[inside].mean(axis=0) if inside.any() else [math.nan, math.nan]
        assert heat[:, r, c].tolist() == pytest.approx(expected, nan_ok=True, rel=1e-6)


@given(tiles(), st.floats(1e-6, 1e3))
def test_tile_scores_to_heatmap_of_equal_scores_is_constant(drawn, value):
    coords, size, downsample, scores = drawn
    heat = TileScoresToHeatmap(downsample)(np.full(len(coords), value), coords, size, SHAPE)
    seen = heat[~heat.isnan()]
    assert torch.allclose(seen, torch.tensor(value), rtol=1e-6)
    covered = TileScoresToHeatmap(downsample)(scores, coords, size, SHAPE)[:1]
    assert torch.equal(heat.isnan(), covered.isnan())


@given(tiles(), st.randoms(use_true_random=False))
def test_tile_scores_to_heatmap_does_not_depend_on_the_order_of_tiles(drawn, random):
    coords, size, downsample, scores = drawn
    order = list(range(len(coords)))
    random.shuffle(order)
    first, second = (
        TileScoresToHeatmap(downsample)(scores[k], coords[k], size, SHAPE) for k in (slice(None), np.array(order))
    )
    assert torch.equal(first.nan_to_num(-1), second.nan_to_num(-1))


def test_tile_scores_to_heatmap_sums_do_not_depend_on_order_by_rounding():
    scores, coords = np.array([1e16, 1.0, -1e16, 3.0]), np.zeros((4, 2))
    orders = ([0, 1, 2, 3], [0, 2, 1, 3], [3, 1, 0, 2])
    assert len({float(TileScoresToHeatmap(64)(scores[k], coords, 64, (64, 64))) for k in orders}) == 1


@given(st.integers(0, 4), st.integers(0, 3), st.integers(0, 99))
def test_tile_scores_to_heatmap_moves_with_its_tiles(right, down, seed):
    generator = np.random.default_rng(seed)
    coords, scores = generator.integers(0, (300, 200), size=(12, 2)), generator.random(12)
    to_map = TileScoresToHeatmap(16, fill=0.0)
    step = np.array([16 * right, 16 * down])
    heat, moved = to_map(scores, coords, 70, SHAPE), to_map(scores, coords + step, 70, SHAPE)
    assert torch.equal(moved[:, down:, right:], heat[:, : 30 - down, : 40 - right])


@pytest.mark.parametrize("scaling", ["none", "ratio", "percentile"])
def test_tile_scores_to_heatmap_keeps_scores_of_tiles_without_overlap_exactly(scaling):
    y, x = np.mgrid[0:480:64, 0:640:64]
    coords = np.stack([x.ravel(), y.ravel()], axis=1)[::2]
    scores = torch.rand(len(coords)) / 7
    heat = TileScoresToHeatmap(16, scaling)(scores, coords, 64, SHAPE)
    rank = np.array([(scores < s).sum() + ((scores == s).sum() - 1) / 2 + 0.5 for s in scores])
    exact = {
        "none": scores.numpy(),
        "ratio": scores.double().numpy() * len(scores),
        "percentile": rank * 100 / len(scores),
    }
    for (column, row), score in zip(coords // 16, exact[scaling], strict=True):
        assert (heat[0, row : row + 4, column : column + 4] == np.float32(score)).all()
    assert int((~heat.isnan()).sum()) == sum(16 if y < 448 else 8 for y in coords[:, 1])


def test_tile_scores_to_heatmap_percentiles_of_ties_and_ratios_of_attention():
    coords, scores = np.array([[0, 0], [64, 0], [128, 0], [192, 0]]), np.array([0.1, 0.3, 0.3, 0.3])
    heat = TileScoresToHeatmap(64, "percentile")(scores, coords, 64, (256, 64))
    assert heat[0, 0].tolist() == [12.5, 62.5, 62.5, 62.5]
    ratio = TileScoresToHeatmap(64, "ratio")(torch.full((4,), 0.25), coords, 64, (256, 64))
    assert ratio[0, 0].tolist() == [1.0] * 4


def test_tile_scores_to_heatmap_has_affine_and_metadata():
    heat = TileScoresToHeatmap(32, "ratio")(torch.rand(1), torch.zeros(1, 2), 64, SHAPE, 0.25)
    assert heat.dtype == torch.float32
    assert heat.affine.diag().tolist() == [32, 32, 1, 1]
    metadata = {key: heat.meta[key] for key in ("downsample", "scaling", "spatial_shape", "mpp")}
    assert metadata == {"downsample": 32.0, "scaling": "ratio", "spatial_shape": SHAPE, "mpp": 8.0}


@pytest.mark.parametrize(
    ("scores", "highest"),
    [
        (torch.tensor([0.1, 0.6, 0.3]), (1.8,)),
        (torch.tensor([[0.1, 1.0], [0.6, 0.0], [0.3, 0.0]]), (1.8, 3.0)),
        (torch.tensor([1.0, 2.0, 3.0]), None),
        (torch.tensor([-1.0, 1.0, 1.0]), None),
    ],
)
def test_tile_scores_to_heatmap_states_the_highest_ratio_of_attention(scores, highest):
    meta = TileScoresToHeatmap(64, "percentile")(scores, 64 * torch.eye(3, 2), 64, SHAPE).meta
    assert meta["highest_ratio"] == (None if highest is None else pytest.approx(highest))


def test_tile_scores_to_heatmap_covers_the_bounds_of_a_slide():
    """Tile a covers two pixels of the map, b one, the other one lies outside of the bounds; c lies outside."""
    coords, scores, bounds = np.array([[6000, 4000], [6192, 4064], [64, 64]]), np.array([0.2, 0.5, 0.3]), (6000, 4000)
    heat = TileScoresToHeatmap(64)(scores, coords, 64, (10_000, 8_000), 0.5, (*bounds, 192, 128))
    assert heat.shape == (1, 2, 3)
    np.testing.assert_array_equal(heat[0].numpy(), np.float32([[0.2, np.nan, np.nan], [np.nan] * 3]))
    assert (heat.meta["bounds"], heat.meta["spatial_shape"]) == ((6000, 4000, 192, 128), (10_000, 8_000))
    corner = heat.affine.numpy() @ [1, 2, 0, 1]  # row 1, column 2
    assert corner[:2].tolist() == [4064, 6128]
    item = {"scores": scores, "coords": coords, "tile_size": 64, "spatial_shape": (10_000, 8_000)}
    same = TileScoresToHeatmapd("scores")({**item, "bounds": torch.tensor([*bounds, 192, 128])})["scores"]
    np.testing.assert_array_equal(same.numpy(), heat.numpy())
    small = (0, 0, 64, 64)
    assert TileScoresToHeatmap(0.05)(scores[2:], coords[2:] * 0, 64, (10_000, 8_000), None, small).shape == (
        1,
        1280,
        1280,
    )


def test_tile_scores_to_heatmapd_inverts_tile_bagd(tmp_path):
    """Scores that are the red of a tile give the red of the slide; padding of a batch is dropped."""
    image = stained((480, 640), (128, 64, 448, 320))
    path = write_slide(tmp_path / "s.tif", image)
    item = TileBagd("image", TileGrid(32, mpp=1.0), min_tissue=0.9)({"image": path})
    red = item["image"][:][:, 0].mean(dim=(1, 2)) * 255
    padded = {**item, "attention": torch.cat([red, torch.full((3,), 9e9)])}
    padded["coords"] = torch.cat([item["coords"], torch.zeros(3, 2, dtype=torch.int64)])
    padded["mask"] = torch.arange(len(padded["coords"])) < len(red)
    heat = TileScoresToHeatmapd("attention", downsample=64)(padded)["attention"]
    assert heat.shape == (1, 8, 10)
    inside = heat[0, 1:5, 2:7].numpy()
    blocks = image[64:320, 128:448, 0].reshape(4, 64, 5, 64).mean(axis=(1, 3))
    assert np.abs(inside - blocks).max() < 0.5
    assert int(heat.isfinite().sum()) == 20


def test_tile_scores_to_heatmap_without_tiles_is_empty():
    heat = TileScoresToHeatmap(scaling="percentile", fill=0.0)(torch.zeros(0, 3), torch.zeros(0, 2), 64, SHAPE)
    assert heat.shape == (3, 8, 10)
    assert not heat.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"downsample": 0}, "`downsample` must be positive, got 0"),
        ({"scaling": "rank"}, "`scaling` must be one of 'none', 'ratio', 'percentile', 'signed', got 'rank'"),
    ],
)
def test_tile_scores_to_heatmap_names_a_bad_option(options, message):
    with pytest.raises(ValueError, match=message):
        TileScoresToHeatmap(**options)


def test_tile_scores_to_heatmap_names_a_bad_input():
    to_map, corner = TileScoresToHeatmap(64), torch.zeros(1, 2)
    with pytest.raises(ValueError, match=r"`scores` must have shape .* got \(2, 1\) for \(1, 2\)"):
        to_map(torch.rand(2), corner, 64, SHAPE)
    with pytest.raises(ValueError, match="`downsample` must be at most the size of a tile, 32, got 64"):
        to_map(torch.rand(1), corner, 32, SHAPE)
    with pytest.raises(ValueError, match="`downsample` must leave a map of at most 268435456 values, got 1 for"):
        TileScoresToHeatmap(1)(torch.rand(1), corner, 32, (100_000, 100_000))
    with pytest.raises(ValueError, match="`unit` must be 'px', pixels of level 0, got 'um'"):
        TileScoresToHeatmapd("x")({"x": torch.rand(1), "coords": corner, "unit": "um"})


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 1e300, -1e300, 640.0, -64.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_tile_scores_to_heatmap_refuses_a_tile_that_would_be_missing_from_the_map(wrong, axis):
    coords = torch.zeros(3, 2, dtype=torch.float64)
    coords[1, axis] = wrong
    rule = r"`coords` must be corners of tiles in the slide of 640 x 480 pixels, got \(.*\) and 0 more outside"
    for downsample in (64, None):
        with pytest.raises(ValueError, match=rule):
            TileScoresToHeatmap(downsample)(torch.rand(3), coords, 64, SHAPE)
    item = {"scores": torch.rand(3), "coords": coords, "tile_size": 64.0, "unit": "px"}
    with pytest.raises(ValueError, match=rule):
        TileScoresToHeatmapd("scores")({**item, "spatial_shape": SHAPE})
    if not math.isfinite(wrong):
        with pytest.raises(ValueError, match=r"`coords` must be finite corners of tiles .* got NaN or infinity"):
            TileScoresToHeatmapd("scores")(item)


def test_tile_scores_to_heatmap_counts_all_tiles_outside():
    with pytest.raises(ValueError, match=r"got \(700, 0\) and 1 more outside"):
        TileScoresToHeatmap()(torch.rand(3), torch.tensor([[0, 0], [700, 0], [0, 500]]), 64, SHAPE)
    with pytest.raises(ValueError, match=r"`coords` must be finite corners of tiles .* got none"):
        TileScoresToHeatmapd("s")({"s": torch.rand(0), "coords": torch.zeros(0, 2), "tile_size": 64.0})


@pytest.mark.parametrize("shape", [(math.nan, 480), (640, math.inf), (0, 480), (640, -1), (640,)])
def test_tile_scores_to_heatmap_refuses_a_slide_without_a_size(shape):
    with pytest.raises(ValueError, match="`spatial_shape` must be width and height in pixels, got"):
        TileScoresToHeatmap()(torch.rand(1), torch.zeros(1, 2), 64, shape)


def test_tile_scores_to_heatmapd_skips_unplaced_tiles_with_the_reason():
    to_map = TileScoresToHeatmapd("scores", "heatmap", skip_unplaced=True, downsample=None)
    item = {"scores": torch.rand(2), "coords": torch.tensor([[0, 0], [64, 32]]), "tile_size": 64.0, "unit": "px"}
    heat = to_map(item)["heatmap"]
    assert (tuple(heat.shape), heat.meta["downsample"], heat.meta["spatial_shape"]) == ((1, 6, 8), 16.0, (128, 96))
    for missing, reason in (("coords", "without coordinates"), ("unit", "the unit of the coordinates is None")):
        out = to_map({key: value for key, value in item.items() if key != missing})
        assert reason in out["heatmap_missing"]
        assert "heatmap" not in out


def test_tile_scores_to_heatmap_ranks_each_head_by_itself():
    coords = np.array([[0, 0], [100, 0], [200, 0]])
    scores = np.array([[0.1, 30.0], [0.2, 20.0], [0.3, 10.0]])
    heat = TileScoresToHeatmap(100, scaling="percentile")(scores, coords, 100, (300, 100))
    assert heat[0, 0].tolist() == pytest.approx([100 / 6, 50, 500 / 6])
    assert heat[1, 0].tolist() == pytest.approx([500 / 6, 50, 100 / 6])


@pytest.mark.parametrize("head", [0, 1, 2, None])
def test_map_of_contributions_is_signed_and_sums_to_the_logit(head):
    torch.manual_seed(0)
    net, mask = ContributionWrapper(AdditiveMIL(5, 3, hidden_size=4).eval()), torch.arange(8) < 6
    bag = torch.randn(1, 8, 5)
    with torch.no_grad():
        middle = net(bag, mask[None])["attention"][0, :6].mean(0)
        net.net.classify[-1].bias.sub_(middle - torch.tensor([1e-3, -1e-3, 5e-4]))  # some of each sign
        output = net(bag, mask[None])
    coords = torch.stack([torch.arange(8) % 3, torch.arange(8) // 3], 1) * 64
    item = {"attention": output["attention"][0], "coords": coords, "tile_size": 64, "unit": "px", "mask": mask}
    item = RankInstancesd(top_k=6)(InstanceScoresd("attention", head=head)(item))
    heat = TileScoresToHeatmapd("scores", "heatmap", downsample=64, scaling="signed")(item)["heatmap"]
    logits = output["logits"][0]
    expected = logits.mean() if head is None else logits[head]
    assert_close(heat.nansum().as_tensor(), expected, rtol=1e-5, atol=1e-6)
    assert (heat < 0).any()
    assert (heat > 0).any()
    values = heat.flatten()
    assert item["top"][0] == values.nan_to_num(-torch.inf).argmax()
    assert item["top"][-1] == values.nan_to_num(torch.inf).argmin()  # strongest against the class, not the weakest
