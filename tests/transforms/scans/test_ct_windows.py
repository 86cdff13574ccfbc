"""Tests of CTWindows: values computed by hand, the order of channels, invalid windows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose
from torch.testing import assert_close

from monai_mil_ext.transforms import CTWindows, CTWindowsd, SliceBagd, SliceSelection
from tests.transforms.geometry import scan


@given(
    center=st.floats(-1000, 1000), width=st.floats(1, 3000), hu=st.lists(st.floats(-2000, 4000), min_size=1, max_size=9)
)
def test_ct_windows_is_the_linear_exact_function_of_dicom(center, width, hu):
    """DICOM PS3.3 C.11.2.1.3.2: 0 below c - w/2, 1 above c + w/2, otherwise ((x - c) / w + 0.5)."""
    x = np.array(hu)
    expected = np.select([x <= center - width / 2, x > center + width / 2], [0.0, 1.0], (x - center) / width + 0.5)
    out = CTWindows([(center, width)])(torch.tensor([hu]))
    np.testing.assert_allclose(out[0].numpy(), expected, atol=2e-3)
    assert out.dtype == torch.float32
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1


EDGES = {
    "abdomen": (-150, 250),
    "bone": (-800, 2000),
    "brain": (0, 80),
    "liver": (-45, 105),
    "lung": (-1350, 150),
    "mediastinum": (-125, 225),
    "pe": (-250, 450),
    "stroke": (20, 60),
    "subdural": (-20, 180),
}


@pytest.mark.parametrize("name", CTWindows.PRESETS)
def test_ct_windows_presets(name):
    black, white = EDGES[name]
    hu = torch.tensor([black - 9.0, black, (black + white) / 2, white, white + 9.0]).unsqueeze(0)
    assert_close(CTWindows([name])(hu).as_tensor(), torch.tensor([[0.0, 0.0, 0.5, 1.0, 1.0]]))


def test_ct_windows_orders_channels_by_window():
    image = MetaTensor(
        torch.stack([torch.full((3, 3, 2), hu) for hu in (0.0, 40.0)]), affine=torch.diag(torch.arange(1.0, 5))
    )
    image.affine[3, 3] = 1
    out = CTWindows(["brain", (0, 160)])(image)
    assert out[:, 0, 0, 0].tolist() == [0, 0.5, 0.5, 0.75]
    assert torch.equal(out.affine, image.affine)
    assert image[1, 0, 0, 0] == 40
    bag = CTWindows(["brain", (0, 160)], channel_dim=1)(image.as_tensor().movedim(-1, 0))
    assert bag.shape == (2, 4, 3, 3)
    assert bag[1, :, 0, 0].tolist() == [0, 0.5, 0.5, 0.75]


def test_ct_windows_commutes_with_neighboring_slices():
    """Channel w(2n + 1) + j: window w, neighbor j."""
    item = {"image": scan((5, 4, 6), np.eye(4)) * 10 - 600}
    windows, selection = ["brain", "lung", "bone"], SliceSelection(num_neighbors=1)
    before = Compose([CTWindowsd("image", windows), SliceBagd("image", selection=selection)])(item)["image"]
    after = Compose([SliceBagd("image", selection=selection), CTWindowsd("image", windows, channel_dim=1)])(item)[
        "image"
    ]
    assert before.shape == (6, 9, 4, 5)
    assert_close(torch.as_tensor(before).as_subclass(torch.Tensor), torch.as_tensor(after).as_subclass(torch.Tensor))
    lung = CTWindows(["lung"])(SliceBagd("image")(item)["image"])
    assert_close(before[2, 3:6].as_subclass(torch.Tensor), lung[1:4, 0].as_subclass(torch.Tensor))


@pytest.mark.parametrize(
    ("windows", "match"),
    [
        ("brain", "`windows` must be a list of windows, got 'brain'"),
        ([], r"`windows` must be a list of windows, got \[\]"),
        (["brian"], r"`windows` must be one of 'abdomen', .*, got 'brian'; did you mean 'brain'\?"),
        ([(40, 0)], r"must be presets or \(center, width\) in HU with a positive width, got \(40, 0\)"),
        ([[40]], r"must be presets or \(center, width\) in HU with a positive width, got \[40\]"),
        ([(float("nan"), 3)], r"with a positive width, got \(nan, 3\)"),
        ([(40, float("inf"))], r"with a positive width, got \(40, inf\)"),
        ([40], "with a positive width, got 40"),
        ([["wide", 3]], r"with a positive width, got \['wide', 3\]"),
    ],
)
def test_ct_windows_names_invalid_windows(windows, match):
    with pytest.raises(ValueError, match=match):
        CTWindows(windows)
