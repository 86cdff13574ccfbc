"""Tests of the bundles that are installed with the package."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from monai_mil_ext.apps import bundle_files
from monai_mil_ext.apps.bundle_files import copy_bundle, list_bundles

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", list_bundles())
def test_copy_bundle_has_the_files_of_the_repository(name, tmp_path):
    command = ["git", "ls-files", "."]
    tracked = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT / "bundles" / name).stdout
    made = copy_bundle(name, tmp_path / "work")
    assert sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()) == sorted(tracked.split())
    assert (made / "configs/train.yaml").exists() or name == "instance_encoder"
    assert [path.name for path in (tmp_path / "work").iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "weights"), [("scan_mil", "models/trained/model.pt"), ("instance_encoder", "models/model.pt")]
)
def test_copy_bundle_leaves_weights_of_ones_own_where_they_are(name, weights, tmp_path, monkeypatch):
    folder = copy_bundle(name, tmp_path / "bundles")
    (folder / weights).parent.mkdir(parents=True)
    (folder / weights).write_bytes(b"weights")
    monkeypatch.setattr(bundle_files, "CLONE", tmp_path / "bundles")
    assert not (copy_bundle(name, tmp_path) / weights).exists()


def test_copy_bundle_refuses_to_overwrite(tmp_path):
    (tmp_path / "scan_mil").symlink_to("nowhere")
    with pytest.raises(FileExistsError, match="must be without 'scan_mil', which would be overwritten"):
        copy_bundle("scan_mil", tmp_path)
    with pytest.raises(ValueError, match="`folder` must be a local path"):
        copy_bundle("scan_mil", "s3://bucket")


def test_list_bundles_of_an_installation(tmp_path, monkeypatch):
    """An installation has no clone's folder beside the package."""
    made = copy_bundle("scan_mil", tmp_path / "elsewhere/share/monai_mil_ext/bundles")
    monkeypatch.setattr(bundle_files, "CLONE", tmp_path / "bundles")
    record = Path("../share/monai_mil_ext/bundles/scan_mil/configs/metadata.json")
    file = SimpleNamespace(as_posix=record.as_posix, name=record.name, locate=lambda: made / "configs/metadata.json")
    monkeypatch.setattr(bundle_files, "distribution", lambda name: SimpleNamespace(files=[file]))
    assert list(list_bundles()) == ["scan_mil"]
    file.locate = lambda: made / "gone" / "configs/metadata.json"  # as the record of pip install --target says
    with pytest.raises(FileNotFoundError, match="must be installed with its bundles"):
        list_bundles()
    monkeypatch.setattr(bundle_files, "distribution", lambda name: SimpleNamespace(files=None))
    with pytest.raises(FileNotFoundError, match="must be installed with its bundles"):
        list_bundles()


def test_list_bundles_of_an_installation_into_a_folder(tmp_path, monkeypatch):
    """``pip install --target`` puts them beside the package, and says that they are elsewhere."""
    copy_bundle("scan_mil", tmp_path / "share/monai_mil_ext/bundles")
    monkeypatch.setattr(bundle_files, "CLONE", tmp_path / "bundles")
    assert list(list_bundles()) == ["scan_mil"]
