"""Check of the command line of ``monai.bundle run`` for misspelled keys, which MONAI accepts."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, run

from monai_mil_ext.utils import check_choice, check_local_settings, print_root_cause

__all__ = ["check_cli_overrides"]


def check_cli_overrides(argv: Sequence[str] | None = None) -> None:
    """Raise ``ValueError`` if the command line overrides a key that the configs do not have.

    ``monai.bundle run`` adds an unknown key to the config and continues, so that ``--epoch 5`` trains for the default
    number of epochs. Called in the ``initialize`` section of a bundle, this function rejects such a key and suggests
    close matches. A new argument of a component (``--train#trainer#amp True``) is accepted, since the component itself
    rejects unknown arguments. It also makes errors of this process end with their root cause. It does nothing unless
    the process was started by ``monai.bundle run``.

    Args:
        argv: command line; ``None`` means ``sys.argv``.

    Example:
        >>> check_cli_overrides(["monai/bundle/__main__.py", "run", "--config_file", "configs/absent.yaml"])
        Traceback (most recent call last):
        ...
        FileNotFoundError: ...
    """
    argv = sys.argv if argv is None else argv
    if len(argv) < 2 or "bundle" not in argv[0] or argv[1] != "run":
        return
    print_root_cause()
    given = _options(argv[2:])
    if "args_file" in given:
        given = {**ConfigParser.load_config_file(given["args_file"]), **given}
    if "config_file" not in given:
        return
    config = ConfigParser.load_config_files(given["config_file"])
    check_local_settings({**config, **given})
    for key in given.keys() - set(inspect.signature(run).parameters):
        _check_key(config, key)


def _check_key(config: Any, key: str) -> None:
    for part in key.replace("#", "::").split("::"):
        if not isinstance(config, dict) or "_target_" in config:
            return
        check_choice(key, part, config)
        config = config[part]


def _options(words: Sequence[str]) -> dict[str, Any]:
    """Parse ``--key value`` and ``--key=value`` as Python Fire does."""
    options: dict[str, Any] = {}
    for i, word in enumerate(words):
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            next_word = words[i + 1] if i + 1 < len(words) else "True"
            options[key] = DefaultParseValue(value if equals else next_word)
    return options
