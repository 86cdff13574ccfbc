"""Tests of slices and views on axes: proportion, letters and scale."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from monai_mil_ext.visualize import SliceDisplay, plot_slice_scores
from monai_mil_ext.visualize.slice_axes import draw_slice, rank_labels
from tests.visualize.attention_scan import ORIENTATIONS, phantom, slices_of


def figure_of(item, **changes):
    images = item["image"][:, 0].numpy()
    attention = np.linspace(0.2, 3, len(images))
    display = SliceDisplay.of(item | changes, images.shape[1:])
    return plot_slice_scores(attention / attention.sum(), item["position"].numpy(), images, top_k=2, display=display)


def letters(axes):
    return {text.get_text(): np.array(text.get_position()) for text in axes.texts if text.get_text() in set("RLAPSI")}


def images_of(figure):
    figure.draw_without_rendering()
    return [axes for axes in figure.axes if axes.images]


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("spatial_size", [None, 40])
def test_slices_and_views_are_in_true_proportion(plane, spatial_size):
    figure = figure_of(slices_of(phantom((1, 2, 0), (True, False, True), (1.0, 3.0, 7.0)), plane, spatial_size))
    drawn = images_of(figure)
    assert len(drawn) == 4
    for axes in drawn:
        origin, right, up = axes.transData.transform([(0, 0), (1, 0), (0, 1)])
        assert abs(right - origin)[0] == pytest.approx(abs(up - origin)[1], rel=0.01)  # pixels of the screen per mm
        scale = next(line for line in axes.lines if line.get_label() == "_scale")
        length = abs(np.diff(scale.get_xdata()))[0]
        views = drawn[2:]
        assert {view.get_xlabel() + view.get_ylabel() for view in views} == {"mm"}
        assert f"{length:.0f} mm" in [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_the_letter_beside_the_corner_at_the_right_front_and_top_names_its_side(plane):
    for orientation in ORIENTATIONS[::3]:
        item = slices_of(phantom(*orientation), plane)
        item["image"] = item["image"].as_tensor()
        axes = Figure().add_subplot()
        display = SliceDisplay.of(item, item["image"].shape[2:])
        draw_slice(axes, item["image"][-1, 0].numpy(), None, display)
        image, (left, right, bottom, top) = axes.images[0].get_array(), axes.images[0].get_extent()
        rows, columns = np.nonzero(np.asarray(image) > 0.5)
        x = left + (columns.mean() + 0.5) / image.shape[1] * (right - left)
        y = top + (rows.mean() + 0.5) / image.shape[0] * (bottom - top)
        places = letters(axes)
        assert len(places) == 4
        for near, far in ("RL", "AP", "SI"):
            if near in places:
                k = 0 if near in display.sides[:2] else 1
                assert abs(places[near][k] - (x, y)[k]) < abs(places[far][k] - (x, y)[k])


def test_views_and_slices_all_have_letters_and_views_have_heat():
    figure = figure_of(slices_of(phantom((0, 1, 2), (False, False, False))))
    drawn = images_of(figure)
    assert [sorted(letters(axes)) for axes in drawn] == [sorted("RLAP")] * 2 + [sorted("RLSI"), sorted("APSI")]
    for axes in drawn[2:]:
        assert axes.collections[0].get_array().size == 18


def test_pictures_of_unknown_orientation_have_no_letters_and_no_scale():
    images = np.random.default_rng(0).random((5, 8, 8))
    figure = plot_slice_scores(np.array([1.0, 1, 1, 2, 5]) / 10, np.arange(5.0), images)
    for axes in images_of(figure):
        assert not letters(axes)
        assert not any("mm" in text.get_text() for text in axes.texts)


def test_rank_labels_join_slices_that_are_close():
    assert rank_labels(np.array([10.0, 90.0, 11.0, 12.0]), 100) == [
        (11.0, "1 3 4", [0, 2, 3]),
        (90.0, "2", [1]),
    ]
    assert rank_labels(np.array([]), 100) == []


def test_a_narrow_view_has_no_letters_that_overlap():
    slices, position = np.random.default_rng(0).random((40, 8, 8)), 5.0 * np.arange(40)  # 8 mm wide, 200 mm high
    display = SliceDisplay("axial", (1.0, 1.0), np.arange(40), 40, None, "")
    figure = plot_slice_scores(np.full(40, 1 / 40), position, slices, display=display)
    drawn = images_of(figure)
    assert [len(axes.texts) > 0 for axes in drawn[-2:]] == [False, False]
    assert all(len(letters(axes)) == 4 for axes in drawn[:-2])
