"""Training of one fold of made bags, for the tests of this folder."""

from monai_mil_ext.apps.study import TrainingSettings, parse_methods, train_bag_network
from monai_mil_ext.apps.study.outputs import with_bin_edges
from monai_mil_ext.data import read_bag, write_bag
from tests.apps.study.cohort_bags import TASKS

SETTINGS = TrainingSettings(epochs=15, learning_rate=0.01)


def train(items, kind="classification", method="ABMIL", settings=SETTINGS, **values):
    task = with_bin_edges(TASKS[kind], items)
    return train_bag_network(parse_methods(method)[0], values, items[:24], items[24:], task, settings), task


def with_positions(items, folder, positions):
    """Return the items with copies of their bags that have positions in mm."""
    folder.mkdir()
    for item in items:
        features = read_bag(item["image"])["features"]
        path = folder / f"{item['case_id']}.h5"
        write_bag(path, {"features": features, **({} if positions is None else {"position": positions})})
    return [{**item, "image": str(folder / f"{item['case_id']}.h5")} for item in items]
