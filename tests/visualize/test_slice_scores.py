"""Tests of the figure of the attention over the slices of a scan."""

import numpy as np
import pytest

from monai_mil_ext.visualize import SliceDisplay, attention_ratio, plot_slice_scores
from tests.visualize.attention_scan import scan


def curve_of(figure):
    return next(axes for axes in figure.axes if axes.get_ylabel() == "attention")


def test_plot_slice_scores_shows_the_top_slices_with_their_numbers_and_positions():
    attention, position, slices, reference = scan()
    display = SliceDisplay("axial", (1.0, 1.0), np.arange(9) * 2, 20, np.arange(30, 21, -1), "window -1000 to 400 HU")
    figure = plot_slice_scores(attention, position, slices, reference, 3, "case: probability 0.71", display=display)
    titles = [axes.get_title() for axes in figure.axes[:3]]
    assert titles == [
        "1.  slice 17 of 20\n20.0 mm, InstanceNumber 22\n1.8 × uniform",
        "2.  slice 15 of 20\n15.0 mm, InstanceNumber 23\n1.6 × uniform",
        "3.  slice 13 of 20\n10.0 mm, InstanceNumber 24\n1.4 × uniform",
    ]
    assert (figure.axes[0].images[0].get_array() == slices[-1]).all()
    assert "research use only" in [text.get_text() for text in figure.texts]
    assert figure.get_supxlabel() == "window -1000 to 400 HU"
    labels = [text.get_text() for text in figure.subfigs[2].legends[0].get_texts()]
    gaussian = "bell of the same mean and deviation (7 ± 11 mm)"
    assert labels == ["attention", "slices above", "uniform", gaussian, "reference"]
    assert [axes.get_title() for axes in figure.axes[3:5]] == ["front view", "side view"]


def test_plot_slice_scores_keeps_title_captions_and_ranks_apart():
    attention, position, slices, _ = scan(36)
    attention = np.exp(-((np.arange(36) - 20) ** 2) / 3) + 0.02  # a peak whose slices share the label of their ranks
    figure = plot_slice_scores(attention / attention.sum(), position, slices, title="case: probability 0.71")
    figure.draw_without_rendering()
    title, caption = figure._suptitle.get_window_extent(), figure.axes[0].title.get_window_extent()
    assert (title.y0 - caption.y1) / figure.dpi > 0.08  # inches
    curve = curve_of(figure)
    ranks = next(text for text in curve.texts if text.get_text() == "1 2 3 4")
    peak = curve.transData.transform((0, (attention / attention.sum()).max()))[1]
    assert ranks.get_window_extent().y0 > peak


def test_plot_slice_scores_without_a_display_counts_the_slices_that_it_gets():
    attention, position, slices, _ = scan()
    figure = plot_slice_scores(attention, position, slices, top_k=1)
    assert figure.axes[0].get_title() == "1.  slice 9 of 9\n20.0 mm\n1.8 × uniform"


def test_plot_slice_scores_crowns_no_slice_of_nearly_even_attention():
    _, position, slices, _ = scan()
    attention = np.linspace(0.037, 0.048, 9)
    figure = plot_slice_scores(attention / attention.sum(), position, slices, top_k=3)
    titles = [axes.get_title().splitlines()[0] for axes in figure.axes[:3]]
    assert titles == ["slice 2 of 9", "slice 5 of 9", "slice 8 of 9"]  # spread evenly, without ranks
    assert "Attention is nearly even: the order of slices says little." in [axes.get_title() for axes in figure.axes]
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert not {"1", "2", "3"} & {part for text in texts for part in text.split()}
    assert "slices above" not in [line.get_label() for line in curve_of(figure).lines]


def test_plot_slice_scores_colors_have_one_scale_in_all_figures():
    _, position, slices, _ = scan()
    for attention in (np.full(9, 1 / 9), scan()[0], np.eye(9)[3]):
        for images in (slices, None):
            figure = plot_slice_scores(attention, position, images)
            meshes = [mesh for axes in figure.axes for mesh in axes.collections if mesh.get_array() is not None]
            heat = [mesh for mesh in meshes if mesh.get_array().size == 9]
            assert len(heat) == (1 if images is None else 3)
            for mesh in heat:
                assert (mesh.norm.vmin, mesh.norm.vmax, mesh.norm.clip) == (0.25, 4, True)
                np.testing.assert_allclose(np.ravel(mesh.get_array()), attention_ratio(attention))
            if images is not None:
                bar = next(axes for axes in figure.axes if axes.get_ylabel() == "attention, × uniform")
                assert [text.get_text() for text in bar.get_yticklabels()] == ["≤ ¼", "½", "1", "2", "≥ 4"]


def test_plot_slice_scores_writes_a_note_in_lines_that_fit():
    attention, position, slices, _ = scan()
    for stack in (slices, None):
        figure = plot_slice_scores(attention, position, stack, note="tumor 2, weights 0123; " + "mismatch " * 20)
        lines = figure.get_supxlabel().splitlines()
        assert lines[0].startswith("tumor 2, weights 0123; mismatch")
        assert (len(lines), max(map(len, lines)) <= 100) == (3, True)
    assert plot_slice_scores(attention, position, slices).get_supxlabel() == ""


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("display", [None, SliceDisplay("coronal", (2.0, 0.5))])
def test_plot_slice_scores_of_few_slices(n, display, tmp_path):
    attention, position, slices, _ = scan(n)
    plot_slice_scores(attention, position, slices, display=display).savefig(tmp_path / "few.png")
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
    shaded = [patch.get_x() for axes in figure.axes for patch in axes.patches]
    np.testing.assert_allclose(shaded, position[4:] - 2.5)


def test_plot_slice_scores_lines_differ_by_more_than_color():
    attention, position, slices, reference = scan()
    figure = plot_slice_scores(attention, position, slices, reference)
    styles = [(line.get_linestyle(), line.get_marker()) for line in curve_of(figure).lines]
    assert len(set(styles)) == len(styles) == 4


def test_plot_slice_scores_shows_the_whole_bell_of_uniform_attention():
    attention, position = np.full(8, 1 / 8), np.arange(8.0)
    curve = curve_of(plot_slice_scores(attention, position))
    assert all(np.max(line.get_ydata()) <= curve.get_ylim()[1] for line in curve.lines)
    assert curve.get_ylim()[1] >= 2 / 8  # even attention stays far below the top


def test_plot_slice_scores_of_attention_that_is_zero_everywhere():
    plot_slice_scores(np.zeros(4), np.arange(4.0)).draw_without_rendering()
