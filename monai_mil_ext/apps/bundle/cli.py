"""Check of a bundle's config for misspelled keys, which MONAI accepts."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser, ConfigWorkflow, ReferenceResolver

from monai_mil_ext.utils import check_choice, check_local_settings, print_root_cause
from monai_mil_ext.utils.paths import FILES

__all__ = ["check_cli_overrides"]

SEPARATOR = ReferenceResolver.sep
COMMANDS = ("run", "run_workflow")


def check_cli_overrides(remote: Sequence[str] = ()) -> None:
    """Raise ``ValueError`` if an override names a key that nothing uses, and suggest close matches.

    MONAI adds an unknown key to the config and continues, so that ``--epoch 5`` trains for the default number of
    epochs. A bundle calls this function in ``initialize``, so that it checks every way to run the bundle:
    ``monai.bundle run`` and ``run_workflow``, ``ConfigWorkflow(...)`` and with it hyperparameter tuners.

    A key is accepted if a config of the bundle has it, if another key refers to it, or if MONAI reads it itself. A
    new argument of a component (``--train#trainer#amp True``) is accepted, since the component itself rejects unknown
    arguments, as is a key that begins with ``_``, for notes.

    It also makes errors of a command ``monai.bundle run`` end with their root cause. Outside of the ``initialize`` of a
    ``ConfigWorkflow`` it does nothing.

    Args:
        remote: names of settings, beside ``feature_dir``, ``input``, ``root`` and ``table``, that may be addresses of
            an object store.

    Example:
        >>> initialize = "initialize: [$monai_mil_ext.apps.bundle.check_cli_overrides()]"
        >>> _ = Path("train.yaml").write_text(f"{{epochs: 1, imports: [$import monai_mil_ext], {initialize}}}")
        >>> ConfigWorkflow("train.yaml", epoch=5).initialize()
        Traceback (most recent call last):
        ...
        RuntimeError: Failed to evaluate ConfigExpression: ...
    """
    if len(sys.argv) > 1 and "bundle" in sys.argv[0] and sys.argv[1] in COMMANDS:
        print_root_cause()
    workflow = _calling_workflow()
    if workflow is not None:
        config = workflow.parser.get()
        check_local_settings(config, (*FILES, *remote))
        _check_keys(config, _bundle_keys(workflow.config_root_path, config), _used_ids(workflow))


def _calling_workflow() -> ConfigWorkflow | None:
    """Return the workflow whose ``initialize`` is being evaluated; MONAI passes it to no expression."""
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, ConfigWorkflow):
            return caller
        frame = frame.f_back
    return None


def _used_ids(workflow: ConfigWorkflow) -> set[str]:
    """Return the ids that the config refers to, or that MONAI reads."""
    read = {"imports", "run_name", workflow.init_id, workflow.run_id, workflow.final_id}  # MonaiAlgo sets `run_name`
    read |= {str(value.get("id")) for value in (workflow.properties or {}).values()}
    texts = (node for node in _nodes(workflow.parser.get()) if isinstance(node, str))
    return read.union(*(ReferenceResolver.match_refs_pattern(text) for text in texts))


def _nodes(config: Any) -> Iterator[Any]:
    yield config
    children = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    for child in children:
        yield from _nodes(child)


def _bundle_keys(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merged content of those files of a folder that ``config`` was read from."""
    keys: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        values = _values(path)
        if _is_part(values, config):
            for name, value in values.items():
                _merge(keys, name.split(SEPARATOR), value)
    return keys


def _values(path: Path) -> dict[str, Any]:
    """Return the values of a config file by id; a file that is no config has none."""
    if path.suffix[1:] not in ConfigParser.suffixes:
        return {}
    try:
        content = ConfigParser.load_config_file(path)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    items = content.items() if isinstance(content, dict) else ()
    return {ReferenceResolver.normalize_id(str(key).lstrip("+")): value for key, value in items}


def _is_part(values: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Return whether a config has all keys of a file, and at least half of its values: others are overridden."""
    parser = ConfigParser(dict(config))
    same = [_text(parser.get(name)) == _text(leaf) for name, leaf in _leaves(values)]
    return all(name in parser for name in values) and 2 * sum(same) >= len(same)


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{above}{key}{SEPARATOR}")
        else:
            yield f"{above}{key}", value


def _text(value: Any) -> str:
    """Return a text that is the same before and after MONAI has parsed a config."""
    return ReferenceResolver.normalize_id(repr(value))


def _merge(config: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        config = config.setdefault(key, {})
    old = config.get(keys[-1])
    if isinstance(old, dict) and isinstance(value, dict):
        for key, child in value.items():
            _merge(old, [key], child)
    else:
        config[keys[-1]] = dict(value) if isinstance(value, dict) else value


def _check_keys(config: Mapping[str, Any], known: Mapping[str, Any], used: set[str], section: str = "") -> None:
    for key, value in config.items():
        name = f"{section}{key}"
        if name in used or name.startswith("_"):
            continue
        if key in known:
            if _is_section(value) and _is_section(known[key]):
                _check_keys(value, known[key], used, f"{name}{SEPARATOR}")
        elif not any(other.startswith(f"{name}{SEPARATOR}") for other in used) and not _is_copied(value, config):
            check_choice(name, key, known)


def _is_section(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" not in value


def _is_copied(value: Any, config: Mapping[str, Any]) -> bool:
    """Return whether another key has a copy of a component in ``value``, as a macro (``%key``) leaves it."""
    others = {repr(node) for other in config.values() if other is not value for node in _nodes(other)}
    return any(isinstance(node, dict) and node and repr(node) in others for node in _nodes(value))
