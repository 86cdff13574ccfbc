"""Tests of CellImages: reading from folders and archives, and refusal of invalid ones."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from monai_mil_ext.data import CellImages
from monai_mil_ext.utils import EmptyBagError


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


def gray(value=100, size=(5, 4)):
    return Image.new("L", size, value)


def archive(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


@pytest.fixture(params=["folder", "zip"])
def make(request, tmp_path):
    """Return a function that writes the files to a folder or an archive."""

    def write(entries):
        if request.param == "zip":
            return archive(tmp_path / "cells.zip", entries)
        for name, content in entries.items():
            (tmp_path / "cells" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "cells" / name).write_bytes(content)
        return tmp_path / "cells"

    return write


def test_cell_images_are_sorted_by_name(make):
    image = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
    kinds = {"z/1.png": "PNG", "a.tif": "TIFF", "b.BMP": "BMP", "c.jpg": "JPEG"}
    others = {"notes.txt": b"x", ".hidden.png": b"x", "__MACOSX/a.png": b"x", "sub/.thumbs/b.png": b"x"}
    cells = CellImages(make({name: encoded(image, kind) for name, kind in kinds.items()} | others))
    assert cells.names == ("a.tif", "b.BMP", "c.jpg", "z/1.png")
    assert len(cells) == 4
    for name in ("a.tif", "b.BMP", "z/1.png"):
        assert np.array_equal(cells.read(name), np.asarray(image))
    assert np.abs(cells.read("c.jpg").astype(int) - np.asarray(image)).max() < 30


def test_cell_images_channels_and_size(make):
    half = Image.new("L", (20, 8), 0)
    half.paste(255, (10, 0, 20, 8))
    cells = CellImages(make({"half.png": encoded(half), "red.png": encoded(Image.new("RGB", (3, 2), (255, 0, 0)))}))
    assert cells.read("half.png").shape == (8, 20, 3)
    assert cells.read("red.png", channels=1).tolist() == [[[76]] * 3] * 2  # ITU-R 601
    small = cells.read("half.png", 1, (4, 4))
    assert small.shape == (4, 4, 1)
    assert small[0, :, 0].tolist() == sorted(small[0, :, 0].tolist())
    assert small.mean() == pytest.approx(127.5, abs=2)  # what shrinks is averaged, not picked


def test_cell_images_are_white_where_transparent(make):
    clear = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    clear.putpixel((1, 0), (10, 20, 30, 255))
    cells = CellImages(make({"a.png": encoded(clear)}))
    assert cells.read("a.png").tolist() == [[[255, 255, 255], [10, 20, 30]]]


def test_cell_images_raise_empty_bag_error(make):
    with pytest.raises(EmptyBagError, match="`image` must hold an image of a cell, got none in 'cells"):
        CellImages(make({"notes.txt": b"nothing"}))


def test_cell_images_limits(make):
    path = make({f"{i}.png": encoded(gray()) for i in range(3)})
    with pytest.raises(ValueError, match="`image` must hold at most 2 cells, got 3 in 'cells"):
        CellImages(path, max_cells=2)
    with pytest.raises(ValueError, match=r"cell '1.png' of 'cells\S* must have at most 30 bytes, got more"):
        CellImages(path, max_bytes=30).read("1.png")
    with pytest.raises(ValueError, match=r"cell '1.png' of 'cells\S* must have at most 19 pixels, got \(5, 4\)"):
        CellImages(path, max_pixels=19).read("1.png")
    assert CellImages(path, max_pixels=20).read("1.png").shape == (4, 5, 3)


def test_cell_images_decompress_no_more_than_max_bytes(tmp_path):
    path = archive(tmp_path / "bomb.zip", {"a.png": bytes(50_000_000)})
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    with pytest.raises(ValueError, match="must have at most 1000000 bytes, got more"):
        CellImages(path, max_bytes=10**6).read("a.png")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "x/../../a.png", "..\\a.png", "C:/a.png"])
def test_cell_images_refuse_paths_out_of_the_archive(tmp_path, name):
    path = archive(tmp_path / "cells.zip", {"fine.png": encoded(gray()), name: encoded(gray())})
    with pytest.raises(ValueError, match="`image` must hold paths below the archive, got"):
        CellImages(path)


def test_cell_images_ignore_links_out_of_the_folder(tmp_path):
    (tmp_path / "secret.png").write_bytes(encoded(gray()))
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "own.png").write_bytes(encoded(gray()))
    (tmp_path / "cells" / "link.png").symlink_to(tmp_path / "secret.png")
    assert CellImages(tmp_path / "cells").names == ("own.png",)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_cell_images_refuse_repeated_names(tmp_path):
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as file:
        for value in (1, 2):
            file.writestr("a.png", encoded(gray(value)))
    with pytest.raises(ValueError, match=r"`image` must hold every name once, got 'a.png' 2 times"):
        CellImages(tmp_path / "c.zip")


def test_cell_images_refuse_other_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`image` must be a folder or zip archive that exists, got 'no.zip'"):
        CellImages(tmp_path / "no.zip")
    (tmp_path / "a.zip").write_bytes(b"PK but no archive")
    with pytest.raises(ValueError, match=r"`image` must be a folder or a zip archive, got 'a.zip'"):
        CellImages(tmp_path / "a.zip")


def test_cell_images_refuse_other_formats_and_wide_grays(make):
    wide = Image.fromarray(np.full((2, 2), 40_000, dtype=np.uint16))
    cells = CellImages(make({"wide.png": encoded(wide), "gif.png": encoded(gray(), "GIF")}))
    with pytest.raises(
        ValueError, match=r"cell 'wide.png' of 'cells\S* must have eight bits per channel, got mode I;16"
    ):
        cells.read("wide.png")
    with pytest.raises(ValueError, match=r"cell 'gif.png' of 'cells\S* must be an image that can be read"):
        cells.read("gif.png")
    with pytest.raises(ValueError, match="`name` must be that of a cell of 'cells"):
        cells.read("../cells/wide.png")


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(np.uint8))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of tags that make no sense
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
@given(data=st.data())
def test_cell_images_read_or_name_a_damaged_image(tmp_path_factory, kind, data):
    content = bytearray(encoded(NOISE, kind))
    content = content[: data.draw(st.integers(0, len(content)))]
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("cells") / "a.png"
    path.write_bytes(bytes(content))
    results = []
    try:
        results.append(CellImages(path.parent).read("a.png").ndim)
    except ValueError as error:
        results.append(str(error))
    assert results == [3] or (results[0].startswith("cell 'a.png' of 'cells") and "0x" not in results[0])


def test_cell_images_name_the_cell_of_a_damaged_archive(tmp_path):
    path = archive(tmp_path / "c.zip", {"a.png": encoded(NOISE)})
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"cell 'a.png' of 'c.zip' must be an image that can be read, got"):
        CellImages(path).read("a.png")
