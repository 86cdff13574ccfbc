"""Tests of the figures of attention concentration and stability."""

import io

import pytest

from monai_mil_ext.visualize import plot_attention_mass, plot_attention_stability

MASS = {"mass": [0.6, 0.9, 1.0], "uniform": [0.3, 0.6, 1.0]}
EPOCHS = [{"epoch": e, "jsd": None if e == 1 else 0.1 / e, "uniformity": 1 - e / 10} for e in (1, 2, 3)]


def test_plot_attention_mass_has_a_panel_per_class_and_a_line_per_network():
    figure = plot_attention_mass(
        {"class 0": {"A": MASS}, "class 1": {"A": MASS, "B": {**MASS, "mass": [0.4, 0.7, 1.0]}}}
    )
    left, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["A", "uniform"]
    assert [line.get_label() for line in right.lines] == ["A", "B", "uniform"]
    assert right.lines[1].get_ydata().tolist() == [0.4, 0.7, 1.0]
    assert list(right.lines[2].get_ydata()) == [0.3, 0.6, 1.0]
    assert right.lines[0].get_xdata().tolist() == [1, 2, 3]
    styles = {(line.get_linestyle(), line.get_marker()) for line in right.lines}
    assert len(styles) == 3  # distinguishable without color
    assert "research use only" in [text.get_text() for text in figure.texts]
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    assert len(picture.getvalue()) < 200_000


def test_plot_attention_stability_skips_epochs_without_a_divergence():
    jsd, entropy = plot_attention_stability({"plain": EPOCHS, "anchor": EPOCHS[:2]}).axes
    assert jsd.lines[0].get_xdata().tolist() == [2, 3]
    assert jsd.lines[0].get_ydata().tolist() == pytest.approx([0.05, 0.1 / 3])
    assert entropy.lines[1].get_ydata().tolist() == pytest.approx([0.9, 0.8])
    assert [text.get_text() for text in entropy.get_legend().get_texts()] == ["plain", "anchor", "uniform"]


@pytest.mark.parametrize("count", [0, 7])
def test_plot_attention_mass_and_plot_attention_stability_refuse_more_lines_than_styles(count):
    lines = {str(i): MASS for i in range(count)}
    with pytest.raises(ValueError, match=rf"must have 1 to 6 entries, got {count}"):
        plot_attention_mass({"class 0": lines})
    with pytest.raises(ValueError, match=rf"`runs` must have 1 to 6 entries, got {count}"):
        plot_attention_stability(dict.fromkeys(lines, EPOCHS))
