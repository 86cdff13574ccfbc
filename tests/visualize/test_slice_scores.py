"""Tests of the figure of the attention over the slices of a scan."""

import numpy as np
import pytest

from monai_mil_ext.visualize import plot_slice_scores
from tests.visualize.attention_scan import scan


def test_plot_slice_scores_shows_the_top_slices_with_their_positions():
    attention, position, slices, reference = scan()
    figure = plot_slice_scores(attention, position, slices, reference, top_k=3, title="case: probability 0.71")
    titles = [axes.get_title() for axes in figure.axes[:3]]
    assert titles == ["1.  20.0 mm", "2.  15.0 mm", "3.  10.0 mm"]
    assert (figure.axes[0].images[0].get_array() == slices[-1]).all()
    assert "research use only" in [text.get_text() for text in figure.texts]
    labels = [text.get_text() for text in figure.subfigs[1].legends[0].get_texts()]
    assert labels == ["attention", "slices above", "uniform", "its normal (7 ± 11 mm)", "reference"]


def test_plot_slice_scores_writes_a_note_in_lines_that_fit():
    attention, position, slices, _ = scan()
    for stack in (slices, None):
        figure = plot_slice_scores(attention, position, stack, note="tumor 2, weights 0123; " + "mismatch " * 20)
        lines = figure.get_supxlabel().splitlines()
        assert lines[0].startswith("tumor 2, weights 0123; mismatch")
        assert (len(lines), max(map(len, lines)) <= 100) == (3, True)
    assert plot_slice_scores(attention, position, slices).get_supxlabel() == ""


@pytest.mark.parametrize("n", [1, 2])
def test_plot_slice_scores_of_few_slices(n, tmp_path):
    attention, position, slices, _ = scan(n)
    plot_slice_scores(attention, position, slices).savefig(tmp_path / "few.png")
    assert (tmp_path / "few.png").stat().st_size > 1000


def test_plot_slice_scores_refuses_arrays_of_different_lengths():
    attention, position, slices, _ = scan()
    with pytest.raises(ValueError, match=r"must have one length, got \{8, 9\}|got \{9, 8\}"):
        plot_slice_scores(attention, position[1:], slices)


def test_plot_slice_scores_shades_labels_without_slices():
    attention, position, _, reference = scan()
    figure = plot_slice_scores(attention, position, None, reference.any((1, 2)).astype(int))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[-1] == "reference"
    heat = next(axes for axes in figure.axes if axes.get_ylabel() == "heat")
    np.testing.assert_allclose(np.ravel(heat.collections[0].get_array()), attention)
    shaded = [patch.get_x() for axes in figure.axes for patch in axes.patches]
    np.testing.assert_allclose(shaded, position[4:] - 2.5)


def test_plot_slice_scores_lines_differ_by_more_than_color():
    attention, position, slices, reference = scan()
    figure = plot_slice_scores(attention, position, slices, reference)
    curve = next(axes for axes in figure.axes if axes.get_ylabel() == "attention")
    styles = [(line.get_linestyle(), line.get_marker()) for line in curve.lines]
    assert len(set(styles)) == len(styles) == 4


def test_plot_slice_scores_shows_the_whole_normal_of_uniform_attention():
    attention, position = np.full(8, 1 / 8), np.arange(8.0)
    figure = plot_slice_scores(attention, position)
    curve = next(axes for axes in figure.axes if axes.get_ylabel() == "attention")
    assert all(np.max(line.get_ydata()) <= curve.get_ylim()[1] for line in curve.lines)
