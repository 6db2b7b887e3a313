"""Push a finished folder to the Hub."""

from __future__ import annotations

import json
import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

from hf_evol.errors import ConfigError, HubError, OutputError
from hf_evol.hub.card import card_text
from hf_evol.hub.merge import merge_cards

_TRIES = 4
_STALE = (409, 412)  # the Hub's answers when the parent commit is no longer the last one
_NO_RIGHT = (401, 403, 404)  # 404: that of a private dataset of others, too
_SHARD = re.compile(r"((?:.+/)?train)-\d{5}-of-\d{5}(\.\w+)")  # one file of a config's rows
_SIGN_IN = " Sign in with `hf auth login` if the token is missing or may not write."


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


def publish(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    message: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    parent: str | None = None,
) -> str:
    """Upload a folder written by `hf_evol.run`, or by the command of a stage, as a dataset, card included, in one commit.

    Files that the Hub already has are not sent again, so a push that broke off goes on when it is repeated, and one that
    changes nothing makes no commit. Other files, configs and splits of the dataset stay, and so does what the published
    card says outside its generated part (`hf_evol.hub.merge`); that part is made anew, so that its example loads the set from
    the Hub. If someone else pushes in the meantime, the card is merged
    anew. Where a config's rows are now in another number of files, the former ones go.

    One commit is what makes a push whole or nothing. Its hard limit is 25,000 large files (huggingface_hub,
    ``HfApi.create_commit``); the Hub recommends to stay under 100 files a commit, 10,000 in a folder and 100,000 in a
    repository (hub documentation, "Repository limitations and recommendations"). With files of 500 MB, 100 of them are some
    50 GB of rows before compression. Far beyond that, upload the folder with ``hf upload user/name folder --repo-type
    dataset``, which makes several commits and goes on where it broke off, but leaves a set half-new in between.

    Args:
        folder: the local folder.
        repo_id: ``user/name``; created if it isn't there.
        private: whether a newly created repository is private.
        message: the commit message.
        revision: the branch to push to, which must be there; by default the main one.
        create_pr: open a pull request instead.
        parent: the commit that must be the last one, where the folder was made from what is published.

    Returns:
        The address of the dataset, or of the pull request.

    Raises:
        ConfigError: a malformed ``repo_id``.
        OutputError: there is no finished set in the folder.
        HubError: the Hub refused or could not be reached, or the published card can't be read; nothing local has
            changed.
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
        commit = commit_folder(api, folder, url.repo_id, message, revision, create_pr, parent)
    except HubError:
        raise
    except (OSError, HTTPError, RuntimeError, ValueError, KeyError) as error:  # a KeyError: an answer without its URL
        if parent is not None:  # the folder is a passing one
            raise HubError(
                f"The push to {repo_id!r} did not finish: {why(error)} Nothing was changed there; append the rows again."
            ) from error
        again = ["hf-evol", "push", str(folder), repo_id, *(["--private"] if private else [])]
        again += ["--message", message] if message else []
        again += ["--revision", revision] if revision else []
        again += ["--create-pr"] if create_pr else []
        raise HubError(
            f"The push to {repo_id!r} did not finish: {why(error)} The set in {str(folder)!r} is untouched; go on "
            f"with: {shlex.join(again)}"
        ) from error
    return commit.pr_url or str(url)


def why(error: BaseException) -> str:
    """What the Hub said, or why it was not heard, in one line; and to sign in, where that may help."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError

    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if isinstance(error, HfHubHTTPError):
        said, status = " ".join((error.server_message or "").split())[:300].rstrip("."), error.response.status_code
        text = (
            f"{status} {error.response.reason_phrase} for {_asked(error.response.request)}{': ' if said else ''}{said}"
        )
        return f"{text}.{_SIGN_IN if status in _NO_RIGHT else ''}"
    if isinstance(error, HTTPError):
        with suppress(RuntimeError):  # it may know of no request
            return f"No answer to {_asked(error.request)}: {text}."
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__:
        return f"The published card could not be fetched. {why(error.__cause__)}"
    if isinstance(error, RuntimeError) and error.__cause__:  # names the file
        return f"{text}. {why(error.__cause__)}"
    if isinstance(error, KeyError):
        return f"The Hub's answer lacks {text}."
    return f"{text}."


def _asked(request: Any) -> str:
    """The request without the address's query, which is a signature where files are uploaded."""
    return f"{request.method} {request.url.host}{request.url.path}"


def commit_folder(
    api: Any,
    folder: Path,
    repo_id: str,
    message: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    parent: str | None = None,
) -> Any:
    """One commit upon the state whose card was read; anew when another commit came between. As `publish` otherwise."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import HfHubHTTPError

    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "README.md")
    names = [path.relative_to(folder).as_posix() for path in files]
    for attempt in range(1, _TRIES + 1):
        info = api.repo_info(repo_id, repo_type="dataset", revision=revision)
        head = info.sha
        if parent is not None and head != parent:
            raise HubError(
                f"Someone else has pushed to {repo_id!r} in the meantime. Nothing was changed; run it again."
            )
        operations = [CommitOperationAdd(name, str(path)) for name, path in zip(names, files, strict=True)]
        if (folder / "README.md").is_file():  # a method that was optimized has none
            merged = merge_cards(_published_card(api, repo_id, head), _own_card(folder, repo_id))
            operations.insert(0, CommitOperationAdd("README.md", merged.encode("utf-8")))
        former = _former([entry.rfilename for entry in info.siblings or ()], names)
        operations += [CommitOperationDelete(name) for name in former]
        try:
            return api.create_commit(
                repo_id,
                operations,
                repo_type="dataset",
                commit_message=message or "Upload an evolved instruction set",
                revision=revision,
                create_pr=create_pr,
                parent_commit=head,
            )
        except HfHubHTTPError as error:
            if error.response.status_code not in _STALE or attempt == _TRIES:
                raise
    raise AssertionError("the last try returns or raises")


def _own_card(folder: Path, repo_id: str) -> str:
    """The folder's card, whose example loads the set from where it is going to be."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    return merge_cards(card, card_text(provenance, repo_id=repo_id)) if "kind" in provenance else card


def _published_card(api: Any, repo_id: str, head: str) -> str | None:
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        card = api.hf_hub_download(repo_id, "README.md", repo_type="dataset", revision=head)
        return Path(card).read_bytes().decode("utf-8")
    except RemoteEntryNotFoundError:  # not its parent, which a download that fails raises too
        return None
    except UnicodeDecodeError as error:
        raise HubError(f"The published card of {repo_id!r} is no UTF-8 text, so it is left as it is.") from error


def _former(published: list[str], new: list[str]) -> list[str]:
    """The published files of rows that new ones replace: the card's glob would read them beside the new ones."""
    replaced = {match.groups() for name in new if (match := _SHARD.fullmatch(name))}
    return [
        name
        for name in published
        if (match := _SHARD.fullmatch(name)) and match.groups() in replaced and name not in new
    ]
