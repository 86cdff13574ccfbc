"""Tests of FROC by hand, and against MONAI's LesionFROC over several images."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.apps.pathology.metrics import LesionFROC

from monai_mil_ext.metrics import FROCMetric, froc_values, lesion_hits

LESIONS = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 0, 2], [0, 0, 0, 0, 0], [3, 0, 0, 0, 0]])
PIXELS = torch.cartesian_prod(torch.arange(4), torch.arange(5))


def grid(*scores):
    """Return scores of the given pixels (y, x), and 0.05 for all others."""
    values = torch.full((4, 5), 0.05)
    for (y, x), score in scores:
        values[y, x] = score
    return values.flatten()


def test_lesion_hits_counts_a_lesion_once_with_its_highest_score():
    scores = grid(((0, 0), 0.9), ((0, 1), 0.8), ((1, 4), 0.0), ((2, 2), 0.7))
    hits = lesion_hits(scores, PIXELS, LESIONS, tile_size=0)
    assert hits.found.tolist() == pytest.approx([0.9, 0.0, 0.05])
    assert len(hits.false) == 20 - 4
    assert hits.false.max() == pytest.approx(0.7)


def test_lesion_hits_ignores_excluded_lesions():
    hits = lesion_hits(grid(((1, 4), 0.9)), PIXELS, LESIONS, tile_size=0, exclude=[2])
    assert hits.found.tolist() == pytest.approx([0.05, 0.05])
    assert 0.9 not in hits.false
    assert len(hits.false) == 16


def test_lesion_hits_takes_connected_regions_of_a_boolean_mask():
    """Diagonal neighbors are connected; unused numbers are no lesions; floats are accepted."""
    diagonal = torch.eye(4, 5).bool()
    assert len(lesion_hits(grid(), PIXELS, diagonal, tile_size=0).found) == 1
    diagonal[0, 3] = True
    assert len(lesion_hits(grid(), PIXELS, diagonal, tile_size=0).found) == 2
    assert len(lesion_hits(grid(), PIXELS, LESIONS.float() * 100, tile_size=0).found) == 3
    assert len(lesion_hits(grid(), PIXELS, LESIONS * 0, tile_size=0).found) == 0


def test_lesion_hits_places_tiles_at_their_centers():
    """Tiles of 256 at level 0, a mask of level 6: corner (0, 192) has its center at (2, 5)."""
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2, 5] = True
    corners = torch.tensor([[0, 192], [192, 0]])
    hits = lesion_hits(torch.tensor([0.9, 0.5]), corners, mask, tile_size=256, spacing=64)
    assert (hits.found.tolist(), hits.false.tolist()) == (pytest.approx([0.9]), [0.5])
    swapped = lesion_hits(torch.tensor([0.9, 0.5]), corners.flip(1), mask, tile_size=256, spacing=64)
    assert swapped.found.tolist() == [0.5]


def test_lesion_hits_in_one_dimension():
    hits = lesion_hits(torch.tensor([0.1, 0.6, 0.2, 0.1]), torch.arange(4)[:, None], torch.tensor([0, 1, 1, 0]).bool())
    assert (hits.found.tolist(), len(hits.false)) == (pytest.approx([0.6]), 2)


def test_lesion_hits_box_size_keeps_the_highest_of_each_neighborhood():
    """One false region of nine tiles is one false detection, however low attention is in absolute terms."""
    corners = 256 * torch.cartesian_prod(torch.arange(6), torch.arange(6))
    scores = torch.full((6, 6), 1e-6)
    scores[:3, :3] = 1e-4
    scores[1, 1], scores[4, 4] = 2e-4, 3e-4
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[4, 4] = True
    kwargs = {"tile_size": 256, "spacing": 256}
    plain = lesion_hits(scores.flatten(), corners, mask, **kwargs)
    kept = lesion_hits(scores.flatten(), corners, mask, box_size=3, **kwargs)
    assert (plain.false > 5e-5).sum() == 9
    assert kept.false[kept.false > 5e-5].tolist() == pytest.approx([2e-4])
    assert kept.found.tolist() == plain.found.tolist() == pytest.approx([3e-4])
    order = torch.randperm(36)
    again = lesion_hits(scores.flatten()[order], corners[order], mask, box_size=3, **kwargs)
    assert sorted(again.false.tolist())[-1] == sorted(kept.false.tolist())[-1]


def test_froc_values_by_hand():
    """Two lesions at 0.9 and 0.4, false ones at 0.6 and 0.2, two bags: at 0.25 per bag, one of two is detected."""
    froc = froc_values(torch.tensor([0.6, 0.2]), torch.tensor([0.9, 0.4]), num_bags=2)
    assert froc["false_per_bag"] == [1, 0.5, 0.5, 0, 0]
    assert froc["sensitivity"] == [1, 1, 0.5, 0.5, 0]
    assert froc["score"] == pytest.approx((0.5 + 5 * 1) / 6)
    assert froc_values(torch.tensor([0.6]), torch.tensor([0.9]), 1, rates=[0])["score"] == 1


def test_froc_values_of_a_perfect_and_of_a_blind_model():
    """MONAI's curve alone scores the perfect model 0: it omits the lowest threshold, here the only one."""
    assert froc_values(torch.zeros(0), torch.tensor([0.9]), 1)["score"] == 1
    assert froc_values(torch.zeros(0), torch.tensor([0.0, 0.0]), 1)["score"] == 0
    assert froc_values(torch.tensor([0.5]), torch.tensor([0.0]), 1)["score"] == 0
    assert math.isnan(froc_values(torch.tensor([0.5]), torch.zeros(0), 1)["score"])


class Prepared(LesionFROC):
    """MONAI's evaluation with arrays instead of files."""

    def __init__(self, data):
        self.data = data
        self.eval_thresholds = (0.25, 0.5, 1, 2, 4, 8)

    def prepare_inference_result(self, sample):
        """Return scores and pixels."""
        y, x = PIXELS.numpy().T
        return sample["scores"].numpy(), y, x

    def prepare_ground_truth(self, sample):
        """Return numbered lesions and those to exclude."""
        return sample["lesions"].numpy(), []


@given(st.lists(st.integers(0, 2**16), min_size=1, max_size=4))
def test_froc_values_equal_monai_lesion_froc(seeds):
    bags = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        scores = torch.rand(20, generator=generator).double()
        scores[torch.randint(20, (1,), generator=generator)] = 0  # so that MONAI has a lowest threshold to leave out
        bags.append({"scores": scores.float(), "lesions": LESIONS * (seed % 3 > 0), "level": 0})
    if not any(bag["lesions"].any() for bag in bags):
        bags[0]["lesions"] = LESIONS
    metric = FROCMetric(tile_size=0)
    for bag in bags:
        metric([torch.cat([bag["scores"][:, None], PIXELS], dim=1)], [bag["lesions"]])
    lowest = np.float32(min(float(bag["scores"].min()) for bag in bags))
    assert lowest == 0
    assert metric.aggregate().item() == pytest.approx(Prepared(bags).evaluate())


def test_froc_metric_takes_heads_and_coordinates_and_counts_bags_once():
    bag = torch.cat([grid(((0, 0), 0.8))[:, None], grid(((0, 0), 1.0))[:, None], PIXELS], dim=1)
    metric, alone = FROCMetric(tile_size=0), FROCMetric(tile_size=0)
    alone([bag], [LESIONS])
    metric([bag, bag * torch.tensor([0, 0, 1, 1])], [LESIONS, LESIONS * 0], case_id=["a", "b"])
    curve = metric.curve()
    assert max(curve["false_per_bag"]) == alone.curve()["false_per_bag"][0] / 2 == 8
    assert curve["sensitivity"] == alone.curve()["sensitivity"]
    assert metric.aggregate() == pytest.approx(curve["score"])


def test_froc_metric_names_invalid_arguments():
    scores, mask = torch.rand(20), LESIONS
    with pytest.raises(ValueError, match="`scores` must be finite and >= 0, got"):
        lesion_hits(-scores, PIXELS, mask)
    with pytest.raises(ValueError, match=r"`coords` must be \(N, D\) = \(20, 2\), got \(20, 3\)"):
        lesion_hits(scores, torch.zeros(20, 3), mask)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=rf"`coords` must lie in the mask .*, got pixels up to \[{bad}"):
            lesion_hits(scores, PIXELS.double().index_fill(0, torch.tensor(3), bad), mask)
    for wrong in (PIXELS.flip(1), PIXELS - 1):
        with pytest.raises(ValueError, match=r"`coords` must lie in the mask of shape \(4, 5\), got pixels up to"):
            lesion_hits(scores, wrong, mask, tile_size=0)
    with pytest.raises(ValueError, match=r"`y_pred` must be \(N, A \+ 2\), scores and coordinates, got \(20, 2\)"):
        FROCMetric()([PIXELS.float()], [mask])
    with pytest.raises(ValueError, match="`y` must be 1 masks of lesions, got None"):
        FROCMetric()([PIXELS.float()])
    with pytest.raises(ValueError, match="`y_pred` must be given before the curve is computed, got none"):
        FROCMetric().aggregate()
