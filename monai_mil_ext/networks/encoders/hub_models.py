"""Access to models of the Hugging Face hub, whose errors say what to do."""

import os
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Union
from urllib.error import HTTPError, URLError

from monai_mil_ext.utils import optional_dependency

__all__ = ["explain_hub_errors", "is_local_only"]

hub = optional_dependency("encoders", "huggingface_hub")
TIMEOUT = 5.0  # seconds for the first answer of the hub
NOT_CACHED = "`model` must be a folder, or in the cache of the hub for `local_files_only`, got {model!r}."
NETWORK = ("httpx", "requests", "urllib3", "aiohttp")  # packages by which versions of the hub's client connect
AWAY = (
    "`model` must be on this machine if the hub can't be reached, got {model!r}: download it elsewhere and give {way}."
)
RULES: Dict[str, str] = {  # by the class of the error, the first that fits
    "GatedRepoError": "`model` must be one that you may read, got the gated {model!r}: ask for access at "
    "https://huggingface.co/{model}, then run `hf auth login`.",
    "RevisionNotFoundError": "`revision` must be one of the model on the hub, got another for {model!r}.",
    "RepositoryNotFoundError": "`model` must be a folder that exists, or a public name on the hub, got {model!r}.",
    "HFValidationError": "`model` must be a folder that exists, or a name on the hub, got {model!r}.",
    "DisabledRepoError": "`model` must be a model that the hub has not disabled, got {model!r}.",
    "OfflineModeIsEnabled": AWAY,
    "LocalEntryNotFoundError": AWAY,
}


def is_local_only(
    model: Union[str, "os.PathLike[str]"], revision: str = "main", local_files_only: bool = False
) -> bool:
    """Return whether only local files of a model can be read: it is a folder, or the hub does not answer.

    The hub is asked once, for a few seconds, instead of many times for each file.

    Args:
        model: name on the hub, or a folder.
        revision: revision on the hub.
        local_files_only: whether not to ask the hub.

    Raises:
        OSError: when the hub has no such model or denies access, or can't be reached and the model is not in the cache.
    """
    if os.path.isdir(model):
        return True
    file = {"repo_id": str(model), "filename": "config.json", "revision": revision}
    with explain_hub_errors(model):
        cached = isinstance(hub.try_to_load_from_cache(**file), str)
        if local_files_only:
            if not cached:
                raise OSError(NOT_CACHED.format(model=_shown(model)))
            return True
        try:
            hub.get_hf_file_metadata(hub.hf_hub_url(**file), timeout=TIMEOUT)
        except Exception as error:
            if cached and _rule(error) == AWAY:
                return True
            raise
    return False


@contextmanager
def explain_hub_errors(model: Union[str, "os.PathLike[str]"], way: str = "its folder") -> Iterator[None]:
    """Replace errors of the hub by an ``OSError`` that says what to do; a path is shown without its folder.

    Args:
        model: name on the hub.
        way: how a model that was downloaded elsewhere is given.

    Example:
        >>> with explain_hub_errors("facebook/dinov2-base"):
        ...     raise ConnectionError("[Errno -2] Name or service not known")
        Traceback (most recent call last):
        ...
        OSError: `model` must be on this machine if the hub can't be reached, got 'facebook/dinov2-base': ...
    """
    try:
        yield
    except Exception as error:
        rule = _rule(error)
        if rule is None:
            raise
        raise OSError(rule.format(model=_shown(model), way=way)) from None  # the cause that bundles print


def _shown(model: Union[str, "os.PathLike[str]"]) -> str:
    name = str(model)
    return name if name.count("/") <= 1 and not Path(name).is_absolute() else Path(name).name


def _rule(error: BaseException) -> Optional[str]:
    """Return the message on an error of the hub or the network, or None for any other."""
    chain = _chain(error)
    names = [parent.__name__ for part in chain for parent in type(part).__mro__]
    for name, rule in RULES.items():
        if name in names:
            return rule
    return AWAY if any(map(_is_of_network, chain)) else None


def _chain(error: Optional[BaseException]) -> List[BaseException]:
    chain: List[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _is_of_network(error: BaseException) -> bool:
    """Return whether an error is one of the connection, or the answer of a server that is overloaded or broken."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    status = error.code if isinstance(error, HTTPError) else status
    if status is not None:
        return status == 429 or status >= 500
    package = type(error).__module__.split(".")[0]
    return isinstance(error, (ConnectionError, TimeoutError, URLError)) or package.startswith(NETWORK)
