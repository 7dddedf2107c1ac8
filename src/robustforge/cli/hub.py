"""Uploading an exported folder to the Hugging Face hub."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from robustforge.config.exported import FILES
from robustforge.types import UserError

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def check_repository(name: str) -> None:
    """Raises UserError unless ``name`` is that of a repository on the hub, ``user/name``."""
    if not _REPOSITORY.fullmatch(name):
        raise UserError(f"push is '{name}', which is no repository of the Hugging Face hub: give push=<user>/<name>.")


def hub_api() -> Any:
    """The hub as huggingface-hub offers it, with the reader's own login.

    Raises:
        UserError: huggingface-hub is not installed.
    """
    try:
        return importlib.import_module("huggingface_hub").HfApi()
    except ImportError as error:
        raise UserError("push needs huggingface-hub: pip install 'robustforge[hub]'.") from error


def upload(folder: Path, repository: str, api: Any, private: bool = True) -> str:
    """Uploads the files of an exported folder, and nothing else that lies in it.

    Args:
        folder: the exported one.
        repository: ``user/name``; made when it is not there.
        api: with the methods ``create_repo`` and ``upload_folder`` of ``huggingface_hub.HfApi``.
        private: whether a repository that is made here is private; one that is there stays as it is.

    Returns:
        Address of the upload.

    Raises:
        UserError: no such name, or the hub refused or was not reached.
    """
    check_repository(repository)
    try:
        api.create_repo(repo_id=repository, repo_type="model", private=private, exist_ok=True)
        return str(
            api.upload_folder(
                repo_id=repository,
                repo_type="model",
                folder_path=str(folder),
                allow_patterns=list(FILES),
                commit_message="Model exported by robustforge",
            )
        )
    except Exception as error:  # of the network, the login and the hub, without a class in common
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"The hub did not take '{repository}' ({type(error).__name__}: {reason}): the folder {folder} is finished; "
            f"log in (hf auth login) and give run={folder} push={repository}."
        ) from error
