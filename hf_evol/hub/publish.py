"""Push a finished folder to the Hub."""

from __future__ import annotations

import hashlib
import logging
import shlex
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import yaml
from fsspec.implementations.local import LocalFileSystem
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from hf_evol.data import FILE_FORMATS
from hf_evol.errors import ConfigError, HfEvolError, HubError, OutputError
from hf_evol.hub.card import card_text, within
from hf_evol.hub.configs import check_configs
from hf_evol.hub.record import CARD, PROVENANCE, changed, made, own_files, parsed, read_card, read_provenance

logger = logging.getLogger(__name__)

MESSAGE = "Upload an evolved instruction set"
_TRIES = 4
_STALE = (409, 412)  # the Hub's answers when the parent commit is no longer the last one
_NO_RIGHT = (401, 403, 404)  # 404: that of a private dataset of others, too
_NO_SUCH_PAGE = (404, 405, 501)
_SIGN_IN = " Sign in with `hf auth login` if the token is missing or may not write."


def check_repo_id(repo_id: str) -> None:
    """Raise `ConfigError` unless ``repo_id`` has the form ``user/name``."""
    try:
        validate_repo_id(repo_id)
        if repo_id.count("/") != 1:
            raise HFValidationError("The user is missing.")
    except HFValidationError as error:
        raise ConfigError(f"A dataset on the Hub is named user/name; got {repo_id!r}. {error}") from error


def check_push(repo_id: str, *, private: bool = False, file_format: str = "parquet") -> None:
    """Raise unless a set may be pushed to this name, before work for it begins.

    Raises:
        ConfigError: a malformed name; or ``private`` for a dataset that is public, which a push leaves public.
        HubError: the token is missing or may not write there, things of others are in the way, or the Hub can't be reached.
    """
    check_repo_id(repo_id)
    api = HfApi()
    with telling(f"A set can't be pushed to {repo_id!r}", "Nothing was done."):
        try:
            is_public = not api.repo_info(repo_id, repo_type="dataset").private
        except RepositoryNotFoundError:
            _check_namespace(api, repo_id)
            return
        if private and is_public:
            raise ConfigError(
                f"{repo_id!r} is public: --private is for datasets that a push creates. Make it private in its settings on the "
                "Hub, or choose another name."
            )
        check_right(api, repo_id)
        check_room(api, repo_id, None, file_format)


def check_right(api: Any, repo_id: str) -> None:
    """Raise the Hub's own error unless the token may write to a dataset that is there."""
    try:
        api.auth_check(repo_id, repo_type="dataset", write=True)
    except RepositoryNotFoundError:
        raise
    except HfHubHTTPError as error:
        if error.response.status_code not in _NO_SUCH_PAGE:
            raise
        _check_namespace(api, repo_id)  # the server has no such check


def check_room(api: Any, repo_id: str, revision: str | None, file_format: str) -> None:
    """Raise `HubError` where what others have in a dataset leaves no room for a set, as far as can be told before there is
    one."""
    there = Published.of(api, repo_id, revision)
    file = f"hf_evol/train-00000-of-00001.{FILE_FORMATS[file_format]}"
    config = {"config_name": "hf_evol", "data_files": [{"split": "train", "path": file}]}
    card = f"---\n{yaml.safe_dump({'configs': [config]})}---\n"
    _merged(repo_id, there, card, ["hf_evol"], {file})


def _check_namespace(api: Any, repo_id: str) -> None:
    """Raise unless the token may create datasets in a namespace; as far as the server tells."""
    namespace = repo_id.partition("/")[0]
    try:
        who = api.whoami()
    except HfHubHTTPError as error:
        if error.response.status_code not in _NO_SUCH_PAGE:
            raise
        return
    roles = {org["name"]: org.get("roleInOrg") for org in who.get("orgs") or ()} | {who["name"]: "admin"}
    if roles.get(namespace, "read") == "read":
        raise HubError(
            f"You are signed in as {who['name']!r}, who can't create {repo_id!r}. Choose a name under "
            f"{', '.join(name for name, role in roles.items() if role != 'read')}, or sign in as another with `hf auth login`."
        )
    token = (who.get("auth") or {}).get("accessToken") or {}
    scopes = (token.get("fineGrained") or {}).get("scoped") or ()
    rights = [right for scope in scopes if scope["entity"].get("name") == namespace for right in scope["permissions"]]
    if token.get("role") == "read" or (token.get("role") == "fineGrained" and "repo.write" not in rights):
        raise HubError(
            f"The token may not write to {namespace!r}. Make one that may at the Hub's settings, and sign in by it with "
            "`hf auth login`."
        )


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
    """Upload a set written by `hf_evol.run`, or by the command of a stage, as a dataset, card included, in one commit.

    What is sent is what the set's ``provenance.json`` lists, unchanged since it was written, and its card, whose example loads
    the set from where it lands. Files that the Hub already has are not sent again, so a push that broke off goes on when it is
    repeated, and one that changes nothing makes no commit and says so. What an earlier set of ours has left there goes: its
    files, configs and metadata. Other files, configs, splits and metadata stay, and so does what the published card says
    outside its generated part (`hf_evol.hub.merge`), also where someone else pushes in the meantime. Where the set would
    replace a file or config of others, or make one unloadable, nothing is pushed.

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
        ConfigError: a malformed ``repo_id``, or as in `check_push`.
        OutputError: there is no finished set in the folder, or one of its files was changed.
        HubError: the Hub refused or could not be reached, the published card can't be read, or things of others are in the way.
    """
    check_repo_id(repo_id)
    folder = Path(folder)
    record = read_provenance(str(folder))
    read_card(LocalFileSystem(), str(folder))
    lost = changed(folder, record)
    if made(record) != "set":
        raise OutputError(f"{str(folder)!r} holds a {made(record)}, no set.")
    if lost is not None:
        raise OutputError(
            f"{lost!r} in {str(folder)!r} is missing, or not as it was written, so that the card may not be true of it. Write the "
            f"set anew; or upload the folder as it is: {shlex.join(['hf', 'upload', repo_id, str(folder), '--repo-type', 'dataset'])}"
        )
    again = ["hf-evol", "push", str(folder), repo_id, *(["--private"] if private else [])]
    again += ["--message", message] if message else []
    again += ["--revision", revision] if revision else []
    again += ["--create-pr"] if create_pr else []
    then = f"The set in {str(folder)!r} is untouched; go on with: {shlex.join(again)}"
    if parent is not None:  # the folder is a passing one
        then = "Nothing was changed there; append the rows again."
    api = HfApi()
    with telling(f"The push to {repo_id!r} did not finish", then):
        if private:
            check_push(repo_id, private=True)
        url = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        options = {"commit_message": message or MESSAGE, "revision": revision, "create_pr": create_pr}
        agrees = lambda there: parent in (None, there.head)  # noqa: E731
        commit = commit_folder(api, folder, url.repo_id, agrees, **options)
    return commit.pr_url or str(url)


@contextmanager
def telling(what: str, then: str) -> Iterator[None]:
    """Raise `HubError` where the Hub refuses or can't be reached: what failed, why, and what to do then."""
    try:
        yield
    except HfEvolError:
        raise
    # HTTPError is the HTTP library's: also of refused and broken connections.
    except (OSError, HTTPError, RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise HubError(f"{what}: {why(error)} {then}") from error


def why(error: BaseException) -> str:
    """What the Hub said, or why it was not heard, in one line; and to sign in, where that may help."""
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
    if isinstance(error, (JSONDecodeError, LookupError, TypeError, AttributeError)):
        return f"Its answer can't be understood ({type(error).__name__}: {text})."
    return f"{text}."


def _asked(request: Any) -> str:
    """The request without the address's query, which is a signature where files are uploaded."""
    return f"{request.method} {request.url.host}{request.url.path}"


@dataclass(frozen=True)
class Published:
    """What is in a dataset on the Hub at a commit."""

    head: str
    files: frozenset[str]
    card: str | None
    provenance: str | None

    @classmethod
    def of(cls, api: Any, repo_id: str, revision: str | None) -> Published:
        info = api.repo_info(repo_id, repo_type="dataset", revision=revision)
        if not info.sha or info.siblings is None:
            raise HubError(f"The Hub does not say what is in {repo_id!r}, so it is left as it is.")
        files = frozenset(entry.rfilename for entry in info.siblings)
        texts = {}
        for name in (CARD, PROVENANCE):
            try:
                file = (
                    api.hf_hub_download(repo_id, name, repo_type="dataset", revision=info.sha)
                    if name in files
                    else None
                )
                texts[name] = Path(file).read_bytes().decode("utf-8") if file else None
            except UnicodeDecodeError as error:
                what = "card" if name == CARD else name
                raise HubError(
                    f"The published {what} of {repo_id!r} is no UTF-8 text, so it is left as it is."
                ) from error
        return cls(info.sha, files, texts[CARD], texts[PROVENANCE])

    @property
    def digest(self) -> str | None:
        """As that of a `hf_evol.hub.target.Target`."""
        return None if self.provenance is None else hashlib.sha256(self.provenance.encode("utf-8")).hexdigest()

    @property
    def record(self) -> dict[str, Any]:
        """The provenance of the set of ours that is there; of an empty one where there is none."""
        try:
            return {"files": {}, "configs": []} if self.provenance is None else parsed(self.provenance)
        except ValueError as error:
            raise HubError(f"The dataset holds a provenance.json that is left as it is: {error}.") from error


def commit_folder(
    api: Any, folder: Path, repo_id: str, agrees: Callable[[Published], bool] = lambda there: True, **options: Any
) -> Any:
    """One commit of a set's files, with these options of ``create_commit``, upon the state whose card was read; anew when
    another came between, if what is there then ``agrees``. As `publish` otherwise."""
    record = read_provenance(str(folder))
    files = {name: str(folder / name) for name in own_files(record)}
    own_provenance = (folder / PROVENANCE).read_text(encoding="utf-8")
    tries = 0
    while True:
        tries += 1
        there = Published.of(api, repo_id, options.get("revision"))
        if not agrees(there) and there.provenance != own_provenance:  # its own commit, whose answer was lost
            raise HubError(
                f"Someone else has pushed to {repo_id!r} in the meantime. Nothing was changed; run it again."
            )
        operations = [CommitOperationAdd(name, files[name]) for name in sorted(files.keys() - {CARD})]
        if CARD in files:  # a method that was optimized has none
            branch = None if options.get("create_pr") else options.get("revision")
            own = card_text(record, repo_id=repo_id, revision=branch)  # whose example loads the set from where it goes
            own = within(read_card(LocalFileSystem(), str(folder)), own, record)
            card = _merged(repo_id, there, own, [config["name"] for config in record["configs"]], files)
            operations.insert(0, CommitOperationAdd(CARD, card.encode("utf-8")))
        gone = (there.files & own_files(there.record)) - files.keys()
        operations += [CommitOperationDelete(name) for name in sorted(gone)]
        try:
            done = api.create_commit(repo_id, operations, repo_type="dataset", parent_commit=there.head, **options)
        except HfHubHTTPError as error:
            status = error.response.status_code
            if tries == _TRIES or not (
                status in _STALE or (status >= 500 and tries == 1 and not options.get("create_pr"))
            ):
                raise
        except HTTPError:
            if tries > 1 or options.get("create_pr"):
                raise  # else its answer may have been lost alone: what is there is looked at again
        else:
            if done.oid == there.head:
                logger.warning("Nothing has changed: %s holds this set already.", repo_id)
            return done


def _merged(repo_id: str, there: Published, card: str, names: Collection[str], files: Collection[str]) -> str:
    """A set's card within what is published; a `HubError` where things of others are in the way of the set.

    Args:
        card: of the set.
        names: of its configs.
        files: of the set.
    """
    former = there.record
    if ".gitignore" in there.files:
        raise HubError(
            f"{repo_id!r} holds a .gitignore, by which the Hub may leave out rows of the set. Remove it there first."
        )
    if strange := (there.files & {*files}) - own_files(former) - {CARD}:
        raise HubError(
            f"{repo_id!r} holds {min(strange)!r}, which hf_evol has not written, and this set has a file of that name. "
            "Rename it there, or choose another dataset."
        )
    merged = within(there.card, card, former)
    after = (there.files | {*files, CARD}) - (own_files(former) - {*files})
    earlier = [config["name"] for config in former.get("configs", ())]
    check_configs(repo_id, (there.card, there.files), (merged, after), earlier, names, own_files(former), files)
    return merged
