import pytest
import yaml
from huggingface_hub import DatasetCard
from hypothesis import given, settings
from hypothesis import strategies as st
from test_card import provenance

from hf_evol.errors import HubError
from hf_evol.hub.card import card_text
from hf_evol.hub.merge import BEGIN, END, merge_cards


def card(data, text):
    return f"---\n{yaml.safe_dump(data, sort_keys=False)}---\n{text}"


def config(name, default=False):
    made = {"config_name": name, "data_files": [{"split": "train", "path": f"{name}/*.parquet"}]}
    return made | ({"default": True} if default else {})


def info(name, rows):
    return {"config_name": name, "splits": [{"name": "train", "num_bytes": 8, "num_examples": rows}]}


def data_of(content):
    return yaml.safe_load(content.split("---\n")[1])


def outside(content):
    """The text before and after the generated part."""
    text = DatasetCard(content).text
    return text[: text.index(BEGIN)], text[text.rindex(END) + len(END) :]


NEW = card(
    {"pretty_name": "Mine", "tags": ["synthetic", "b"], "configs": [config("selected", True), config("round_1")]},
    f"\n{BEGIN}\n\n# Fresh\n\n{END}\n",
)
MARKED = f"\nBefore.\n\n{BEGIN}\n\n# Stale\n\n{END}\n\nAfter.  \n\n\n"


@pytest.mark.parametrize("published", [None, "", " \n", NEW])
def test_nothing_published(published):
    assert merge_cards(published, NEW) == NEW


def test_configs_are_merged_by_name_with_one_default():
    old = [config("mine", True), config("round_1") | {"features": []}, config("round_9")]
    merged = data_of(merge_cards(card({"configs": old}, MARKED), NEW))
    assert merged["configs"] == [config("selected"), config("round_1"), config("mine", True), config("round_9")]


def test_a_default_stays_where_the_new_card_names_none():
    merged = data_of(merge_cards(card({"configs": [config("mine", True)]}, ""), card({"configs": [config("a")]}, "x")))
    assert merged["configs"] == [config("a"), config("mine", True)]


def test_the_only_config_of_others_stays_the_default():
    merged = data_of(merge_cards(card({"configs": [config("mine")]}, ""), NEW))
    assert merged["configs"] == [config("selected"), config("round_1"), config("mine", True)]


def test_a_set_of_one_config_takes_the_place_of_its_earlier_default():
    old, new = {"configs": [config("selected", True), config("mine")]}, card({"configs": [config("default")]}, "x")
    merged = data_of(merge_cards(card(old, ""), new, {"configs": [config("selected", True)]}))
    assert merged["configs"] == [config("default"), config("mine")]
    with pytest.raises(HubError, match="'selected' of others is the default one there"):
        merge_cards(card(old, ""), new)


@pytest.mark.parametrize("kept", ["round_1", "round_9"])
def test_splits_that_people_added_stay(kept):
    splits = [{"split": "train", "path": "a"}, {"split": "test", "path": ["b", "c"]}]
    old = {"configs": [config("selected", True), config(kept) | {"data_files": splits}]}
    earlier = {"configs": [config("selected", True), config(kept)]}
    merged = {entry["config_name"]: entry for entry in data_of(merge_cards(card(old, ""), NEW, earlier))["configs"]}
    expected = [*config(kept)["data_files"], splits[1]] if kept == "round_1" else [splits[1]]
    assert merged[kept] == {"config_name": kept, "data_files": expected}


@pytest.mark.parametrize(
    ("old", "kept"),
    [
        ([info("mine", 3), info("selected", 4)], [info("mine", 3)]),
        ([info("selected", 4), info("round_1", 9)], None),
        (info("selected", 4), None),
        ({"features": []}, {"features": []}),  # that of the config named default, in the form `datasets` can read
    ],
)
def test_the_info_of_replaced_configs_goes_and_that_of_others_stays(old, kept):
    assert data_of(merge_cards(card({"dataset_info": old}, MARKED), NEW)).get("dataset_info") == kept


@pytest.mark.parametrize("old", [["b", "c"], "c", ["c", "c"]], ids=str)
def test_tags_are_united(old):
    assert sorted(data_of(merge_cards(card({"tags": old}, MARKED), NEW))["tags"]) == ["b", "c", "synthetic"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("license", "cc-by-4.0"), ("license", ["mit", "other"]), ("license_name", "own"), ("language", ["de", "no"]),
        ("pretty_name", "Größer 🌊: {{ 7*7 }}"), ("viewer", False), ("theirs", {"deep": [1, {"a": None}]}),
        ("released", "2024-01-01"), ("train-eval-index", [{"config": "x"}]), ("extra_gated_prompt", "a\n---\nb\n"),
    ],
)  # fmt: skip
def test_what_people_decided_stays(name, value):
    new = card({"pretty_name": "Mine", "license": "mit", "language": ["en"], "viewer": True}, f"{BEGIN}\nx\n{END}\n")
    assert DatasetCard(merge_cards(card({name: value}, MARKED), new)).data.to_dict()[name] == value


WRITTEN = """\
# About this set
language: [no,   # Norsk
  de]
2024: 010
on: Yes
version: 1.10
time: 12:30:45
viewer: null
"quoted": 'single'   # and why
folded: >-
    a
      # no comment

    b
shared: &x [1, 2]
again: *x
# The end
"""
THEIRS = """\
configs:
  # By Anna
  - config_name: "theirs"  # 1.0
    data_files:
      - {split: train, path: b}
    version: 1.10
    default: true
"""


def test_what_people_wrote_stays_as_they_wrote_it():
    start, end = WRITTEN.split("# The end")[0], "# The end\n"
    old = f"---\n{start}tags: [no, b]\n{THEIRS}{end}---\n{MARKED}"
    merged = merge_cards(old, NEW)
    head = merged.split("---\n")[1]
    assert head.startswith(f"{start}tags:\n- no\n- b\n- synthetic\nconfigs:\n- config_name: selected\n")
    theirs = "".join(line.removeprefix("  ") for line in THEIRS.splitlines(keepends=True)[1:])
    assert head.endswith(f"/*.parquet\n{theirs}pretty_name: Mine\n{end}")
    assert merge_cards(merged, NEW) == merged


def test_aliases_do_not_grow():
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12))
    merged = merge_cards(f"---\nl0: &l0 [a]\n{levels}---\n", NEW)
    assert levels in merged and len(merged) < 2000


def test_text_without_marks_follows_the_generated_part():
    merged = merge_cards("# By hand\n\nMine.", NEW)
    assert merged.endswith(f"# Fresh\n\n{END}\n\n# By hand\n\nMine.\n")


def test_a_card_from_elsewhere_gets_marks():
    assert f"{BEGIN}\n\n# Other\n\n{END}\n\nAfter.  \n\n\n" in merge_cards(card({}, MARKED), card({}, "\n# Other\n\n"))


@pytest.mark.parametrize("example", [END, BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}\n{END}"])
@pytest.mark.parametrize("which", ["published", "new"])
def test_an_example_row_may_hold_the_marks(example, which):
    generated = {"published": "plain", "new": "plain"} | {which: example}
    cards = {name: card_text(provenance(text)) for name, text in generated.items()}
    old = cards["published"].replace(f"\n{BEGIN}", f"\nBefore.\n\n{BEGIN}", 1).rstrip("\n") + "\n\nAfter.\n"
    merged = merge_cards(old, cards["new"])
    before, after = outside(merged)
    assert (before.strip(), after) == ("Before.", "\n\nAfter.\n")
    assert merge_cards(merged, cards["new"]) == merged


@pytest.mark.parametrize(
    "text",
    [
        f"\n{BEGIN}\n\n# Stale\n\n{END}\n\nKept, as it is after the mark `{END}` above.\n",
        f"\nNote: text before `{BEGIN}` is kept.\n\nKept.\n\n{BEGIN}\n\n# Stale\n\n{END}\n",
    ],
)
def test_people_may_write_about_the_marks(text):
    assert "Kept" in merge_cards(card({}, text), NEW)


def test_a_mark_that_was_left_alone_costs_no_text():
    merged = merge_cards(card({}, f"\n# Stale\n\nKept.\n\n{END}\n"), NEW)
    assert merge_cards(merged, NEW) == merged


TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\n\r`#<>-|"), max_size=60)


@settings(max_examples=80, deadline=None)
@given(before=TEXTS, after=TEXTS, stale=TEXTS)
def test_text_outside_the_marks_stays_byte_for_byte(before, after, stale):
    data = {"license": "mit", "configs": [config("mine")]}
    old = card(data, f"{before}\n{BEGIN}\n{stale}\n{END}{after}")
    merged = merge_cards(old, NEW)
    assert merged.endswith(f"---\n{before}\n{BEGIN}\n\n# Fresh\n\n{END}{after}") or "\r" in before + after + stale
    assert outside(merged) == (before + "\n", after)
    assert merge_cards(merged, NEW) == merged


@settings(max_examples=80, deadline=None)
@given(text=TEXTS.filter(lambda text: not text.lstrip().startswith("---")))
def test_text_without_marks_stays_and_a_second_merge_changes_nothing(text):
    merged = merge_cards(text, NEW)
    assert text.strip() in merged
    assert merge_cards(merged, NEW) == merged


@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "BOM"])
@pytest.mark.parametrize("line_break", ["\n", "\r\n"], ids=repr)
@pytest.mark.parametrize("end", ["After.", "After.\n"], ids=repr)
def test_line_breaks_and_byte_order_marks(start, line_break, end):
    lines = [
        "---",
        "license: mit",
        "dataset_info:",
        "  config_name: mine",
        "---",
        "Before.",
        BEGIN,
        "# Stale",
        END,
        end,
    ]
    merged = merge_cards(start + "\n".join(lines).replace("\n", line_break), NEW)
    data = DatasetCard(merged).data.to_dict()
    assert (data["license"], data["dataset_info"]) == ("mit", {"config_name": "mine"})
    assert outside(merged) == (f"Before.{line_break}", line_break + end.replace("\n", line_break))
    assert merge_cards(merged, NEW) == merged


UNREADABLE = [
    "license: [mit", "- a\n- b", "just text", "a: b: c", "x: !!python/object/apply:os.system ['true']",
    "license: \x07", "? [a]\n: b", "a: 1\nb: 2\na: 3", "a: &a {b: 1}\nc: {<<: *a}", "[" * 2000, "tags: &a [b]\nmore: *a",
]  # fmt: skip


@pytest.mark.parametrize("block", UNREADABLE)
def test_a_card_that_cannot_be_read_is_left_alone(block):
    with pytest.raises(HubError, match="published card can't be read"):
        merge_cards(f"---\n{block}\n---\n{MARKED}", NEW)


@pytest.mark.parametrize(
    "block",
    [
        "configs: [a, b]", "configs: text", "configs: {config_name: mine, data_files: x}", "configs: [null]",
        "dataset_info: text", "dataset_info: [text]", "tags: [[a]]", "tags: [{a: b}]", "tags: 3", "tags: null",
        "configs: null", "configs: [{config_name: [a]}]", "dataset_info: [{config_name: {a: b}}]",
    ],
)  # fmt: skip
def test_metadata_of_an_odd_shape_is_kept_or_refused(block):
    try:
        merged = merge_cards(f"---\n{block}\n---\n{MARKED}", NEW)
    except HubError:
        return
    assert outside(merged) == outside(card({}, MARKED))
    assert merge_cards(merged, NEW) == merged
