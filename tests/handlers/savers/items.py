"""Postprocessed items of a scan and a slide, and an engine that passes items to a handler."""

import torch
from ignite.engine import Engine
from monai.engines import IterationEvents
from monai.transforms import Compose

from monai_mil_ext.transforms import InstanceScoresd, RankInstancesd, SliceScoresToVolumed, TileScoresToHeatmapd


def run(handler, items):
    """Run an engine whose iteration gives decollated and postprocessed ``items``, as those of MONAI do."""

    def step(engine, batch):
        engine.state.batch = [{k: v for k, v in item.items() if k not in ("pred", "attention")} for item in batch]
        return [{k: item[k] for k in ("pred", "attention")} for item in batch]

    engine = Engine(step)
    handler.attach(engine)
    engine.run([items])
    return engine


def scan(**changes):
    """Return an item of a scan after postprocessing, with four slices padded to five."""
    n, affine = 4, torch.tensor([[-2.0, 0, 0, 5], [0, 2, 0, 7], [0, 0, -3, 50], [0, 0, 0, 1]], dtype=torch.float64)
    item = {
        "case_id": "c1",
        "pred": torch.tensor([0.3, 0.7]),
        "attention": torch.tensor([0.1, 0.2, 0.6, 0.1, 0.0])[:, None],
        "mask": torch.arange(n + 1) < n,
        "position": torch.tensor([41.0, 44, 47, 50, 0]),
        "slice_index": torch.tensor([0, 1, 2, 3, 0]),
        "affine": affine,
        "spatial_shape": torch.tensor([6, 5, n]),
        "slices": torch.rand(n + 1, 1, 5, 6),
    } | changes
    return Compose([InstanceScoresd(), RankInstancesd(), SliceScoresToVolumed("scores", "score_volume")])(item)


def slide(**changes):
    """Return an item of a slide after postprocessing, with three tiles padded to four."""
    item = {
        "case_id": "s1",
        "pred": torch.tensor([0.25, 0.75]),
        "attention": torch.tensor([0.2, 0.5, 0.3, 0.0])[:, None],
        "mask": torch.arange(4) < 3,
        "coords": torch.tensor([[0, 0], [64, 0], [64, 64], [0, 0]]),
        "tile_size": 64,
        "unit": "px",
        "spatial_shape": (160, 128),
        "slide_mpp": 0.5,
    } | changes
    to_heatmap = TileScoresToHeatmapd("scores", "heatmap", skip_unplaced=True, downsample=16, scaling="ratio")
    return Compose([InstanceScoresd(), RankInstancesd(), to_heatmap])(item)


def engine_of(items, kept=None, error=None):
    """Return an engine that gives postprocessed ``items`` one by one, and ends with ``error`` if given."""

    def step(engine, item):
        engine.state.batch = [{key: value for key, value in item.items() if key != "pred"}]
        engine.state.output = [{"pred": item.get("pred")}]
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        if kept is not None:
            kept.extend(item["case_id"] for item in engine.state.batch)
        return engine.state.output

    def data():
        yield from items
        if error is not None:
            raise error

    engine = Engine(step)
    engine.register_events(*IterationEvents)
    run, engine.run = engine.run, lambda: run(data(), epoch_length=len(items) + (error is not None))
    return engine


def infer(results, items):
    """Run an engine of ``items`` and return those that remain in its output."""
    kept = []
    engine = engine_of(items, kept)
    results.attach(engine)
    engine.run()
    return kept
