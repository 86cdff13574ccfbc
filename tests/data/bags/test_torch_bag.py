"""Tests of the reader of bags that PyTorch saved."""

import pickle

import numpy as np
import pytest
import torch

from monai_mil_ext.data import BagFileError, inspect_bag, read_bag
from tests.data import bag_files as make
from tests.data.bag_files import BARE, FEATURES, GRID, ROWS, N, Trap, check_layout

TENSORS = {"features": torch.from_numpy(FEATURES), "coords": torch.from_numpy(GRID), "label": 1, "name": "a"}
CASES = {
    "tensor.pt": (lambda p: make.saved(p, TENSORS["features"]), "torch", BARE, None),
    "numpy.pt": (lambda p: make.saved(p, FEATURES), "torch", BARE, None),
    "old.pt": (lambda p: make.saved(p, FEATURES, _use_new_zipfile_serialization=False), "torch", BARE, None),
    "dictionary.pt": (lambda p: make.saved(p, TENSORS), "torch", BARE, GRID),
    "view.pt": (lambda p: make.saved(p, TENSORS["features"].T.contiguous().T), "torch", BARE, None),
    "part.pt": (lambda p: make.saved(p, torch.cat([TENSORS["features"]] * 2)[N:]), "torch", BARE, None),
}


@pytest.mark.filterwarnings("ignore:.* is read whole even for a few of its rows")
@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_open_torch_reads_tensors_arrays_and_dictionaries(name, rows, tmp_path):
    check_layout(tmp_path / name, CASES[name], rows)


def test_open_torch_keeps_scalars_and_strings_as_attributes(tmp_path):
    path = make.saved(tmp_path / "a.pt", {**TENSORS, "mpp": np.float32(0.5)})
    assert read_bag(path, ["label", "name", "mpp"]) == {"label": 1, "name": "a", "mpp": 0.5}


def test_open_torch_runs_no_code_of_a_file(tmp_path):
    trap, path = Trap(tmp_path / "sprung"), tmp_path / "a.pt"
    hostile = {"features": TENSORS["features"], "more": trap}
    writers = [
        lambda: torch.save(hostile, path),
        lambda: torch.save(hostile, path, _use_new_zipfile_serialization=False),
        lambda: make.torch_archive(path, pickle.dumps(trap, 2)),
        lambda: path.write_bytes(pickle.dumps(trap, 2)),
        lambda: path.write_bytes(pickle.dumps(trap, 4)),
        lambda: path.write_bytes(pickle.dumps(trap, 0)),
        lambda: np.save(path.open("wb"), np.array([trap], object), allow_pickle=True),
        lambda: np.savez(path.open("wb"), features=np.array([trap], object)),
    ]
    for write in writers:
        write()
        for read in (inspect_bag, read_bag):
            with pytest.raises(
                BagFileError, match=r"nothing else is unpickled|known format|numbers|features.* 'a\.pt'"
            ):
                read(path)
    assert not (tmp_path / "sprung").exists()
