"""Every exception of the package.

Each one also is a built-in exception, so callers can catch either, and each survives pickling, so that it
comes back whole from the worker processes of ``Dataset.map(num_proc=…)``.
"""

from __future__ import annotations

from hf_evol.secrets import without_secrets


class HfEvolError(Exception):
    """Base of all errors raised on purpose by this package. The message says what to do, and shows no secrets. Where a run had
    written its set before, ``result`` is what the run made."""

    result: object = None

    def __init__(self, *args: object) -> None:
        super().__init__(*map(without_secrets, args))


class ConfigError(HfEvolError, ValueError):
    """A wrong setting; raised before any model is loaded."""


class ColumnError(HfEvolError, ValueError):
    """A column is missing, has the wrong type, or holds values that can't be used."""


class FormatError(HfEvolError, ValueError):
    """A dataset's format is unknown or ambiguous, or none of its rows can be read in it."""


class MissingExtraError(HfEvolError, ImportError):
    """An optional dependency is not installed; the message holds the pip command."""


class ModelError(HfEvolError, OSError):
    """A model or tokenizer can't be found, read or used."""


class SourceError(HfEvolError, OSError):
    """A seed set can't be found or read."""


class OutputError(HfEvolError, OSError):
    """An output folder can't be written, or already exists."""


class SandboxError(HfEvolError, OSError):
    """Generated code can't be isolated here; the message says what to install."""


class TaskError(HfEvolError, RuntimeError):
    """Tasks of a cluster run failed or did not end; the same command does what is missing."""


class HubError(HfEvolError, OSError):
    """The Hub refused or could not be reached."""


def check_counts(settings: object, *names: str) -> None:
    """Raise `ConfigError` unless each of these settings is None, or 1 or more."""
    for name in names:
        if (value := getattr(settings, name)) is not None and value < 1:
            raise ConfigError(f"{name} must be 1 or more; got {value!r}.")


def require_extra(module: str, extra: str, what: str) -> None:
    """Raise `MissingExtraError` unless ``module`` can be imported.

    Args:
        module: the import name, for example ``"matplotlib"``.
        extra: this package's extra that installs it, for example ``"plots"``.
        what: who needs it, as the subject of the message.
    """
    import importlib.util

    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(f"{what} needs {module}, which is not installed: pip install 'hf_evol[{extra}]'")
