"""Tests of the choice of a bundle's model."""

import pytest

from monai_mil_ext.apps.bundle import find_model, is_demonstration, mark_demonstration, save_model, training_folder
from monai_mil_ext.networks.nets import ABMIL


@pytest.fixture
def models(tmp_path):
    """Folder of a bundle's models, with weights as those that come with it."""
    save_model(tmp_path / "models", ABMIL(4, 2))
    mark_demonstration(tmp_path / "models", "digits")
    return tmp_path / "models"


def test_before_a_training_it_is_the_model_of_the_bundle(models):
    (models / "fold_0").mkdir()  # empty
    (models / "features").mkdir()
    (models / "features" / "cache.json").touch()
    assert find_model(models) == models.as_posix()
    assert training_folder(models) == (models / "trained").as_posix()
    assert find_model(models / "absent") == training_folder(models / "absent") == (models / "absent").as_posix()


@pytest.mark.parametrize("file", ["model.pt", "checkpoint_epoch=1.pt"])
def test_a_training_that_has_begun_is_never_mistaken(models, file):
    (models / "fold_3").mkdir()
    (models / "fold_3" / file).touch()
    assert find_model(models) == training_folder(models) == (models / "fold_3").as_posix()


def test_of_several_trained_models_one_has_to_be_named(models):
    for name in ("trained", "fold_0"):
        save_model(models / name, ABMIL(4, 2))
    match = "must name one of the trained models: models/fold_0, models/trained; add --ckpt_dir models/trained"
    with pytest.raises(ValueError, match=match):
        find_model(models)


def test_weights_of_ones_own_in_the_place_of_the_bundles_count_as_trained(models):
    save_model(models, ABMIL(4, 2))
    assert not is_demonstration(models)
    assert find_model(models) == training_folder(models) == models.as_posix()
    save_model(models / "trained", ABMIL(4, 2))
    with pytest.raises(ValueError, match="must name one of the trained models: models, models/trained"):
        find_model(models)
    with pytest.raises(ValueError, match="`models` must be a local path"):
        find_model("s3://bucket/models")


def test_the_mark_changes_nothing_else(models):
    before = (models / "model.json").read_text()
    mark_demonstration(models, "digits")
    assert (models / "model.json").read_text() == before
