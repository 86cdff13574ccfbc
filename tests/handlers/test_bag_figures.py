"""Tests of BagFigureHandler: the chosen bags in every validation."""

import pytest
import torch
from ignite.engine import Engine
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from monai_mil_ext.handlers import BagFigureHandler


def bag(case):
    return {
        "case_id": case,
        "attention": torch.tensor([0.2, 0.5, 0.3, 0.0])[:, None],
        "pred": torch.tensor([0.4, 0.6]),
        "mask": torch.tensor([True, True, True, False]),
        "position": torch.tensor([3.0, 6.0, 0.0, 0.0]),
        "instance_label": torch.tensor([0, 1, 0, 0]),
    }


class Writer:
    def __init__(self):
        self.figures = []

    def add_figure(self, tag, figure, step):
        self.figures.append((tag, step, figure))


def validate(handler, epochs, cases=("a", "b", "c"), **more):
    """Run as MONAI's ValidationHandler does: an evaluator of one epoch, at the epoch of its trainer."""

    def step(engine, batch):
        engine.state.batch = batch
        return [{key: item[key] for key in ("attention", "pred")} for item in batch]

    engine = Engine(step)
    handler.attach(engine)
    for epoch in epochs:
        engine.state.epoch, engine.state.max_epochs, engine.state.iteration = epoch - 1, epoch, 0
        engine.state.epoch_length = None
        engine.run([[bag(case) | more] for case in cases], max_epochs=epoch)


def test_bag_figure_handler_draws_the_first_bags_at_its_interval():
    writer = Writer()
    handler = BagFigureHandler(writer, max_bags=2, interval=2)
    validate(handler, [2])
    validate(handler, [3])
    validate(handler, [4], cases=("c", "b", "a"))
    assert [(tag, step) for tag, step, _ in writer.figures] == [
        ("attention/a", 2),
        ("attention/b", 2),
        ("attention/b", 4),
        ("attention/a", 4),
    ]


def test_bag_figure_handler_drops_padding_and_sorts_slices():
    writer = Writer()
    validate(BagFigureHandler(writer, cases=["b"]), [1])
    ((tag, _, figure),) = writer.figures
    assert tag == "attention/b"
    curve = next(axes for axes in figure.axes if axes.get_ylabel() == "attention")
    assert curve.lines[0].get_xdata().tolist() == [0, 3, 6]
    assert curve.lines[0].get_ydata().tolist() == pytest.approx([0.3, 0.2, 0.5])
    assert len(curve.patches) == 1  # the slice that is labeled
    assert "probability 0.60, research use only" in figure.get_suptitle()


def test_bag_figure_handler_shows_the_slice_itself_with_its_numbers_and_letters():
    writer = Writer()
    slices = torch.zeros(4, 3, 6, 5)
    slices[:, 1] = torch.tensor([-1.0, 3.0, 1.0, 0.0]).view(4, 1, 1)  # of a z normalization; the others are neighbors
    geometry = {"affine": torch.diag(torch.tensor([2.0, 1.0, 3.0, 1.0])), "spatial_shape": torch.tensor([5, 6, 9])}
    numbers = {"slice_index": torch.tensor([1, 2, 0, 0]), "instance_number": torch.tensor([8, 7, 9, 0])}
    handler = BagFigureHandler(writer, cases=["b"], top_k=1, slices_key="slices")
    validate(handler, [1], slices=slices, plane="axial", **geometry, **numbers)
    ((_, _, figure),) = writer.figures
    axes = figure.axes[0]
    assert axes.get_title() == "1.  slice 3 of 9\n6.0 mm, InstanceNumber 7\n1.5 × uniform"
    assert (axes.images[0].get_array() == 1).all()  # the highest value
    assert {text.get_text() for text in axes.texts} >= set("RLAP")
    assert figure.get_supxlabel().startswith("shown from -1 to 3")


def test_bag_figure_handler_writes_to_tensorboard(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        validate(BagFigureHandler(writer, cases=["a"]), [5])
    log = EventAccumulator(str(tmp_path))
    log.Reload()
    assert log.Tags()["images"] == ["attention/a"]
    assert log.Images("attention/a")[0].step == 5


def test_bag_figure_handler_needs_positive_numbers():
    with pytest.raises(ValueError, match="`interval` must be a positive integer, got 0"):
        BagFigureHandler(Writer(), interval=0)


@pytest.mark.parametrize(
    ("pred", "title"), [([0.97], "probability 0.97"), ([0.1, 0.7, 0.2], "class 1, probability 0.70")]
)
def test_bag_figure_handler_titles_the_prediction(pred, title):
    figure = BagFigureHandler(Writer())._figure(bag("a") | {"pred": torch.tensor(pred)})
    assert f"a: {title}, research use only" in figure.get_suptitle()


def test_bag_figure_handler_titles_no_logit_as_probability():
    with pytest.raises(ValueError, match=r"`pred` must be probabilities in \[0, 1\], got 1.84"):
        BagFigureHandler(Writer())._figure(bag("a") | {"pred": torch.tensor([1.84])})
