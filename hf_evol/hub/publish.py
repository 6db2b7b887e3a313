"""Push a finished folder to the Hub."""

from __future__ import annotations

import shlex
from pathlib import Path

from hf_evol.errors import ConfigError, HubError, OutputError


def check_repo_id(repo_id: str) -> None:
    """Raise `ConfigError` unless ``repo_id`` has the form ``user/name``."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
        well_formed, why = repo_id.count("/") == 1, ""
    except HFValidationError as error:
        well_formed, why = False, f" {error}"
    if not well_formed:
        raise ConfigError(f"A dataset on the Hub is named user/name; got {repo_id!r}.{why}")


def publish(folder: str | Path, repo_id: str, *, private: bool = False, message: str | None = None) -> str:
    """Upload a folder written by `hf_evol.run` as a dataset, card included.

    Files that the Hub already has are not sent again, so a push that broke off goes on when it is repeated, and
    one that changes nothing makes no commit.

    Args:
        folder: the local folder.
        repo_id: ``user/name``; created if it isn't there.
        private: whether a newly created repository is private.
        message: the commit message.

    Returns:
        The address of the dataset.

    Raises:
        ConfigError: a malformed ``repo_id``.
        OutputError: there is no finished set in the folder.
        HubError: the Hub refused or could not be reached; nothing local has changed.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # of the HTTP library: also refused and broken connections

    check_repo_id(repo_id)
    folder = Path(folder)
    if not (folder / "README.md").is_file() or not (folder / "provenance.json").is_file():
        raise OutputError(f"{str(folder)!r} holds no finished set: README.md or provenance.json is missing there.")
    api = HfApi()
    try:
        url = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id,
            repo_type="dataset",
            folder_path=folder,
            commit_message=message or "Upload an evolved instruction set",
        )
    except (OSError, HTTPError, RuntimeError, ValueError) as error:
        lines = str(error.__cause__ if isinstance(error, RuntimeError) else error).strip().splitlines()
        again = ["hf-evol", "push", str(folder), repo_id, *(["--private"] if private else [])]
        again += ["--message", message] if message else []
        raise HubError(
            f"The push to {repo_id!r} did not finish: {lines[0] if lines else type(error).__name__} "
            f"Sign in with `hf auth login` if the token is missing or may not write. The set in {str(folder)!r} is "
            f"untouched; go on with: {shlex.join(again)}"
        ) from error
    return str(url)
