import pytest

from hf_evol.hub.licences import notes, plain_licence

APACHE = [("evolver", "user/small", "apache-2.0"), ("responder", "user/large", "mit")]


@pytest.mark.parametrize(
    ("source", "models", "words"),
    [
        ("apache-2.0", APACHE, []),
        ("cc-by-nc-4.0", APACHE, ["seed set is under cc-by-nc-4.0: not for commercial use"]),
        ("mit, cc-by-nc-sa-4.0", APACHE, ["not for commercial use"]),
        ("cc-by-sa-4.0", APACHE, ["carry the same licence"]),
        ("cc-by-nd-4.0", APACHE, ["adapted versions"]),
        ("unknown", APACHE, ["seed set states no licence"]),
        ("mit", [("evolver", "m", "llama3")], ["m (llama3) forbids using outputs"]),
        ("mit", [("responder", "m", "llama3.1")], ["named with Llama in front"]),
        ("mit", [("evolver", "m", "gemma"), ("responder", "m", "gemma")], ["m (gemma) passes"]),
        ("mit", [("evolver", "m", "other")], ["m is under 'other': read its terms"]),
        ("mit", [("evolver", "m", "unknown")], ["m states no licence"]),
        ("mit", [("scorer", "m", "cc-by-nc-4.0"), ("judge", "j", "llama3")], []),  # they write nothing of the set
    ],
)
def test_notes(source, models, words):
    found = notes(source, models)
    assert len(found) == len(words)
    assert all(word in note for word, note in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("source", "models", "licence"),
    [
        ("apache-2.0", APACHE, "apache-2.0"),
        ("cc-by-4.0", APACHE, "cc-by-4.0"),
        ("cc-by-nc-4.0", APACHE, None),
        ("unknown", APACHE, None),
        ("mit, apache-2.0", APACHE, None),
        ("mit", [*APACHE, ("evolver", "m", "llama3.1")], None),
        ("mit", [*APACHE, ("scorer", "m", "unknown")], "mit"),
    ],
)
def test_a_licence_is_set_only_where_all_plainly_allow_it(source, models, licence):
    assert plain_licence(source, models) == licence
