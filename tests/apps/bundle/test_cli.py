"""Tests of the check of a bundle's config: every way to run it, what is accepted, and what is refused."""

import sys

import numpy as np
import pytest
from monai.bundle import ConfigWorkflow, run, run_workflow

from monai_mil_ext.apps.bundle import check_cli_overrides
from monai_mil_ext.utils.exceptions import root_cause

CONFIG = """
imports: [$import monai_mil_ext]
epochs: 1
split: val
windows: {lung: [-1000, 400]}
for_overlays: null
trainer: {_target_: dict, max_epochs: '@epochs', windows: '@windows'}
train:
  trainer: '@trainer'
  interval: 1
  handlers: []
  named_handlers: {stats: {_target_: dict}}
  all_handlers: '$list(@train#named_handlers.values())'
initialize: [$monai_mil_ext.apps.bundle.check_cli_overrides()]
run: ['$print(@train#trainer, @split)']
"""


@pytest.fixture
def folder(tmp_path):
    """Configs of a bundle, of which one is an overlay."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.yaml").write_text(CONFIG)
    (tmp_path / "configs" / "overlay.yaml").write_text("patience: 3\nsplit: test\nfor_overlays: 1\nepochs: 2\n")
    (tmp_path / "configs" / "metadata.json").write_text('{"version": "1", "epoch": "a field of the metadata"}')
    return tmp_path


def initialize(folder, *overlays, **overrides):
    files = [str(folder / "configs" / "train.yaml"), *map(str, overlays)]
    return ConfigWorkflow(files, workflow_type="train", logging_file=False, **overrides).initialize()


def refusal(action, *args, **kwargs):
    """The message of a refused config."""
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        action(*args, **kwargs)
    assert isinstance(root_cause(error.value), ValueError)
    return str(root_cause(error.value))


def by_workflow(folder, **overrides):
    initialize(folder, **overrides)


def by_run(folder, **overrides):
    run(config_file=str(folder / "configs" / "train.yaml"), **overrides)


def by_run_workflow(folder, **overrides):
    run_workflow("ConfigWorkflow", config_file=str(folder / "configs" / "train.yaml"), **overrides)


def by_args_file(folder, **overrides):
    lines = [f"{key}: {value}" for key, value in overrides.items()]
    (folder / "args.yaml").write_text("\n".join([f"config_file: {folder / 'configs' / 'train.yaml'}", *lines]))
    run(args_file=str(folder / "args.yaml"))


def by_overlay(folder, **overrides):
    (folder / "mine.yaml").write_text("\n".join(f"{key}: {value}" for key, value in overrides.items()))
    initialize(folder, folder / "mine.yaml")


every_way = pytest.mark.parametrize("way", [by_workflow, by_run, by_run_workflow, by_args_file, by_overlay])


@every_way
def test_a_misspelled_key_is_refused_however_the_bundle_is_run(folder, way):
    assert refusal(way, folder, epochz=3).endswith("got 'epochz'; did you mean 'epochs'?")
    assert refusal(way, folder, **{"train#intervall": 3}).endswith("got 'intervall'; did you mean 'interval'?")


@every_way
def test_known_keys_are_accepted_however_the_bundle_is_run(folder, way):
    way(folder, epochs=3)
    way(folder, **{"trainer#amp": True, "train::interval": 2})


@pytest.mark.parametrize(
    "overrides",
    [
        {"windows": {"bone": [0, 1]}},  # used as a whole
        {"train#named_handlers#mine": {"_target_": "dict"}},  # likewise
        {"for_overlays": 5},  # used by nothing yet
        {"_note": "of Monday"},
        {"run_id": "epochs"},
        {"train#handlers": [{"_target_": "dict"}]},
        {"bundle_root": ".", "dataset_dir": "."},  # read by MONAI's tools
        {"epochs": 3, "split": "test", "for_overlays": 2, "train#interval": 4},
    ],
    ids=str,
)
def test_what_is_used_is_accepted(folder, overrides):
    initialize(folder, **overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        {"patience": 5},  # of an overlay that was not given
        {"version": "2"},  # of the metadata
        {"epoch": 5},
        {"my_note": 5, "epochs": "$1 + 1"},
        {"train#handler": [1]},
        {"lr": 0.1},
    ],
    ids=str,
)
def test_what_nothing_uses_is_refused(folder, overrides):
    assert "must be one of" in refusal(initialize, folder, **overrides)


def test_a_remote_folder_is_refused(folder):
    for key, value in (("ckpt_dir", "s3://bucket/models"), ("input", "ftp://host/a.h5")):
        (folder / "mine.yaml").write_text(
            "ckpt_dir: models\ninput: a.h5\ntracking_uri: http://host\nepochs: $@ckpt_dir + @input + @tracking_uri"
        )
        assert "must be a local path, got an address" in refusal(
            initialize, folder, folder / "mine.yaml", **{key: value}
        )


def test_settings_that_may_be_addresses_are_named_by_the_config(folder):
    initialize_with = "initialize: [\"$monai_mil_ext.apps.bundle.check_cli_overrides(['ckpt_dir'])\"]\n"
    config = "ckpt_dir: models\noutput_dir: eval\nroot: data\nepochs: $@ckpt_dir + @output_dir + @root\n"
    (folder / "mine.yaml").write_text(config + initialize_with)
    initialize(folder, folder / "mine.yaml", ckpt_dir="s3://bucket/models", root="gs://bucket")
    assert "`output_dir` must be a local path, got an address" in refusal(
        initialize, folder, folder / "mine.yaml", output_dir="s3://bucket/eval"
    )


@pytest.mark.parametrize(
    ("lines", "overrides"),
    [
        ("epochs: '@my_note'", {"my_note": 3}),
        ("epochs: $@my_note + 1", {"my_note": 3}),
        ("my_note: 1\nepochs: $@my_note", {"my_note": 3}),
        ("epochs: $@my_section#a\nmy_section: {a: 1, b: 2}", {}),
        ("trainer: '%my_trainer'\nmy_trainer: {_target_: dict, a: 1}", {}),
        ("trainer: '%my_parts#trainer'\nmy_parts: {trainer: {_target_: dict, a: 1}}", {}),
        ("my_run: [$print(1)]", {"run_id": "my_run"}),
    ],
)
def test_a_key_of_ones_own_that_a_config_refers_to_is_no_typo(folder, lines, overrides):
    (folder / "mine.yaml").write_text(lines)
    initialize(folder, folder / "mine.yaml", **overrides)


def test_keys_of_an_overlay_of_the_bundle_are_known_where_it_is_given(folder):
    initialize(folder, folder / "configs" / "overlay.yaml", patience=5)
    message = refusal(initialize, folder, folder / "configs" / "overlay.yaml", patient=5)
    assert message.endswith("did you mean 'patience'?")


def test_values_that_are_no_text_are_accepted(folder):
    initialize(folder, for_overlays=np.zeros((2, 3)), windows={"lung": np.zeros(2)})


@pytest.mark.parametrize(
    ("name", "text"),
    [("notes.txt", "epochz: 1"), ("list.json", '["epochz"]'), ("torn.yaml", "a: ["), ("torn.json", "{")],
)
def test_a_file_that_is_no_config_is_ignored(folder, name, text):
    (folder / "configs" / name).write_text(text)
    assert "epochs" in refusal(initialize, folder, epochz=3)


def test_a_workflow_can_be_initialized_again(folder):
    workflow = ConfigWorkflow(str(folder / "configs" / "train.yaml"), logging_file=False, epochs=2)
    workflow.initialize()
    workflow.parser["epochs"] = 3
    workflow.initialize()
    workflow.parser["epochz"] = 3
    assert "epochs" in refusal(workflow.initialize)


def test_errors_of_a_command_end_with_their_cause(monkeypatch):
    for words, replaced in ((["run"], True), (["run_workflow"], True), (["verify_metadata"], False), ([], False)):
        monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
        monkeypatch.setattr(sys, "argv", ["monai/bundle/__main__.py", *words])
        check_cli_overrides()
        assert (sys.excepthook is not sys.__excepthook__) == replaced


def test_it_does_nothing_in_another_program(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", None)
    monkeypatch.setattr(sys, "argv", ["pytest", "--epoch", "3"])
    check_cli_overrides()
    assert sys.excepthook is None
