"""What the licences of seed set and models mean for the result: notes for its card, not legal advice."""

from __future__ import annotations

from collections.abc import Sequence

# Licences under which the result may plainly be licensed as the source is; and models' that ask nothing of outputs.
OPEN_DATA = ("apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-3.0", "odc-by", "pddl", "unlicense", "bsd-3-clause")
OPEN_MODELS = ("apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc0-1.0", "unlicense")
_OF_OUTPUTS = {
    **dict.fromkeys(("llama2", "llama3"), "forbids using outputs to improve other large language models"),
    **dict.fromkeys(
        ("llama3.1", "llama3.2", "llama3.3", "llama4"),
        "asks that a model trained on outputs be named with Llama in front, and shown as built with Llama",
    ),
    "gemma": "passes its use restrictions on to models trained on outputs",
}
WRITERS = (
    "evolver",
    "generator",
    "responder",
    "constrainer",
)  # whose outputs are in the set; scorers and judges only choose


def notes(source_license: str, models: Sequence[tuple[str, str, str]]) -> list[str]:
    """Where licences (Hub identifiers with commas between them, or ``"unknown"``) of the seed set or of one of the models
    (role, name, licence) restrict the result, or nobody can say, one sentence each."""
    found = [_of("The seed set", name) for name in _names(source_license)]
    for name, licences in dict.fromkeys((name, licence) for role, name, licence in models if role in WRITERS):
        for licence in _names(licences):
            restriction = _OF_OUTPUTS.get(licence)
            found.append(f"The licence of {name} ({licence}) {restriction}." if restriction else _of(name, licence))
    return list(dict.fromkeys(note for note in found if note))


def _of(what: str, licence: str) -> str | None:
    if licence == "unknown":
        return f"{what} states no licence that could be found: ask its authors before publishing."
    if "-nc" in licence or licence.startswith("apple-amlr"):
        return f"{what} is under {licence}: not for commercial use, and so neither is this set."
    if "-nd" in licence:
        return f"{what} is under {licence}, which does not allow adapted versions to be shared."
    if "-sa" in licence or licence.startswith(("gpl", "agpl", "odbl")):
        return f"{what} is under {licence}, which asks that adapted versions carry the same licence."
    if licence == "other" or licence not in (*OPEN_DATA, *OPEN_MODELS):
        return f"{what} is under {licence!r}: read its terms on use of outputs and adapted versions."
    return None


def plain_licence(source_license: str, models: Sequence[tuple[str, str, str]]) -> str | None:
    """The source's licence, where it and those of the models whose outputs are in the set plainly allow it."""
    allowed = source_license in OPEN_DATA and all(
        name in OPEN_MODELS for role, _, licence in models if role in WRITERS for name in _names(licence)
    )
    return source_license if allowed else None


def _names(licence: str) -> list[str]:
    return [name.strip().lower() for name in licence.split(",")]
