"""Tests against defects of other MIL packages in training and export: 12 learning rates, 16 bag sizes."""

import onnxruntime
import pytest
import torch
from monai.bundle import ConfigParser, onnx_export

from tests.contracts.runtime_laws import agree, run
from tests.helpers import fill

from .conftest import BUNDLE


def test_defect_12_learning_rate_differs_from_the_config(start, digits, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folders = {"dataset_dir": str(digits), "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)}
    workflow, rates = start("train", "digits", **folders, epochs=2, learning_rate=0.0007), []
    optimizer = workflow.parser.get_parsed_content("optimizer")
    optimizer.register_step_pre_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
    workflow.run()
    workflow.finalize()
    steps = len(rates) // 2
    assert rates == pytest.approx([0.0007] * steps + [0.00035] * steps)  # half way down the cosine
    log = EventAccumulator(str(tmp_path))
    log.Reload()
    logged = [(event.step, event.value) for event in log.Scalars("learning_rate")]
    assert logged == [(0, pytest.approx(0.0007)), (steps, pytest.approx(0.00035))]


@pytest.mark.slow
def test_defect_16_onnx_export_of_a_bundle_has_a_fixed_bag_size(tmp_path):
    config = ConfigParser.load_config_file(BUNDLE / "configs" / "train.yaml")
    features = config["in_features"]
    net = fill(
        ConfigParser({key: config[key] for key in ("in_features", "network_def")}).get_parsed_content("network_def")
    )
    torch.save(net.state_dict(), tmp_path / "model.pt")
    axes = {"bag": {0: "batch", 1: "instances"}}
    onnx_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.onnx"),
        ckpt_file=str(tmp_path / "model.pt"),
        config_file=str(BUNDLE / "configs" / "train.yaml"),
        input_shape=[2, 5, features],
        converter_kwargs={"input_names": ["bag"], "output_names": ["logits"], "dynamic_axes": axes},
    )
    runtime = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for shape in ((1, 1), (3, 9)):
        bags = torch.randn(*shape, features)
        agree(run(runtime, bag=bags), net(bags))
