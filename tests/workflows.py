"""Workflows of bundles and experiments in tests."""

from pathlib import Path

from monai.bundle import ConfigWorkflow

ROOT = Path(__file__).parents[1]


def open_workflow(*configs, kind="train", **overrides):
    """Return an initialized workflow of config files, which are relative to the current folder or absolute."""
    workflow = ConfigWorkflow([str(file) for file in configs], workflow_type=kind, logging_file=False, **overrides)
    workflow.initialize()
    return workflow


def configs_of(*names):
    """Return the paths of configs of the bundle in the current folder."""
    return [f"configs/{name}.yaml" for name in names]


def content(workflow, key):
    """Return the object that a key of a workflow's config makes."""
    return workflow.parser.get_parsed_content(key)


def paths(data, out):
    """Return the overrides that read from ``data`` and write to ``out``."""
    return {"dataset_dir": str(data), "ckpt_dir": str(out), "output_dir": str(out)}


def causes(error):
    """Return the messages of an error and of all its causes, as MONAI wraps what a component raises."""
    return "" if error is None else f"{error}\n{causes(error.__cause__)}"
