"""Tests of the settings of a training."""

import pytest

from monai_mil_ext.apps.study import TrainingSettings, parse_methods
from monai_mil_ext.apps.study.training import apply_settings


def test_settings_of_network_loss_and_training():
    method, training = apply_settings(
        parse_methods("TransMIL")[0], TrainingSettings(), {"hidden_size": 64, "guidance": 0.5, "epochs": 3}
    )
    assert (method.network["hidden_size"], method.guidance) == (64, 0.5)
    assert (training.epochs, training.learning_rate) == (3, 0.0002)
    with pytest.raises(ValueError, match=r"settings of ABMIL must be of .*, got \['widht'\]"):
        apply_settings(parse_methods("ABMIL")[0], TrainingSettings(), {"widht": 3})
