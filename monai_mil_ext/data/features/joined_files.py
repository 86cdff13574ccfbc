"""Feature files of several encoders or magnifications, joined to one file a case."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from monai_mil_ext.data.bags.bag_file import inspect_bag, read_attributes, read_bag, write_bag
from monai_mil_ext.data.bags.bag_folder import BagFolder
from monai_mil_ext.utils import check_local

__all__ = ["JoinedFiles", "join_bag_files", "join_sources", "read_sources"]

SOURCES = "sources"  # attribute: JSON of the number of features of each source by its name
SHARED = ("mpp", "magnification", "unit", "tile_size")  # attributes that are kept if all sources have the same
COORDS = "coords"


class JoinedFiles(NamedTuple):
    """Result of :py:func:`join_bag_files`.

    Attributes:
        files: the files that were written.
        sources: number of features of each source by its name, as :py:class:`SourceNet` takes it.
        incomplete: cases, by the name of their files, that lack a source.
    """

    files: list[Path]
    sources: dict[str, int]
    incomplete: list[str]


def join_bag_files(
    folders: Mapping[str, str | os.PathLike[str]], output_dir: str | os.PathLike[str], allow_missing: bool = False
) -> JoinedFiles:
    """Join the feature files of several encoders or magnifications, which have one name a case, to one file each.

    A joined file is a bag as of :py:class:`monai_mil_ext.transforms.JoinSourcesd`: ``features`` (N, F + 1) with the
    index of the source last, and ``coords`` (N, 2) if all sources have them in one unit. Its ``encoder`` names all
    sources, so that no check takes it for another. Studies build :py:class:`SourceNet` around each network for such
    files. Features of smaller sources are filled up with zeros, so that a joined file is as large as all of its
    instances at the width of the largest source.

    Args:
        folders: folder of the feature files of each source, by the name of the source.
        output_dir: folder of the joined files; files of the same name are replaced.
        allow_missing: whether a case that lacks a source is joined from the others; otherwise it is left out.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when there are less than two sources, two files of a case, files of different widths, or no case.

    Example:
        >>> for name, size in (("uni", 3), ("conch", 2)):
        ...     write_bag(f"{name}/slide_1.h5", {"features": torch.ones(4, size)})
        >>> joined = join_bag_files({"uni": "uni", "conch": "conch"}, "joined")
        >>> joined.sources, read_bag("joined/slide_1.h5")["features"][::4].tolist()
        ({'uni': 3, 'conch': 2}, [[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 1.0]])
    """
    if len(folders) < 2:
        raise ValueError(f"`folders` must be of at least 2 sources, got {len(folders)}.")
    check_local(output_dir=output_dir)
    found = {name: _by_case(name, folder) for name, folder in folders.items()}
    cases = sorted(set().union(*found.values()))
    incomplete = [case for case in cases if not all(case in files for files in found.values())]
    chosen = [case for case in cases if allow_missing or case not in incomplete]
    if not chosen:
        raise ValueError(f"`folders` must have files of one name for a case, got none in common of {len(cases)}.")
    parts = {case: {name: files[case] for name, files in found.items() if case in files} for case in chosen}
    facts = _check_widths(parts, list(folders))
    written = []
    for case, paths in parts.items():
        written.append(Path(output_dir, f"{case}.h5"))
        _join(paths, facts, written[-1])
    return JoinedFiles(written, {name: size for name, (size, _) in facts.items()}, incomplete)


def join_sources(bags: Mapping[Any, Tensor], indices: Mapping[Any, int], num_features: int) -> tuple[Tensor, Tensor]:
    """Return the joined instances (N, F + 1) of bags (n, f) and the index (N,) of the source of each.

    Args:
        bags: bags by the key of their source.
        indices: index of each source by its key.
        num_features: number F of features of the largest source.
    """
    source = torch.cat([torch.full((len(bag),), indices[key]) for key, bag in bags.items()])
    joined = torch.cat([pad(bag, [0, num_features - bag.shape[1]]) for bag in bags.values()])
    return torch.cat([joined, source.to(joined)[:, None]], 1), source


def read_sources(path: str | os.PathLike[str]) -> dict[str, int]:
    """Read the number of features of each source of a joined file by its name; of any other file, nothing."""
    text = read_attributes(path).get(SOURCES)
    try:
        values = json.loads(text) if isinstance(text, (str, bytes)) else None
    except ValueError:
        return {}
    is_ours = isinstance(values, dict) and all(isinstance(size, int) and size > 0 for size in values.values())
    return dict(values) if is_ours and values else {}


def _by_case(name: str, folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Return the files of a source by their names without suffix."""
    files = BagFolder(folder).files
    by_case = {file.stem: file for file in files}
    if len(by_case) < len(files):
        raise ValueError(
            f"`folders` must have one file of each name, got {len(files) - len(by_case)} more of {name!r}."
        )
    return by_case


def _check_widths(parts: Mapping[str, Mapping[str, Path]], names: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Return the width of each source and what it is called, which all cases have in common."""
    facts: dict[str, set[tuple[int, str]]] = {name: set() for name in names}
    for paths in parts.values():
        for name, path in paths.items():
            info = inspect_bag(path)
            facts[name].add((int(info.in_features or 0), info.encoder or name))
    for name, different in facts.items():
        if len(different) != 1:
            raise ValueError(
                f"`folders` must have one width and encoder in a source, got {sorted(different)} of {name!r}."
            )
    return {name: next(iter(values)) for name, values in facts.items()}


def _join(paths: Mapping[str, Path], facts: Mapping[str, tuple[int, str]], output: Path) -> None:
    keys = ["features", COORDS, *SHARED]
    bags = {name: read_bag(path, keys, allow_missing_keys=True) for name, path in paths.items()}
    indices = {name: g for g, name in enumerate(facts)}
    features = {name: bag["features"] for name, bag in bags.items()}
    dtype = torch.float16 if all(f.dtype == torch.float16 for f in features.values()) else torch.float32
    size = max(width for width, _ in facts.values())
    joined, _ = join_sources({name: f.to(dtype) for name, f in features.items()}, indices, size)
    shared = {key: [bag.get(key) for bag in bags.values()] for key in SHARED}
    attributes = {key: values[0] for key, values in shared.items() if values[0] is not None and len(set(values)) == 1}
    arrays = {"features": joined}
    if "unit" in attributes and all(COORDS in bag for bag in bags.values()):
        arrays[COORDS] = torch.cat([bag[COORDS].double() for bag in bags.values()])
    called = [name if name == encoder else f"{name} ({encoder})" for name, (_, encoder) in facts.items()]
    attributes |= {"encoder": " + ".join(called), SOURCES: json.dumps({name: w for name, (w, _) in facts.items()})}
    write_bag(output, arrays, attributes)
