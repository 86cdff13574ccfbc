"""Test against defect 12 of other MIL packages: learning rates. For 16, exports, see test_zoo_rules.py."""

import pytest


def test_scan_mil_defect_12_learning_rate_differs_from_the_config(start, digits, tmp_path):
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
