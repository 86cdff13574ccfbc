"""Tests of the random fields of drawn scans."""

import numpy as np
import pytest

from monai_mil_ext.data.synthetic.lesions.random_fields import random_affine, random_field


def test_a_random_field_has_the_values_of_its_knots_and_no_others_between_them():
    field = random_field(np.random.default_rng(3), (9, 9, 9), (3, 3, 3), 2.0)
    knots = np.random.default_rng(3).normal(0.0, 2.0, (3, 3, 3))
    np.testing.assert_allclose(field[::4, ::4, ::4], knots, rtol=1e-5)
    assert field.min() >= knots.min() - 1e-5
    assert field.max() <= knots.max() + 1e-5
    assert np.abs(np.diff(field, axis=0)).max() < np.ptp(knots)


def test_random_affine_turns_without_stretching():
    matrix = random_affine(np.random.default_rng(0), 20.0, (1.0, 1.0))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.abs(matrix - np.eye(3)).max() > 0.05
    assert np.linalg.det(random_affine(np.random.default_rng(0), 20.0, (0.5, 0.5))) == pytest.approx(0.125)
