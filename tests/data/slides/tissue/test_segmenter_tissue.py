"""Tests of tissue detection by segmentation networks."""

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from monai_mil_ext.data import SegmenterTissue, SlideFile, TissueLabel, find_tissue
from monai_mil_ext.data.features.fingerprints import fingerprint
from monai_mil_ext.transforms import TileBag
from tests.make_slide import stained, write_slide

BOX = (60, 40, 260, 180)  # left, top, right, bottom
CLASSES = ("background", "tissue", "pen")
GLASS, TISSUE, PEN = (243, 242, 244), (196, 120, 170), (20, 110, 50)


def by_colors(colors=(GLASS, TISSUE, PEN)):
    """A network of one layer whose largest logit is that of the nearest color."""
    colors = torch.tensor(colors) / 255
    layer = nn.Conv2d(3, len(colors), 1)
    layer.weight.data, layer.bias.data = 2 * colors[:, :, None, None], -(colors**2).sum(dim=1)
    return layer


class Outputs(nn.Module):
    """Network with another kind of output."""

    def __init__(self, wrap):
        super().__init__()
        self.net, self.wrap = by_colors(), wrap

    def forward(self, x):
        return self.wrap(self.net(x))


def marked():
    """Tissue, half of it below a stroke of a pen."""
    image = stained((240, 320), BOX, color=TISSUE)
    image[110:180, 60:260] = PEN
    return image


def test_segmenter_tissue_gives_each_class_its_label():
    labels = SegmenterTissue(by_colors(), CLASSES, mpp=8).labels(marked(), mpp=8)
    assert (labels[50:100, 70:250] == TissueLabel.TISSUE).all()
    assert (labels[120:170, 70:250] == TissueLabel.INK).all()
    assert (labels[:30] == TissueLabel.GLASS).all()
    both = SegmenterTissue(by_colors(), CLASSES, tissue=["tissue", "pen"], mpp=8)
    assert both(marked(), mpp=8)[50:170, 70:250].all()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: (x,),
        lambda x: type("Output", (), {"logits": x})(),
        lambda x: nn.functional.avg_pool2d(x, 4),  # coarser, as of Segformer
    ],
    ids=["tuple", "logits", "coarse"],
)
def test_segmenter_tissue_of_other_outputs(wrap):
    plain = SegmenterTissue(by_colors(), CLASSES, mpp=8).labels(marked(), mpp=8)
    labels = SegmenterTissue(Outputs(wrap), CLASSES, mpp=8).labels(marked(), mpp=8)
    assert (labels == plain).mean() > 0.97


@pytest.mark.parametrize("window", [64, 512])
@pytest.mark.parametrize("mpp", [4.0, 10.0])
def test_segmenter_tissue_runs_at_the_resolution_of_the_network(mpp, window):
    """Windows and resizing move edges by less than two pixels of the coarser grid."""
    seen = []
    network = by_colors()
    network.register_forward_hook(lambda module, x, y: seen.append(tuple(x[0].shape)))
    labels = SegmenterTissue(network, CLASSES, mpp=mpp, window=window).labels(marked(), mpp=5.0)
    assert labels.shape == (240, 320)
    assert {shape[2:] for shape in seen} == {(window, window)}
    reach = 2 * int(max(1, mpp / 5))
    assert (labels[40 + reach : 110 - reach, 60 + reach : 260 - reach] == TissueLabel.TISSUE).all()
    assert (labels[110 + reach : 180 - reach, 60 + reach : 260 - reach] == TissueLabel.INK).all()
    assert (labels[: 40 - reach] == TissueLabel.GLASS).all()


def test_segmenter_tissue_normalizes():
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    seen = []
    network = by_colors()
    network.register_forward_hook(lambda module, x, y: seen.append(x[0]))
    SegmenterTissue(network, CLASSES, mpp=8, mean=mean, std=std, window=32).labels(
        np.full((32, 32, 3), 51, np.uint8), mpp=8
    )
    expected = (0.2 - torch.tensor(mean)) / torch.tensor(std)
    assert torch.allclose(seen[0].mean(dim=(0, 2, 3)), expected, atol=1e-5)


def test_segmenter_tissue_of_a_unet_of_monai_trained_on_colors():
    torch.manual_seed(0)
    network = UNet(spatial_dims=2, in_channels=3, out_channels=3, channels=(8, 16), strides=(2,))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    image = torch.from_numpy(marked()).permute(2, 0, 1)[None] / 255
    target = by_colors()(image).argmax(dim=1)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(image), target).backward()
        optimizer.step()
    other = np.ascontiguousarray(marked()[::-1, ::-1])
    labels = SegmenterTissue(network, CLASSES, mpp=8, window=128).labels(other, mpp=8)
    expected = np.array([0, 1, 2])[target[0].numpy()[::-1, ::-1]]
    assert (labels == expected).mean() > 0.95


def test_segmenter_tissue_of_hugging_face():
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        num_labels=3,
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
    )
    torch.manual_seed(0)
    network = transformers.SegformerForSemanticSegmentation(config)
    tissue = SegmenterTissue(network, CLASSES, mpp=8, window=64)
    labels = tissue.labels(marked(), mpp=8)
    assert labels.shape == (240, 320)
    assert np.array_equal(labels, tissue.labels(marked(), mpp=8))
    with torch.inference_mode():
        pixels = torch.from_numpy(marked()[:64, :64]).permute(2, 0, 1)[None] / 255
        logits = nn.functional.interpolate(network(pixels).logits, size=(64, 64), mode="bilinear", antialias=True)
    alone = tissue.labels(np.ascontiguousarray(marked()[:64, :64]), mpp=8)
    assert np.array_equal(alone, logits.argmax(dim=1)[0].numpy())


def test_segmenter_tissue_selects_the_tiles_of_a_slide(tmp_path):
    path = write_slide(tmp_path / "s.tif", marked(), mpp=0.5)
    tissue = SegmenterTissue(by_colors(), CLASSES, mpp=2.0)
    with SlideFile(path) as slide:
        found = find_tissue(slide, tissue)
    assert found.note() == "50% of what is not glass was taken for pen"
    tiles = TileBag(tissue=tissue)
    tiles = TileBag(tiles.grid.__class__(32), tissue, min_tissue=0.5)(path)
    assert tiles.coords[:, 1].max() < 110
    assert tiles.notes == found.note()


def test_segmenter_tissue_loads_weights_without_pickle(tmp_path):
    torch.save(by_colors().state_dict(), tmp_path / "w.pt")
    tissue = SegmenterTissue(nn.Conv2d(3, 3, 1), CLASSES, mpp=8, weights=tmp_path / "w.pt")
    same = SegmenterTissue(by_colors(), CLASSES, mpp=8)
    assert np.array_equal(tissue.labels(marked(), mpp=8), same.labels(marked(), mpp=8))
    assert fingerprint(tissue) == fingerprint(same) != fingerprint(SegmenterTissue(nn.Conv2d(3, 3, 1), CLASSES, mpp=8))
    with pytest.raises(ValueError, match=r"`weights` must be a state dict of Conv2d, got 'w.pt'"):
        SegmenterTissue(nn.Conv2d(3, 2, 1), CLASSES, weights=tmp_path / "w.pt")
    torch.save(nn.Conv2d(3, 3, 1), tmp_path / "pickle.pt")
    with pytest.raises(ValueError, match=r"must be an undamaged file of weights, got 'pickle.pt'"):
        SegmenterTissue(by_colors(), CLASSES, weights=tmp_path / "pickle.pt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tissue": ["tumor"]}, r"`tissue` must be names among \['background', 'tissue', 'pen'\], got \['tumor'\]"),
        ({"tissue": []}, "`tissue` must be names among"),
        ({"glass": "air"}, r"`glass` must be names among .* got \['air'\]"),
        ({"mpp": 0}, "`mpp` must be positive and finite, got 0"),
        ({"window": 0}, "`window` must be a positive integer"),
        ({"std": (1, 1, 0)}, "`mean` and `std` must have three values, those of `std` positive"),
    ],
    ids=["unknown", "none", "glass", "mpp", "window", "std"],
)
def test_segmenter_tissue_refuses_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        SegmenterTissue(by_colors(), **{"classes": CLASSES, **options})


def test_segmenter_tissue_refuses_other_logits_and_an_unknown_resolution():
    tissue = SegmenterTissue(nn.Conv2d(3, 5, 1), CLASSES)
    with pytest.raises(ValueError, match=r"`network` must give logits of 3 classes, got shape \(1, 5, 512, 512\)"):
        tissue.labels(marked(), mpp=8)
    with pytest.raises(ValueError, match=r"`mpp` must be the resolution of the thumbnail for a segmentation network"):
        tissue.labels(marked())
