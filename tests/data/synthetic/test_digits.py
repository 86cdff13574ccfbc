"""Tests of the bags of handwritten digits."""

import numpy as np
import pytest

from monai_mil_ext.data.synthetic.digits import draw_digit_bags


@pytest.mark.parametrize("run", [False, True])
def test_draw_digit_bags_labels_the_nines_and_uses_no_image_twice(run):
    bags = draw_digit_bags(12, (6, 9), num_nines=2, run=run, seed=3)
    assert [bag.label for bag in bags] == [0, 1] * 6
    assert [int(bag.instance_label.sum()) for bag in bags] == [0, 2] * 6
    assert {len(bag.images) for bag in bags} <= {6, 7, 8, 9}
    images = [image.tobytes() for bag in bags for image in bag.images]
    assert len(set(images)) == len(images)
    positions = [np.flatnonzero(bag.instance_label) for bag in bags[1::2]]
    assert not run or all(second - first == 1 for first, second in positions)


def test_draw_digit_bags_depends_on_the_seed_alone():
    first, same, other = (draw_digit_bags(4, 10, 3, run=True, seed=seed) for seed in (0, 0, 1))
    assert all((a.images == b.images).all() for a, b in zip(first, same, strict=True))
    assert any((a.images != b.images).any() for a, b in zip(first, other, strict=True))


def test_draw_digit_bags_without_negatives_makes_every_bag_positive():
    assert [bag.label for bag in draw_digit_bags(3, 20, 5, run=True, negatives=False)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_bags": 0, "size": 5}, "`num_bags` must be"),
        ({"num_bags": 1000, "size": 5}, "`num_bags` must be at most what 1797 digits are enough for, got 1000"),
        ({"num_bags": 2, "size": (9, 5)}, r"`size` must be a range from at least 1, got \(9, 5\)"),
        ({"num_bags": 2, "size": 5, "num_nines": 5, "run": True}, "`size` must be a range from at least 6, got 5"),
    ],
)
def test_draw_digit_bags_names_a_bad_option(options, message):
    with pytest.raises(ValueError, match=message):
        draw_digit_bags(**options)
