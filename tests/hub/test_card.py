import ast
import itertools
import re
import shlex
from urllib.parse import urlsplit

import jinja2
import pytest
import yaml
from huggingface_hub import DatasetCard, constants
from markdown_it import MarkdownIt

from hf_evol.errors import OutputError
from hf_evol.hub import card as module
from hf_evol.hub.card import card_data, card_text, cell, commit, fenced, size_category, visible, wrapped
from hf_evol.hub.merge import BEGIN, END

HOSTILE = "a | b\n```\n</details><script>alert(1)</script>\n---\nlicense: mit\n---\n# Title\n[x](y) {{ 7*7 }} {% raw %} `c` \x1b[31m\u202eevil\x00"


def provenance(text="Plain text."):
    model = {"revision": "local files", "n_parameters": 5_065_472, "n_parameters_from": "counted", "dtype": "float32"}
    statistics = {"mean": 0.51234567, "ci95": [0.48, 0.54321], "q1": 0.4, "median": 0.5, "q3": None}
    return {
        "kind": "evolved",
        "title": "rows, evolved by tiny (5.07M)",
        "recipe": {"dataset": "user/rows", "model": "tiny", "tries": 4, "seed": 0, "convention": "paper"},
        "source": {"name": "user/rows", "config": None, "split": "train", "revision": "abc", "license": "mit", "on_hub": True, "language": ["en"]},
        "license": None,
        "licence_notes": ["The seed set is under cc-by-nc-4.0: *not* for <b>sale</b>."],
        "n_seeds": 10,
        "models": [
            {"role": "evolver", "name": "tiny", "license": "apache-2.0", "base": None, "note": None, **model},
            {"role": "scorer", "name": "user/other", "license": "unknown", "base": "user/base", "note": None, **model, "n_parameters": None,
             "n_parameters_from": "unknown"},
        ],
        "methods": ["constraint", "breadth"],
        "prompts_version": "0a1b2c3d4e5f",
        "rounds": [
            {"round": 1, "rows_in": 10, "ok": 9, "kept": 8, "in_set": 8, "scored": 7, "selected": 2, "unscored": {},
             "dropped": {"blow_up": 1, "cut_off": 1},
             "tries": [{"ok": 7, "near_copy": 2, "cut_off": 1}, {"ok": 2, "cut_off": 1}],
             "scores": [{"name": "IFD", "n": 7, "nulls": 1, **statistics}]},
        ],
        "configs": [
            {"name": "selected", "rows": 2, "description": "the best", "extension": "parquet"},
            {"name": "round_1", "rows": 8, "description": "all", "extension": "parquet"},
        ],
        "failures": [
            {"status": "cut_off", "count": 2, "text": text, "round": 1, "method": "constraint", "parent_instruction": text},
            {"status": "empty", "count": 1, "text": None, "round": 1, "method": "breadth", "parent_instruction": text},
        ],
        "figures": [{"path": "figures/ic_ifd.png", "alt": "Histogram"}],
        "examples": [
            {"round": 1, "method": "constraint", "ic_ifd": 0.5, "seed_instruction": text, "instruction": text,
             "input": text, "output": text},
        ],
        "libraries": {"python": "3.11", "hf_evol": "0.1.0"},
    }  # fmt: skip


def stages_provenance(text="Plain text."):
    """Of a chain of all stages, with what `provenance` says of source and models."""
    run = provenance(text)
    model, methods = {"name": "tiny", "dtype": "float32"}, [{"name": "a", "template": text}]
    table = {"round": 1, "counts": {"ok": 7, "leak": 3}, "tries": [{"ok": 6, "leak": 4}, {"ok": 1, "leak": 3}]}
    stages = [
        ("evolve", {"dataset": "rows", "limit": 10, "model": model, "methods": methods, "tries": 2}, table["counts"]),
        ("eliminate", {"dataset": "x", "keep": True}, {"kept": 7, "not_evolved": 3}),
        ("respond", {"dataset": "x", "response_system": text}, {"ok": 7, "not_evolved": 3}),
        ("score", {"dataset": "x", "convention": "superfiltering", "turns": "each"}, {"ok": 7, "invalid_input": 3}),
        ("select", {"dataset": "x", "select_by": text}, {"selected": 2, "not_selected": 5, "no_score": 3}),
    ]
    config = {
        "name": "default",
        "rows": 2,
        "description": "the rows",
        "extension": "parquet",
        "data_files": "train-*.parquet",
    }
    unknown = dict.fromkeys(("input", "output", "seed_instruction", "method", "round", "ic_ifd"))
    return run | {
        "kind": "stages",
        "recipe": stages[-1][1],
        "stages": [
            {"stage": name, "settings": settings, "rows_in": 10, "rows_out": 10, "counts": counts,
             "rounds": [table] if name == "evolve" else []}
            for name, settings, counts in stages
        ],
        "configs": [config],
        "scores": run["rounds"][0]["scores"],
        "examples": [run["examples"][0], run["examples"][0] | unknown],
        "rounds": [],
    }  # fmt: skip


def autoif_provenance():
    record = provenance()
    stages = [{"stage": "verify", "what": "constraints", "given": 9, "left": 2, "lost": {"no_function": 7}}]
    example = dict.fromkeys(("instruction", "input", "output"), "Plain text.")
    return record | {
        "kind": "autoif",
        "recipe": {"thresholds": "paper", "seeds": "demo"},
        "stages": stages,
        "rounds": [],
        "examples": [example | {"functions": ["def evaluate(response):\n    return True"], "pass_rate": 1.0}],
    }


def study_provenance():
    record = provenance()
    comparison = {
        "measure": "mnd",
        "round": 1,
        "a": "small",
        "b": "large",
        "verdict": "small is higher",
        "n": 9,
        "n_unpaired": 1,
    }
    spent = {"evolver": "small", "round": 1, "prompt_tokens": 9, "tokens": 9, "seconds": 1.5, "flops": None}
    results = {
        "verdict": ["In round 1, small is better."],
        "n_seeds": 10,
        "rounds": 1,
        "measures": [{"measure": "mnd", "label": "distance"}],
        "comparisons": [comparison | dict.fromkeys(("difference", "low", "high", "adjusted_p"), 0.01)],
        "yields": [{"evolver": "small", "round": 1, "rows_in": 10, "ok": 9, "unanswered": {"cut_off": 1}}],
        "costs": [spent],
        "failures": [{"stage": "reward", "error": "ModelError: no head"}],
    }
    models = [model | {"label": "small"} for model in record["models"]]
    return record | {"kind": "study", "results": results, "models": models, "rounds": []}


KINDS = pytest.mark.parametrize("made", [provenance, stages_provenance, autoif_provenance, study_provenance])

EXPECTED = """\
---
annotations_creators:
- machine-generated
language_creators:
- machine-generated
language:
- en
size_categories:
- n<1K
source_datasets:
- user/rows
task_categories:
- text-generation
pretty_name: rows, evolved by tiny (5.07M)
tags:
- synthetic
- instruction-tuning
- evol-instruct
- ic-ifd
- hf_evol
- evolver-size-5.07M
configs:
- config_name: selected
  data_files:
  - split: train
    path: selected/train-*.parquet
  default: true
- config_name: round_1
  data_files:
  - split: train
    path: round_1/train-*.parquet
---

<!-- hf_evol: begin of the generated part. Text outside of it is kept when the set is pushed again. -->

# rows, evolved by tiny \\(5.07M\\)

Instructions evolved from user/rows by **tiny, a model of
5.07M parameters**, in
1 round of Evol-Instruct, then answered, scored by IC-IFD and
selected. 10 seed rows gave 8 evolved rows, of which
2 are selected.

```python
from datasets import load_dataset

selected = load_dataset("user/evolved", "selected", split="train")
round_1 = load_dataset("user/evolved", "round_1", split="train")
```

| Config | Rows | What it holds |
| --- | ---: | --- |
| `selected` | 2 | the best |
| `round_1` | 8 | all |

## Models

| Role | Model | Parameters | Revision | Precision | Licence |
| --- | --- | ---: | --- | --- | --- |
| evolver | tiny | 5,065,472 | local files | float32 | apache-2.0 |
| scorer | user/other (adapter of user/base) | unknown | local files | float32 | unknown |

Where the numbers of parameters come from: counted (evolver); unknown (scorer).

## Source

Seed set: user/rows, split train, revision abc. Licence: mit.

This set has no licence of its own: whoever publishes it decides, within what the licences of the seed set and of the
models above allow.

What the licences say (no legal advice):

- The seed set is under cc-by-nc-4.0: \\*not\\* for &lt;b&gt;sale&lt;/b&gt;.

## Rounds

Each row is rewritten by one method a round, in a fixed rotation of constraint, breadth (version 0a1b2c3d4e5f of the prompts), and asked again with other worked examples and other noise, up to 4 times, until its text passes the checks. A row that fails a round is listed under `dropped`, and its last good instruction goes on into the next round.

| Round | Rows in | Evolved | Kept | In the set | Scored | Selected |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| 1 | 10 | 9 | 8 | 8 | 7 | 2 |

Why rows were left out:

| Reason | Round 1 |
| --- | ---: |
| blow\\_up | 1 |
| cut\\_off | 1 |

How the texts of each try were judged:

| Round | Try | ok | near\\_copy | cut\\_off |
| ---: | ---: | ---: | ---: | ---: |
| 1 | 1 | 7 | 2 | 1 |
| 1 | 2 | 2 | 0 | 1 |

One rejected text of each kind, from the rows that were left out; the column `rejected` holds them all, for kept rows, too:

<details>
<summary>cut_off: round 1, method constraint</summary>

Given:

```text
Plain text.
```

Rejected:

```text
Plain text.
```

</details>

<details>
<summary>empty: round 1, method breadth</summary>

Given:

```text
Plain text.
```

Rejected:

```text
(no text)
```

</details>

## Scores

IFD is L(A \\| Q) / L(A), and IC-IFD is IFD / L(Q), with L the mean cross-entropy per token under the scorer, by the convention `paper` of hf_evol; higher means that the row teaches more. Intervals are 95 % bootstrap intervals of the mean.

| Round | Score | Rows | Mean | Interval | 25 % | Median | 75 % |
| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |
| 1 | IFD | 7 | 0.5123 | 0.48 to 0.5432 | 0.4 | 0.5 | – |

![Histogram](figures/ic_ifd.png)

## Examples

Long lines are broken here, and only here.

<details>
<summary>Example 1: round 1, method constraint, IC-IFD 0.5</summary>

Seed:

```text
Plain text.
```

Evolved:

```text
Plain text.
```

Input:

```text
Plain text.
```

Response:

```text
Plain text.
```

</details>

## Limits

The instructions and responses are machine-made and unchecked by people: they may be wrong, biased or unanswerable, and
they inherit the faults of the seed set and of the models. IC-IFD depends on the scorer, so compare scores of one scorer
only. As in the paper, the seed row's input is carried through unchanged, also where a brand-new instruction no longer
fits it.

## Run it again

With the recipe below as `recipe.yaml`: `hf-evol run --recipe recipe.yaml`

```yaml
dataset: user/rows
model: tiny
tries: 4
seed: 0
convention: paper
```

Versions: python 3.11, hf\\_evol 0.1.0.

## Citation

```bibtex
@article{hui2024smaller,
  title   = {Smaller Language Models Are Better Instruction Evolvers},
  author  = {Hui, T. and Zhao, L. and Dong, G. and Zhang, Y. and Zhou, H. and Su, S.},
  journal = {arXiv preprint arXiv:2412.11231},
  year    = {2024}
}
```

<!-- hf_evol: end of the generated part -->
"""


def test_the_whole_card():
    assert card_text(provenance(), repo_id="user/evolved") == EXPECTED


def bare(record):
    """The record without what a set need not have."""
    first = record["stages"][0] | {"stage": "score", "rounds": []}
    empty = ("methods", "failures", "models", "scores", "examples", "configs", "licence_notes")
    return record | {name: [] for name in empty} | {"stages": [first], "license": "mit"}


@pytest.mark.parametrize(
    "record", [provenance(), stages_provenance(), bare(stages_provenance())], ids=["run", "stages", "bare"]
)
def test_every_name_in_the_template_is_given(record, monkeypatch):
    """Jinja leaves missing names out in silence; here they are errors."""
    strict = module._TEMPLATES.overlay(undefined=jinja2.StrictUndefined)
    monkeypatch.setattr(module, "_TEMPLATES", strict)
    assert card_text(record).startswith("---")
    with pytest.raises(OutputError, match="libraries"):
        card_text({name: value for name, value in record.items() if name != "libraries"})


@pytest.mark.parametrize(
    ("where", "said"), [("tries", True), ("dropped", True), ("recipe", True), ("switched off", False)]
)
def test_texts_beside_the_examples_are_mentioned(where, said):
    record = provenance()
    if where == "tries":
        record["rounds"][0]["tries"][1]["off_example"] = 1
    elif where == "dropped":
        record["rounds"][0]["dropped"]["off_example"] = 1
    else:
        record["recipe"]["by_example"] = said
    rounds = card_text(record).partition("## Rounds")[2].partition("\n| Round |")[0]
    assert ("were not taken (`by_example`).\n" in rounds) is said


def outside_fences(text):
    return re.sub(r"^(`{3,})[^\n]*\n.*?\n\1$", "", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    ("made", "details"), [(provenance, 3), (stages_provenance, 4)]
)  # two rejected texts, and examples
def test_hostile_text_stays_inside(made, details):
    record = made(HOSTILE)
    record["title"] = record["source"]["name"] = record["models"][0]["name"] = HOSTILE
    record["recipe"]["dataset"] = HOSTILE
    card = DatasetCard(card_text(record))
    assert card.data.to_dict()["pretty_name"] == HOSTILE
    assert "license" not in card.data.to_dict()
    body = outside_fences(card.text)
    assert "<script>" not in body and "</details><script>" not in body
    assert body.count("<details>") == body.count("</details>") == details
    assert "49" not in body.replace("{{ 7*7 }}", "")
    assert not {"\x1b", "\x00", "\u202e"} & set(card.text)
    assert "\n# Title" not in body and "\n---\n" not in body
    rows = [line for line in body.splitlines() if line.startswith("| evolver")]
    assert len(rows) == 1 and len(re.findall(r"(?<!\\)\|", rows[0])) == 7


def parts(value, path=(), whole=True):
    """Where all that a provenance holds lies in it: the ``whole``, itself first, or what holds nothing else."""
    if whole or not isinstance(value, (dict, list)):
        yield path
    for name in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from parts(value[name], (*path, name), whole)


def changed(value, path, new, rename=False):
    """With another value there, or with this name in the place of the path's last one."""
    if not path:
        return new
    name, *rest = path
    if isinstance(value, list):
        return [changed(part, rest, new, rename) if place == name else part for place, part in enumerate(value)]
    if rename and not rest:
        return {new if key == name else key: part for key, part in value.items()}
    return value | {name: changed(value[name], rest, new, rename)}


def shape(card):
    """What a card is made of, as a reader of Markdown sees it: its blocks, and its texts' links, images and HTML."""
    tokens = MarkdownIt("commonmark").enable("table").parse(DatasetCard(card).text)
    blocks = [(token.type, token.tag, token.level) for token in tokens]
    inline = [part for token in tokens for part in token.children or ()]
    active = [(part.type, part.attrs.get("href")) for part in inline if part.type in ("link_open", "html_inline")]
    pictures = [urlsplit(part.attrs["src"])[:2] for part in inline if part.type == "image"]
    html = [token.content for token in tokens if token.type == "html_block" and "summary" not in token.content]
    return blocks, active, pictures, html


BREAKING = "\n\n".join(
    [
        f"](http://evil) ![x](http://evil/x.png) <http://evil> <img src=x> ` `` ``` ~~~ | \\\\| \\\\ {HOSTILE}",
        f"# Title\n- item\n</details>\n<script>\n{END}\n{BEGIN}\n",
        '"); import os; os.system("x") #',
    ]
)
# What matters where a line begins comes in turns with the rest.
TEXTS = itertools.cycle([BREAKING, "- item", BREAKING, "1. item", BREAKING, "===", BREAKING, "//evil/x.png", BREAKING])


@KINDS
def test_nothing_in_a_provenance_breaks_out(made):
    """Each value and name in turn is a hostile text: the card is made as for a word there, or there is none for both."""
    record, cards = made(), 0
    for path in parts(record, whole=False):
        for rename in (False, True):
            if path == ("kind",) or (rename and isinstance(path[-1], int)):
                continue
            try:
                plain = shape(card_text(changed(record, path, "word", rename)))
            except OutputError:
                continue
            text = next(TEXTS)
            try:
                card = card_text(changed(record, path, text, rename))
            except OutputError:  # it decides what is shown
                continue
            assert shape(card) == plain, (path, rename, text)
            body = DatasetCard(card).text
            assert not {"\x1b", "\x00", "\u202e"} & set(body)
            assert body.count(f"\n{BEGIN}") == body.count(f"\n{END}") == 1
            cards += 1
    assert cards > 75


@KINDS
def test_what_no_card_can_be_made_of_is_an_error_that_says_so(made):
    record = made()
    odd = itertools.cycle([None, "text", {"x": None}, [None], 10**400])
    for path in parts(record):
        try:
            card_text(changed(record, path, next(odd)))
        except OutputError as error:
            assert "mend its provenance.json" in str(error) and "\n" not in str(error)
    for other in (
        [],
        None,
        "text",
        {},
        {"kind": 1},
        {"kind": "base"},
        {"kind": "../evolved"},
        record | {"kind": ["x"]},
    ):
        with pytest.raises(OutputError, match="mend its provenance"):
            card_text(other)


@KINDS
@pytest.mark.parametrize(
    "folder", ['it\'s "here"', "a\nb", "a\n```\n# b", "\\", "a\u202eb", "x" * 9, "\U0001f40d"], ids=repr
)
def test_the_example_is_python_whatever_the_folder_and_configs_are_called(made, folder):
    record = made()
    record["configs"][0]["name"] = folder
    block = re.search(r"^```python\n(.*?)\n```$", card_text(record, folder=folder), re.DOTALL | re.MULTILINE)[1]
    said = [node.value for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Constant)]
    assert said.count(folder) == (3 if made is provenance else 2) and block.isprintable() is False
    assert all(line.isprintable() for line in block.splitlines())


def test_commands_to_copy_are_quoted():
    record = stages_provenance()
    record["stages"][1] |= {"stage": "x; rm -rf ~", "settings": {"a $(b)": "`c`"}}
    block = re.search(r"```bash\n(.*?)\n```", card_text(record), re.DOTALL)[1]
    assert shlex.split(block.splitlines()[-4 if "\\" in block else 1].replace("\\", ""))
    assert "hf-evol 'x; rm -rf ~'" in block and "'--a $(b)' '`c`'" in block


@pytest.mark.parametrize(
    ("n", "name"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (52_000, "10K<n<100K"), (10**7, "10M<n<100M"), (10**12, "n>1T")],
)
def test_size_categories_are_the_hubs(n, name):
    assert size_category(n) == name


def test_escapes():
    assert cell("a|b\nc <i> *x* &amp;") == r"a\|b c &lt;i&gt; \*x\* &amp;amp;"
    assert fenced("x ```` y") == "`````text\nx ```` y\n`````"
    assert visible("a\tb\nc\r\x07👋🏽 مرحبا") == "a\tb\nc👋🏽 مرحبا"


def test_commits_are_short_links_to_the_hub(monkeypatch):
    sha = "0123456789abcdef" * 2 + "01234567"
    assert commit("user/model-0.5B", sha) == f"[0123456](https://huggingface.co/user/model-0.5B/tree/{sha})"
    assert commit("user/model", "local files") == "local files"
    assert commit("user/model", "a_branch") == r"a\_branch"
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example/(in)")
    assert commit("user/model", sha) == f"[0123456](https://hub.example/%28in%29/user/model/tree/{sha})"
    for name in ("folder", "../..", "user/mo)del", "user/model/more", "user/mod el", "user/model\n", "demo"):
        assert commit(name, sha) == sha


def test_long_lines_are_broken_at_spaces_and_nowhere_else():
    text = "    indented\n" + "word " * 30 + "\n\n" + "x" * 100 + "\nself-made " + "y" * 80 + "\n"
    lines = wrapped(text).split("\n")
    assert lines[0] == "    indented" and "x" * 100 in lines and lines[-1] == ""
    assert max(len(line) for line in lines if "x" not in line) <= 88
    assert wrapped(text).split() == text.split()
    assert wrapped("short\tlines  stay \n as they are") == "short\tlines  stay \n as they are"


def test_a_chain_of_stages_loads_from_the_top_of_its_folder_and_tells_its_commands():
    card = DatasetCard(card_text(stages_provenance("It's\n- {a}"), repo_id="user/set"))
    assert card.data.to_dict()["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "train-*.parquet"}]}
    ]
    assert 'rows = load_dataset("user/set", "default", split="train")' in card.text
    assert "| evolve | evol\\_status | 10 (limit 10) | 10 | round 1: ok 7, leak 3 |" in card.text
    assert "exp(L(A \\| Q)) / exp(L(A))" in card.text and "A is the last of a row's messages" in card.text
    block = re.search(r"```bash\n(.*?)\n```", card.text, re.DOTALL)[1]
    assert max(map(len, block.splitlines())) < 100
    lines = shlex.split(block.replace("\\\n", " ").replace("\nhf-evol", " hf-evol"))
    assert lines[:8] == [
        "hf-evol",
        "evolve",
        "--dataset",
        "rows",
        "--limit",
        "10",
        "--model",
        '{"name": "tiny", "dtype": "float32"}',
    ]
    assert lines[8:14] == ["--methods", "1-methods.yaml", "--tries", "2", "--output", "1-evolve"]
    assert lines[14:21] == ["hf-evol", "eliminate", "--dataset", "1-evolve", "--keep", "--output", "2-eliminate"]
    assert lines[lines.index("--response-system") + 1] == "It's\n- {a}"
    methods = re.search(r"```yaml\n(.*?)\n```", card.text, re.DOTALL)[1]
    assert yaml.safe_load(methods) == [{"name": "a", "template": "It's\n- {a}"}]


def test_constraints_and_rejected_replies_are_told_of_where_there_are_such():
    stages = stages_provenance()
    stages["stages"].append(stages["stages"][-1] | {"stage": "back-translate", "settings": {}, "constraints": {}})
    record = provenance() | {"constraints": {}, "self_instruct": {"ended": "All are kept.", "counts": {"ok": 6}}}
    for made in (record, stages):
        assert "verifiable-rewards" not in card_data(made).tags
        assert "No constraint was added" in card_text(made)
        (made if made is record else made["stages"][-1])["constraints"] = {"words": 2, "lines": 1}
        assert "verifiable-rewards" in card_data(made).tags
        assert "3 in all: words 2, lines 1." in card_text(made) and "No constraint was added" not in card_text(made)
    assert "under `rejected`. All" not in card_text(record)
    record["self_instruct"]["counts"]["similar"] = 1
    assert "under `rejected`. All" in card_text(record)


def test_unknown_size_is_not_guessed():
    record = provenance()
    record["models"][0]["n_parameters"] = None
    text = card_text(record)
    assert "unknown size" in text.split("##")[0] and "evolver-size" not in text


def test_the_yaml_is_yaml():
    assert yaml.safe_load(card_data(provenance()).to_yaml())["configs"][0]["default"] is True


def test_a_kind_without_template_is_an_error_of_files():
    with pytest.raises(OSError, match="unheard_of"):
        card_text(provenance() | {"kind": "unheard_of"})
