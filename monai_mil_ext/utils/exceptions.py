"""Causes of a nested exception: the root, and whether a single case of many is to blame.

MONAI wraps an error in several others, so that the reason is lost in the traceback.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from monai.utils import OptionalImportError

__all__ = [
    "InputError",
    "case_error",
    "describe_error",
    "option_hint",
    "print_root_cause",
    "root_cause",
    "traceback_text",
]

# the machine is to blame, so that every further case would fail
SYSTEM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE)
# what the name or the folder of a single case may cause while its results are written
CASE_WRITING = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EEXIST, errno.EACCES, errno.EPERM)
# errors that a mistake in a program causes, if they are not raised by a library that meets an unexpected file
MISTAKES = (TypeError, AttributeError, NameError, LookupError, AssertionError, NotImplementedError, ImportError)
DEBUG = "MONAI_MIL_DEBUG"
PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")]

Hook = Callable[[type[BaseException], BaseException, TracebackType | None], object]


class InputError(ValueError):
    """Error of an input that cannot be used as it is.

    Args:
        message: what is wrong, as `` `name` must <rule>, got <value>.``
        option: command-line option that would help, such as ``"--irregular allow"``; empty if there is none.
        container: kind of file or folder, such as ``"DICOM series"``, if it is known.
        shape: numbers of voxels or pixels, if they are known.
        spacing: size of a voxel in mm or of a pixel in micrometers, if it is known.

    Example:
        >>> error = InputError("`image` must have equal steps, got a gap.", "--irregular allow", "DICOM series")
        >>> error.option, error.facts
        ('--irregular allow', {'container': 'DICOM series'})
    """

    def __init__(
        self,
        message: str = "",
        option: str = "",
        container: str = "",
        shape: Sequence[int] = (),
        spacing: Sequence[float] = (),
    ) -> None:
        super().__init__(message)
        self.option = option
        self.facts: dict[str, Any] = {}
        self.add_facts(container, shape, spacing)

    def add_facts(
        self, container: str = "", shape: Sequence[int] = (), spacing: Sequence[float] = (), notes: str = ""
    ) -> None:
        """Add what is known of the input, and sentences about it, unless it was stated before."""
        stated = {"container": container, "shape": tuple(shape), "spacing": tuple(spacing), "notes": notes}
        self.facts = {name: value for name, value in stated.items() if value} | self.facts


def option_hint(error: BaseException) -> str:
    """Return a sentence on the option that would help, to follow the message of an error; empty if there is none.

    Example:
        >>> option_hint(InputError("`image` must have finite voxels, got 3 that are NaN.", "--fill_nan lowest"))
        ' Consider `--fill_nan lowest`.'
    """
    end = "" if str(error).endswith((".", "?")) else "."
    return f"{end} Consider `{error.option}`." if isinstance(error, InputError) and error.option else ""


def root_cause(error: BaseException) -> BaseException:
    """Return the error from which all others were raised.

    Example:
        >>> try:
        ...     raise RuntimeError("Failed to evaluate") from ValueError("`plane` must be axial")
        ... except RuntimeError as error:
        ...     root_cause(error)
        ValueError('`plane` must be axial')
    """
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def case_error(error: BaseException, writing: bool = False) -> Exception | None:
    """Return the cause of an error if a single case is to blame, so that a run of many can continue; None otherwise.

    A case is to blame for whatever its file makes a reader, a network or a library do: for an ``OSError`` or a
    ``ValueError``, for lack of memory, and for any other error that an installed library raises. It is not to blame for
    a full or read-only disk, too many open files, an interruption, and mistakes in the program, such as a ``TypeError``
    that this package or a user's own code raises.

    Args:
        error: error, possibly wrapped in others.
        writing: whether the results of the case were being written; of an ``OSError``, only one about the name or the
            permission of its files is then due to the case.

    Example:
        >>> case_error(ValueError("`image` must be a scan")), case_error(TypeError("a mistake"))
        (ValueError('`image` must be a scan'), None)
    """
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    if any(isinstance(link, OSError) and not _is_of_case(link, writing) for link in chain):
        return None
    cause = next((link for link in chain if isinstance(link, (OSError, ValueError))), chain[-1])
    if not isinstance(cause, Exception) or (isinstance(cause, MISTAKES) and not _is_of_library(cause)):
        return None
    return cause


def describe_error(error: BaseException) -> str:
    """Return the reason of an error in one line, without the absolute paths that the system or a library names.

    Example:
        >>> describe_error(FileNotFoundError(2, "No such file or directory", "/data/doe.svs"))
        'No such file or directory'
        >>> describe_error(KeyError("PixelData"))
        "KeyError: 'PixelData'"
    """
    return hide_absolute_paths(error, reason_text(error))


def reason_text(error: BaseException) -> str:
    """Return the text of an error in one line, with its kind unless it is a sentence of this package or the system."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    kind = "" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: "
    return kind + " ".join(text.split())


def hide_absolute_paths(error: BaseException, text: str) -> str:
    """Replace absolute paths in the text of an error; those that a library names may contain blanks."""
    name = r"[^\s/'\":,]+" if isinstance(error, ValueError) else r"[^/'\":,]+"
    return re.sub(rf"(?<![\w<])(/{name}){{2,}}", "<path>", text)


def traceback_text(error: BaseException) -> str:
    """Return the traceback of an error without absolute paths: files of packages are relative to their parent folder.

    Example:
        >>> try:
        ...     raise OSError("can't open /data/doe_jane/scan.nii")
        ... except OSError as error:
        ...     traceback_text(error).splitlines()[-1]
        "OSError: can't open <path>"
    """
    lines = []
    for line in "".join(traceback.format_exception(error)).splitlines():
        frame = re.match(r'( *(?:\| )*File )"([^"]+)"(, line .*)', line)
        if frame:
            lines.append(f'{frame[1]}"{_without_root(Path(frame[2]))}"{frame[3]}')
        else:  # lines of code are indented; in them, a path has no blanks
            lines.append(hide_absolute_paths(ValueError() if line.startswith("    ") else error, line))
    return "\n".join(lines) + "\n"


def _without_root(file: Path) -> str:
    for root in (PACKAGE.parent, *INSTALLED[1:], INSTALLED[0]):
        if file.resolve().is_relative_to(root):
            return file.resolve().relative_to(root).as_posix()
    return file.name


def _is_of_case(error: OSError, writing: bool) -> bool:
    return error.errno in CASE_WRITING if writing else error.errno not in SYSTEM


def _is_of_library(error: BaseException) -> bool:
    """Return whether an installed library other than this package raised an error."""
    frames = traceback.extract_tb(error.__traceback__)
    file = Path(frames[-1].filename).resolve() if frames else PACKAGE
    return not file.is_relative_to(PACKAGE) and any(file.is_relative_to(folder) for folder in INSTALLED)


def print_root_cause() -> None:
    """Make the process end an error of its user with one sentence, and others with the root cause below the traceback.

    Errors of a user are those that this package raises about what it was given, errors of the system, such as a full
    disk, packages that are not installed, and an interruption. The environment variable ``MONAI_MIL_DEBUG=1`` shows the
    traceback of these too.

    It sets ``sys.excepthook``, which calls the hook before it for other errors, so use it in programs only: a bundle
    calls it in ``initialize`` if it was started from the command line.
    """
    if getattr(sys.excepthook, "func", None) is not _print_with_root_cause:
        sys.excepthook = partial(_print_with_root_cause, sys.excepthook)


def _print_with_root_cause(
    hook: Hook, kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    cause = root_cause(error)
    if os.environ.get(DEBUG, "0") in ("", "0") and _is_of_user(cause):
        text = f"Error: {cause}{option_hint(cause)}" if str(cause) else "Interrupted."
        sys.stderr.write(f"\n{text}\n({DEBUG}=1 shows the traceback.)\n")
        return
    hook(kind, error, trace)
    if cause is not error:
        sys.stderr.write(f"\nThe cause: {type(cause).__name__}: {cause}{option_hint(cause)}\n")


def _is_of_user(error: BaseException) -> bool:
    """Return whether an error says what its user can change, so that a traceback would only hide it."""
    if isinstance(error, (OSError, OptionalImportError, KeyboardInterrupt)):
        return bool(str(error)) or isinstance(error, KeyboardInterrupt)
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or isinstance(error, MISTAKES):
        return False
    is_stated = (frames[-1].line or "").startswith("raise ")  # not raised by torch, which leaves no frame of its own
    return is_stated and Path(frames[-1].filename).resolve().is_relative_to(PACKAGE)
