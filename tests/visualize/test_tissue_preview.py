"""Tests of the pictures of tissue."""

import numpy as np
import pytest
from PIL import Image

from monai_mil_ext.data import SlideFile, TileGrid, TissueMap, find_tissue
from monai_mil_ext.transforms import TileBagd
from monai_mil_ext.visualize import plot_tissue_preview, write_tissue_preview, write_tissue_previews
from tests.make_slide import stained, write_slide

BOX = (60, 40, 260, 180)  # left, top, right, bottom
TILES = TileBagd("image", TileGrid(32))
CORNERS = np.array([[64, 64], [96, 64], [128, 96]])


def labeled(slide):
    """Labels of a detector that leaves out folds."""
    labels = np.zeros(slide.shape[:2], dtype=np.uint8)
    labels[40:180, 60:160], labels[40:180, 160:260] = 1, 2
    return labels


@pytest.fixture
def found(tmp_path):
    with SlideFile(write_slide(tmp_path / "s.tif", stained((240, 320), BOX))) as slide:
        yield find_tissue(slide, labeled)._replace(left_out="fold")


def texts(figure):
    return [text.get_text() for text in figure.axes[1].get_legend().get_texts()]


def test_tissue_preview_draws_tissue_and_tiles_where_they_are(found):
    figure = plot_tissue_preview(found, CORNERS, 32)
    tiles, tissue, fold = figure.axes[1].collections
    assert [path.vertices[0].tolist() for path in tiles.get_paths()] == CORNERS.tolist()
    assert np.ptp(tiles.get_paths()[0].vertices, axis=0).tolist() == [32, 32]
    for drawn, expected in ((tissue, [60, 40, 160, 180]), (fold, [160, 40, 260, 180])):
        vertices = np.concatenate([path.vertices for path in drawn.get_paths() if len(path.vertices)])
        assert np.allclose([*vertices.min(axis=0), *vertices.max(axis=0)], expected, atol=1)
    assert texts(figure) == ["3 tiles", "tissue", "left out: fold"]
    assert "50% of what is not glass was taken for fold" in figure.get_supxlabel()


def test_tissue_preview_counts_from_the_bounds_of_the_slide(found):
    moved = found._replace(thumbnail=found.thumbnail._replace(origin=(1000.0, 500.0)))
    axes = plot_tissue_preview(moved).axes[1]
    assert (axes.get_xlim(), axes.get_ylim()) == ((1000.0, 1320.0), (740.0, 500.0))
    vertices = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])
    assert np.allclose([*vertices.min(axis=0), *vertices.max(axis=0)], [1060, 540, 1160, 680], atol=1)


def test_tissue_preview_of_glass_and_of_a_fine_map(found):
    glass = TissueMap(
        np.zeros((2500, 30), np.uint8), found.thumbnail._replace(image=np.full((2500, 30, 3), 240, np.uint8))
    )
    figure = plot_tissue_preview(glass)
    assert texts(figure) == ["no tissue"]
    assert figure.axes[0].images[0].get_array().shape[0] <= 1024
    assert figure.axes[0].get_ylim() == pytest.approx((2500, 0), abs=3)


def test_write_tissue_preview(found, tmp_path):
    path = write_tissue_preview(tmp_path / "out", "a", found, CORNERS, 32)
    assert path == tmp_path / "out" / "a_tissue.jpg"
    with Image.open(path) as image:
        assert image.format == "JPEG"
        assert image.info["comment"] == b"research use only"
        pixels = np.asarray(image.convert("RGB")).astype(int)
    blue = (pixels[..., 2] - pixels[..., 0] > 90).mean()
    orange = (pixels[..., 0] - pixels[..., 2] > 90).mean()
    assert blue > 0.001
    assert orange > 0.01
    with pytest.raises(ValueError, match="`case_id` must"):
        write_tissue_preview(tmp_path, "../a", found)
    with pytest.raises(ValueError, match=r"`corners` must be \(N, 2\) with a positive `edge`, got \(3, 2\) and 0.0"):
        write_tissue_preview(tmp_path, "a", found, CORNERS)


def test_write_tissue_previews_of_all_slides_that_can_be_read(tmp_path, caplog):
    write_slide(tmp_path / "Miller.tif", stained((240, 320), BOX))
    write_slide(tmp_path / "glass.tif", stained((240, 320)))
    write_slide(tmp_path / "Jones_ink.tif", stained((240, 320), BOX, color=(20, 110, 50)))
    (tmp_path / "Smith.tif").write_bytes(b"no slide")
    names = ("Miller.tif", "glass.tif", "Jones_ink.tif", "Smith.tif", "gone.tif", "features.h5")
    items = [{"case_id": f"c{i}", "image": tmp_path / name} for i, name in enumerate(names)]
    written = write_tissue_previews(items, TILES, tmp_path / "out")
    assert written == [tmp_path / "out" / f"c{i}" / f"c{i}_tissue.jpg" for i in range(3)]
    assert all(path.is_file() for path in written)
    messages = [record.getMessage() for record in caplog.records]
    assert [text.split(":")[0] for text in messages] == ["c3", "c4"]
    assert "Smith" not in " ".join(messages)
    assert write_tissue_previews(items, TileBagd("image", tissue=False), tmp_path / "none") == []
    patient = [{"case_id": "p", "image": [tmp_path / "Miller.tif", tmp_path / "glass.tif"]}]
    written = write_tissue_previews(patient, TILES, tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == [
        "p/p_1_tissue.jpg",
        "p/p_2_tissue.jpg",
    ]
