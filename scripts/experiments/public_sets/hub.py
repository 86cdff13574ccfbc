"""Download of the files of a data set on the Hugging Face hub: one revision, resumable, checked by their hashes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monai_mil_ext.utils import load_json, optional_dependency, write_json

from .sets import PublicSet

__all__ = ["HubFile", "HubPlan", "check_space", "describe", "fetch", "guess_plan", "read_plan"]

hub = optional_dependency("encoders", "huggingface_hub")
hub_files = optional_dependency("encoders", "huggingface_hub.file_download")

SOURCE = "source.json"  # revision of a folder's files
DOWNLOADS = ".hub"  # folder of files that are not unpacked yet
BLOCK = 2**22  # bytes
UNPACKED = 2.1  # bytes on the disk for each byte that is fetched: archive and its content
RESERVE = 2**28  # bytes that stay free
HASH = 40  # digits of a revision


class HubFile(NamedTuple):
    """File of a data set: its name in this program, its path on the hub, bytes, and hash (SHA-256, or that of git)."""

    name: str
    path: str
    size: int
    sha256: str | None
    git: str | None


class HubPlan(NamedTuple):
    """Files of one revision; ``revision`` is empty where the hub was not reached."""

    repo: str
    revision: str
    license: str
    files: list[HubFile]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def guess_plan(public_set: PublicSet, encoder: str) -> HubPlan:
    """Return the plan as far as it is known without the hub: sizes are those known when this was written."""
    names = public_set.names(encoder)
    sizes = [0] * (len(names) - 1) + [round((public_set.gigabytes[encoder] or 0) * 1e9)]
    files = [HubFile(name, name, size, None, None) for name, size in zip(names, sizes, strict=True)]
    return HubPlan(public_set.repo, "", public_set.license, files)


def read_plan(
    public_set: PublicSet, encoder: str, folder: Path, revision: str | None = None, endpoint: str | None = None
) -> HubPlan:
    """Read the list of files of one revision: the one that is given, that of the folder, or the newest.

    Args:
        public_set: the set.
        encoder: encoder of the features.
        folder: folder of the set, whose revision is kept as long as none is given.
        revision: hash of a commit, branch or tag.
        endpoint: address of a mirror of the hub.

    Raises:
        RuntimeError: when the hub can't be reached, or the set, the revision or a file is not there.
        ValueError: when the folder has files of another revision.
    """
    known = load_json(folder / SOURCE)["revision"] if (folder / SOURCE).exists() else None
    api = hub.HfApi(endpoint=endpoint)
    try:
        info = api.dataset_info(public_set.repo, revision=revision or known, files_metadata=True, timeout=30)
    except Exception as error:
        raise RuntimeError(_sentence(error, public_set.repo, revision or known)) from error
    if known and known != info.sha:
        raise ValueError(f"`revision` must be {known}, that of the files in the folder, got {info.sha}.")
    files = [_find(name, info.siblings) for name in public_set.names(encoder)]
    card = info.card_data or {}
    return HubPlan(public_set.repo, info.sha, str(card.get("license") or "not stated"), files)


def _find(name: str, siblings: Sequence[Any]) -> HubFile:
    found = [file for file in siblings if f"/{file.rfilename}".endswith(f"/{name}")]
    if len(found) != 1:
        raise RuntimeError(f"the data set must have one file {name!r}, got {[file.rfilename for file in found]}.")
    (file,) = found
    return HubFile(name, file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None, file.blob_id)


def describe(plan: HubPlan, public_set: PublicSet) -> str:
    """Return what is fetched: files with sizes, revision and license."""
    lines = [f"{public_set.title}: https://huggingface.co/datasets/{plan.repo}"]
    lines += [f"  {gigabytes(file.size):>9}  {file.path}" for file in plan.files]
    about = "" if plan.revision else " (an estimate of the features: the hub was not asked)"
    lines.append(f"  {gigabytes(plan.size):>9}  in all{about}; on the disk, up to {gigabytes(plan.size * UNPACKED)}")
    lines.append(f"revision: {plan.revision or 'unknown until the hub is reached'}")
    differs = "" if plan.license == public_set.license else f", which was {public_set.license} when this was written"
    return "\n".join([*lines, f"license: {plan.license}{differs}; read the card of the data set before you use it"])


def gigabytes(size: float) -> str:
    """Return a number of bytes as text."""
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB" if size else "? GB"


def check_space(plan: HubPlan, folder: Path, done: Sequence[str] = ()) -> None:
    """Refuse a download for which there is not enough space on the disk.

    Raises:
        OSError: with the bytes that are needed and free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    needed = sum(file.size for file in plan.files if file.name not in done) * UNPACKED + RESERVE
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"the disk must have {gigabytes(needed)} free, got {gigabytes(free)}: give another --data.")


def fetch(plan: HubPlan, file: HubFile, folder: Path, endpoint: str | None = None) -> Path:
    """Fetch a file unless it is there, and return its path; a download that was interrupted goes on.

    Raises:
        RuntimeError: when the hub can't be reached, or the file has another hash than the hub states; it is removed.
    """
    write_json(folder / SOURCE, {"repo": plan.repo, "revision": plan.revision, "license": plan.license})
    path = folder / DOWNLOADS / plan.revision / file.path
    if not path.exists():
        _download(plan, file, path.with_name(f"{path.name}.part"), endpoint)
        path.with_name(f"{path.name}.part").rename(path)
    expected, actual = (file.sha256, _sha256(path)) if file.sha256 else (file.git, _git_hash(path))
    if expected and expected != actual:
        path.unlink()
        raise RuntimeError(
            f"{file.path} must have the hash {expected[:12]} that the hub states, got {actual[:12]}: it is removed, "
            "start again."
        )
    return path


def _download(plan: HubPlan, file: HubFile, part: Path, endpoint: str | None) -> None:
    """Download a file to ``part``, from where an earlier call stopped.

    ``hf_hub_download`` of recent versions begins anew in each process; the function below it does not have to.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    url = hub.hf_hub_url(plan.repo, file.path, repo_type="dataset", revision=plan.revision, endpoint=endpoint)
    try:
        with part.open("ab") as stream:
            options = {"resume_size": stream.tell(), "expected_size": file.size, "displayed_filename": file.name}
            headers = {**hub.utils.build_hf_headers(), "Accept-Encoding": "identity"}  # parts are of the file itself
            hub_files.http_get(url, stream, headers=headers, **options)
    except Exception as error:
        if part.stat().st_size >= file.size or "416" in str(error):
            part.unlink()  # nothing could be added to it
        raise RuntimeError(_sentence(error, plan.repo, plan.revision)) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_hash(path: Path) -> str:
    """Return the hash that git gives to a file that is not in its large file storage."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _sentence(error: Exception, repo: str, revision: str | None) -> str:
    """Return what is wrong in one sentence."""
    errors = hub.errors
    if isinstance(error, errors.GatedRepoError):
        return f"{repo} asks you to accept its terms: do so on its page, then run `hf auth login`."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub has no data set {repo}, or asks for a login: `hf auth login`."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"`revision` must be one of {repo}, got {revision!r}."
    if "Consistency check failed" in str(error):
        return f"a file of {repo} arrived with another size than the hub states: start again."
    return (
        f"the hub can't be reached ({type(error).__name__}): check the internet connection, or give a mirror by "
        "--endpoint; start again to continue."
    )
