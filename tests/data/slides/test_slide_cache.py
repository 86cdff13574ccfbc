"""Tests of SlideCache: open slides that several readers share."""

import os
import pickle

import pytest

from monai_mil_ext.data import SlideCache
from tests.make_slide import stained, write_slide


@pytest.fixture
def paths(tmp_path):
    return [write_slide(tmp_path / f"{i}.tif", stained((64, 96)), mpp=0.5, tile=64) for i in range(2)]


def test_slide_cache_shares_an_open_slide_and_closes_the_oldest(paths):
    slides = SlideCache()
    first = slides.open(paths[0])
    assert slides.open(paths[0]) is slides.open_pixels(paths[0]) is first
    second = slides.open(paths[1])
    assert (first.closed, second.closed) == (True, False)
    slides.close()
    assert second.closed


def test_slide_cache_keeps_resolutions_apart_and_pixels_together(paths):
    slides = SlideCache(max_open=2)
    plain, given = slides.open(paths[0]), slides.open(paths[0], mpp=0.25)
    assert (plain.mpp, given.mpp) == (pytest.approx(0.5, rel=1e-3), 0.25)
    assert slides.open_pixels(paths[0]) in (plain, given)


def test_slide_cache_keeps_magnifications_apart(paths):
    slides = SlideCache(max_open=2)
    assert slides.open(paths[0]).magnification is None
    assert slides.open(paths[0], magnification=40).magnification == 40.0


def test_slide_cache_opens_a_file_that_changed_again(paths):
    slides = SlideCache(max_open=2)
    first = slides.open(paths[0])
    os.utime(paths[0], ns=(1, 1))
    assert slides.open(paths[0]) is not first


def test_slide_cache_gives_no_handle_to_another_process(paths, monkeypatch):
    slides = SlideCache()
    first = slides.open(paths[0])
    assert pickle.loads(pickle.dumps(slides)).open(paths[0]) is not first  # noqa: S301
    monkeypatch.setattr(os, "getpid", lambda: -2)
    assert slides.open(paths[0]) is not first


def test_slide_cache_must_keep_a_slide():
    with pytest.raises(ValueError, match="`max_open` must be a positive integer, got 0"):
        SlideCache(max_open=0)
