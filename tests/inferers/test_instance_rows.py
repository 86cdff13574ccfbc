"""Tests of InstanceRows: rows of a batch or of a file, read in chunks."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch.testing import assert_close

from monai_mil_ext.inferers.instance_rows import InstanceRows, cast
from tests.helpers import Rows


def test_instance_rows_of_a_batch_are_its_instances_bag_after_bag():
    batch = torch.rand(2, 3, 4)
    rows = InstanceRows(MetaTensor(batch))
    assert (rows.bags, rows.instances, len(rows)) == (2, 3, 6)
    assert_close(rows.read(2, 5), batch.view(6, 4)[2:5], rtol=0, atol=0)
    assert type(rows.read(0, 1)) is torch.Tensor
    assert_close(rows.whole(None, step=2), batch, rtol=0, atol=0)


def test_instance_rows_of_a_file_are_read_by_steps():
    values = np.arange(14, dtype=np.float16).reshape(7, 2)
    lazy = Rows(values)
    rows = InstanceRows(lazy)
    assert (rows.bags, rows.instances) == (1, 7)
    whole = rows.whole(torch.zeros(1, dtype=torch.float64), step=3)
    assert_close(whole, torch.tensor(values).double()[None], rtol=0, atol=0)
    assert lazy.slices == [(0, 0), (0, 3), (3, 6), (6, 7)]


def test_instance_rows_read_copies_an_array_that_is_read_only():
    values = np.zeros((3, 2), dtype=np.float32)
    values.setflags(write=False)
    InstanceRows(values).read(0, 2).add_(1)
    assert not values.any()


def test_instance_rows_rejects_bad_inputs():
    with pytest.raises(ValueError, match=r"`inputs` must have shape \(B, N, ...\), got \(7, 2\)"):
        InstanceRows(torch.rand(7, 2))
    with pytest.raises(ValueError, match=r"`inputs` must be a batch \(B, N, ...\) or rows of a bag, got object"):
        InstanceRows(object())
    for values, start, stop in ((np.zeros(4), 0, 2), (np.zeros((4, 2)), 3, 5)):
        with pytest.raises(ValueError, match=r"`inputs` must give rows \(2, ...\) of a bag, got \("):
            InstanceRows(values).read(start, stop)


def test_cast_keeps_integers_and_converts_floating_point():
    like = torch.zeros(1, dtype=torch.float64)
    assert cast(torch.ones(2), like).dtype == torch.float64
    assert cast(torch.ones(2, dtype=torch.int64), like).dtype == torch.int64
    assert cast(torch.ones(2), None).dtype == torch.float32
