"""Shared models on the Hugging Face Hub: names such as ``hf://OWNER/NAME@revision``, download and upload.

``huggingface_hub`` does the work; it is imported on first use. It keeps downloads in its own cache, uses
``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE``, and finishes a download that was torn.
"""

import importlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from PADing.errors import UserError
from PADing.sharing.layout import CARD, HUB, MARKER, METRICS, WEIGHTS, files_of, listed_files

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?"
_NAME = re.compile(rf"{_PART}/{_PART}")
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,200}", re.ASCII)


class Reference(NamedTuple):
    """A repository of the Hub, and a branch, tag or commit of it; None: its main branch."""

    name: str
    revision: str | None = None

    @classmethod
    def of(cls, text: str) -> "Reference":
        """Read ``hf://OWNER/NAME[@revision]``, with or without ``hf://``; UserError if it is something else."""
        name, at, revision = text.removeprefix(HUB).partition("@")
        if not _NAME.fullmatch(name) or ".." in name or "--" in name:
            raise UserError(f"{text!r} is not the name of a shared model. Write {HUB}OWNER/NAME or OWNER/NAME.")
        if at and (not _REVISION.fullmatch(revision) or ".." in revision):
            raise UserError(f"{text!r} has no usable revision after @. Write a branch, a tag or a commit.")
        return cls(name, revision or None)

    def __str__(self) -> str:
        return f"{HUB}{self.name}" + (f"@{self.revision}" if self.revision else "")


def fetch_model(reference: Reference) -> Path:
    """Download a shared model; returns its folder in the cache, all files of one commit.

    Raises:
        UserError: no such repository, revision or file; no connection and nothing in the cache; a torn download.
    """
    marker = _fetch(reference, MARKER)
    commit = marker.parent.name
    for name in files_of(listed_files(marker)):
        _fetch(reference, name, commit)
    return marker.parent


def fetch_weights(reference: Reference) -> Path:
    """Download the weights of a shared model alone; UserError as :func:`fetch_model`."""
    return _fetch(reference, WEIGHTS)


def push_folder(folder: Path, name: str, private: bool = False, overwrite: bool = False) -> str:
    """Upload a shared model's folder; returns the address of its page.

    Args:
        folder: the folder.
        name: ``OWNER/NAME``.
        private: whether a new repository is private.
        overwrite: add a commit to a repository that exists.

    Raises:
        UserError: a wrong name, not logged in, no permission, no connection, or the repository exists.
    """
    reference = Reference.of(name)
    if reference.revision:
        raise UserError(f"--push {name}: leave out the revision. An upload is a new commit of the main branch.")
    api = _library().HfApi()
    if not overwrite and _at_the_hub(reference, "uploaded", lambda: api.repo_exists(reference.name)):
        raise UserError(f"{reference} exists already. Choose another name, or add --overwrite to upload a new version.")

    def upload() -> str:
        address = api.create_repo(reference.name, private=private, exist_ok=overwrite)
        names = [*files_of(listed_files(folder / MARKER)), METRICS, CARD]
        api.upload_folder(
            repo_id=reference.name, folder_path=folder, allow_patterns=names, commit_message="Upload a shared model"
        )
        return address

    return str(_at_the_hub(reference, "uploaded", upload))


def _fetch(reference: Reference, file: str, commit: str | None = None) -> Path:
    library = _library()
    revision = commit or reference.revision

    def download() -> str:
        return library.hf_hub_download(reference.name, file, revision=revision)

    return Path(_at_the_hub(reference, "downloaded", download, file))


def _library() -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        cure = 'Install it: pip install "pading[hub]", or pip install huggingface_hub.'
        raise UserError(f"Models on the Hugging Face Hub need huggingface_hub, a package. {cure}") from error


def _at_the_hub(reference: Reference, done: str, action: Callable[[], Any], file: str = "") -> Any:
    """Run ``action``; any error of the library or the network becomes a UserError."""
    try:
        return action()
    except UserError:
        raise
    except Exception as error:  # the library and its HTTP client raise dozens of types
        raise UserError(f"{reference} cannot be {done}: {_explain(error, file)}") from error


def _explain(error: Exception, file: str) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if "LocalEntryNotFoundError" in kinds or "OfflineModeIsEnabled" in kinds:
        offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
        cause = "HF_HUB_OFFLINE is set" if offline else "there is no connection to the Hub"
        return f"{cause}, and the cache does not have {file or 'it'}. Connect, or check HF_ENDPOINT, and try again."
    if "GatedRepoError" in kinds:
        return "its owner must allow it. Ask for access on its page, then log in: hf auth login."
    if "RepositoryNotFoundError" in kinds or status == 401:
        return "it does not exist, or is private. Check the name, or log in: hf auth login."
    if "RevisionNotFoundError" in kinds:
        return "it has no such revision. Name a branch, a tag or a commit that its page shows."
    if "EntryNotFoundError" in kinds:
        return f"it has no {file}, so it is not a model that tools/share_model.py made."
    if status == 403:
        return "you have no permission. Log in with a token that may write: hf auth login."
    if "LocalTokenNotFoundError" in kinds:
        return "you are not logged in: hf auth login."
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, OSError) and "onsistency" in reason:
        return f"the download of {file} is incomplete. Run the command again."
    return f"{reason} ({type(error).__name__}). Check the connection and HF_ENDPOINT, and run the command again."
