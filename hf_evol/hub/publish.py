"""Push a finished folder to the Hub."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hf_evol.errors import ConfigError, HubError, OutputError
from hf_evol.hub.card import card_text
from hf_evol.hub.merge import merge_cards

MESSAGE = "Upload an evolved instruction set"
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
        if repo_id.count("/") != 1:
            raise HFValidationError("The user is missing.")
    except HFValidationError as error:
        raise ConfigError(f"A dataset on the Hub is named user/name; got {repo_id!r}. {error}") from error


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
    card says outside its generated part (`hf_evol.hub.merge`), also where someone else pushes in the meantime. Where a
    config's rows are now in another number of files, the former ones go.

    One commit makes a push whole or nothing. The Hub recommends fewer than 100 files a commit (hub documentation,
    "Repository limitations and recommendations"), some 50 GB of rows before compression, and huggingface_hub allows 25,000.
    Far beyond, ``hf upload user/name folder --repo-type dataset`` makes several commits, with a half-new set in between.

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
        HubError: the Hub refused or could not be reached, or the published card can't be read.
    """
    from huggingface_hub import HfApi

    check_repo_id(repo_id)
    folder = Path(folder)
    if not (folder / "README.md").is_file() or not (folder / "provenance.json").is_file():
        raise OutputError(f"{str(folder)!r} holds no finished set: README.md or provenance.json is missing there.")
    again = ["hf-evol", "push", str(folder), repo_id, *(["--private"] if private else [])]
    again += ["--message", message] if message else []
    again += ["--revision", revision] if revision else []
    again += ["--create-pr"] if create_pr else []
    then = f"The set in {str(folder)!r} is untouched; go on with: {shlex.join(again)}"
    if parent is not None:  # the folder is a passing one
        then = "Nothing was changed there; append the rows again."
    api = HfApi()
    with telling(f"The push to {repo_id!r} did not finish", then):
        url = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        options = {"commit_message": message or MESSAGE, "revision": revision, "create_pr": create_pr}
        commit = commit_folder(api, folder, url.repo_id, parent=parent, **options)
    return commit.pr_url or str(url)


@contextmanager
def telling(what: str, then: str) -> Iterator[None]:
    """Raise `HubError` where the Hub refuses or can't be reached: what failed, why, and what to do then."""
    from huggingface_hub.errors import HTTPError  # of the HTTP library: also refused and broken connections

    try:
        yield
    except HubError:
        raise
    except (OSError, HTTPError, RuntimeError, ValueError, KeyError) as error:  # a KeyError: an answer without its URL
        raise HubError(f"{what}: {why(error)} {then}") from error


def why(error: BaseException) -> str:
    """What the Hub said, or why it was not heard, in one line; and to sign in, where that may help."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError

    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if isinstance(error, HfHubHTTPError):
        said, status = " ".join((error.server_message or "").split())[:300].rstrip("."), error.response.status_code
        text = f"{status} {error.response.reason_phrase} for {_asked(error.response.request)}"
        return f"{text}{': ' if said else ''}{said}.{_SIGN_IN if status in _NO_RIGHT else ''}"
    if isinstance(error, HTTPError):
        with suppress(RuntimeError):  # it may know of no request
            return f"No answer to {_asked(error.request)}: {text}."
    if isinstance(error, (LocalEntryNotFoundError, RuntimeError)) and error.__cause__:  # says what was to be done
        return f"{text}. {why(error.__cause__)}"
    if isinstance(error, KeyError):
        return f"The Hub's answer lacks {text}."
    return f"{text}."


def _asked(request: Any) -> str:
    """The request without the address's query, which is a signature where files are uploaded."""
    return f"{request.method} {request.url.host}{request.url.path}"


def commit_folder(api: Any, folder: Path, repo_id: str, *, parent: str | None = None, **options: Any) -> Any:
    """One commit, with these options of ``create_commit``, upon the state whose card was read; anew when another came
    between. As `publish` otherwise."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import HfHubHTTPError

    files = {path.relative_to(folder).as_posix(): str(path) for path in folder.rglob("*") if path.is_file()}
    card = files.pop("README.md", None)  # a method that was optimized has none
    tries = 0
    while True:
        tries += 1
        info = api.repo_info(repo_id, repo_type="dataset", revision=options.get("revision"))
        head = info.sha
        if parent is not None and head != parent:
            raise HubError(
                f"Someone else has pushed to {repo_id!r} in the meantime. Nothing was changed; run it again."
            )
        operations = [CommitOperationAdd(name, files[name]) for name in sorted(files)]
        if card:
            merged = merge_cards(_published_card(api, repo_id, head), _own_card(folder, repo_id))
            operations.insert(0, CommitOperationAdd("README.md", merged.encode("utf-8")))
        former = _former([entry.rfilename for entry in info.siblings or ()], files)
        operations += [CommitOperationDelete(name) for name in former]
        try:
            return api.create_commit(repo_id, operations, repo_type="dataset", parent_commit=head, **options)
        except HfHubHTTPError as error:
            if error.response.status_code not in _STALE or tries == _TRIES:
                raise


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


def _former(published: list[str], new: Collection[str]) -> list[str]:
    """The published files of rows that new ones replace: the card's glob would read them beside the new ones."""
    replaced = {match.groups() for name in new if (match := _SHARD.fullmatch(name))}
    shards = ((name, _SHARD.fullmatch(name)) for name in published if name not in new)
    return [name for name, match in shards if match and match.groups() in replaced]
