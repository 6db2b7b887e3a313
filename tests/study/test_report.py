import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_data import HOSTILE, UTF8, make, unmeasured

from hf_evol.study.excerpt import added, excerpt
from hf_evol.study.figures import draw
from hf_evol.study.findings import cost_sentences, findings, listed, winner
from hf_evol.study.report import figure, p_value, write_report

VOID = {"meta", "link", "input", "br"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """A page's elements and text; tags must close in order."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.scripts, self.text = [], [], [], ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts[-1] += data
        elif self.open[-1:] != ["style"]:
            self.text += data


def written(study, folder, figures=True):
    path = folder / "report.html"
    drawn = draw(*study, folder / "figures") if figures else []
    write_report(*study, drawn, path)
    return path, Page(path.read_text("utf-8")), drawn


def test_everything_is_in_the_one_file(tmp_path):
    measures = ("difficulty_score", "ifd", "ic_ifd", "mnd", "top1_mean")
    path, page, drawn = written(make(("one", "two", "three"), measures=measures), tmp_path)
    shown = [attributes.get("aria-label") for tag, attributes in page.elements if tag == "svg"]
    assert len(drawn) == 8 and all(shown.count(figure["alt"]) == 1 for figure in drawn)
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action", "xmlns"):
            assert not (value := attributes.get(name)) or value.startswith("#") or value == "data:,", (tag, value)
    assert not re.search(r"https?:|url\((?!#)|@import", path.read_text("utf-8"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"][1:] for tag, attributes in page.elements if tag == "a"}
    assert targets <= set(ids) and {"measures", "cost", "judge", "diversity", "rows"} <= targets


def test_only_its_own_script_may_run(tmp_path):
    _, page, _ = written(make(), tmp_path, figures=False)
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "unsafe" not in re.search("script-src[^;]*", policy)[0]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_the_same_study_gives_the_same_bytes(tmp_path):
    study = make(measures=("ifd",), rounds=1)
    path, _, drawn = written(study, tmp_path)
    first = path.read_bytes()
    write_report(*study, drawn, path)
    assert path.read_bytes() == first


def hostile(value):
    """The same results with hostile text wherever a text may stand."""
    if isinstance(value, dict):
        kept = ("role", "measure", "evolver", "a", "b", "label", "verdict")
        return {key: entry if key in kept else hostile(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [hostile(entry) for entry in value]
    return HOSTILE if isinstance(value, str) else value


def test_text_is_text(tmp_path):
    results, rows = make(text=UTF8)
    results = hostile(results)
    results["yields"][0]["dropped"] = {HOSTILE: 3}
    results["measures"][0]["label"] = HOSTILE
    path, page, _ = written((results, rows), tmp_path, figures=False)  # which hold labels and words of ours only
    source = path.read_text("utf-8")
    assert len(page.scripts) == 2 and not any(tag == "b" for tag, _ in page.elements)
    assert "<script>alert" not in source and "<!--" not in source and "\u202e" not in page.text
    assert page.text.count("<script>alert(1)</script>") > 10 and "{{ 7*7 }}" in page.text
    assert not set("<>&") & set(page.scripts[0])
    data = json.loads(page.scripts[0])
    assert data["seeds"]["t-0"]["text"] == UTF8 and data["labels"] == ["small", "large"]
    assert "".join(data["pairs"][0]["by"][0]["parts"]).startswith(UTF8)


def test_labels_hide_and_reorder_nothing_in_texts_and_figures(tmp_path):
    path, page, _ = written(make(labels=("small\u202e<b>", "large"), measures=("mnd",)), tmp_path)
    shown = path.read_text("utf-8").replace(page.scripts[0], "")
    assert "small&lt;b&gt;" in shown and "\u202e" not in shown
    assert not any(tag == "b" for tag, _ in page.elements)


def test_failures_come_before_the_measures(tmp_path):
    _, page, _ = written(make(), tmp_path, figures=False)
    head = page.text[: page.text.index("What it says.")]
    assert head.index("In round 2, ") < head.index("ModelError: no head")


def test_what_is_missing_leaves_no_trace(tmp_path):
    results, rows = make(measures=("difficulty_score", "top1_mean"))
    for missing in ("levels", "yields", "costs", "judgements", "diversity", "comparisons", "summaries", "measures"):
        _, page, _ = written((results | {missing: []}, rows), tmp_path, figures=False)
        assert "None" not in page.text and "nan" not in page.text.lower().split(), missing


def test_nulls_and_few_rows(tmp_path):
    results, rows = make()
    _, page, _ = written((unmeasured(results), rows), tmp_path, figures=False)
    assert "could not be compared" in page.text and "None" not in page.text
    _, page, _ = written(make(n=1, rounds=1), tmp_path, figures=False)
    assert "no difference is shown" in page.text and "rest on 1 pair only" in page.text and "None" not in page.text
    _, page, _ = written((results, rows.select([])), tmp_path, figures=False)
    assert "all 0 pairs" in page.text
    _, page, _ = written(
        (results, rows.remove_columns(["method", "reward", "output", "input"])), tmp_path, figures=False
    )
    assert [m["measure"] for m in json.loads(page.scripts[0])["measures"]][:2] == ["difficulty_score", "ifd"]


def comparison(measure, difference, round_=1, shown=True, n=40):
    verdict = "On it, one is higher" if shown else "No difference shown"
    return {"measure": measure, "round": round_, "a": "A", "b": "B", "difference": difference, "n": n,
            "verdict": verdict if n else None}  # fmt: skip


def said(*comparisons):
    measures = ["difficulty_score", "reward", "mnd", "n_words"]
    made = [{"measure": m, "label": m} for m in measures]
    (finding,) = findings({"role": "evolver", "comparisons": comparisons, "measures": made})
    return finding["text"]


def test_findings_in_words():
    assert said(comparison("reward", 1), comparison("mnd", 1), comparison("difficulty_score", 1, shown=False)) == (
        "In round 1, A is better by 2 of 3 measures of quality (reward and mnd), B by none. "
        "By difficulty_score, no difference is shown."
    )
    of_b = "In round 1, B is better by 1 of 1 measure of quality (reward), A by none."
    assert said(comparison("reward", -1)) == of_b
    assert said(comparison("difficulty_score", -1), comparison("reward", -1), comparison("mnd", 1)) == (
        "In round 1, B is better by 2 of 3 measures of quality (difficulty_score and reward), A by 1 (mnd)."
    )
    nothing = said(comparison("reward", 1, 2, shown=False), comparison("reward", 1, 1), comparison("n_words", 9, 2))
    assert nothing.startswith(
        "In round 2, no difference is shown between A and B by any of 1 measure of quality (reward)."
    )
    assert "by no measure of quality" in said(comparison("n_words", 9))
    assert said(comparison("reward", 1), comparison("mnd", None, n=0)).endswith("By mnd, no rows could be compared.")
    assert "could not be compared" in said(comparison("reward", None, n=0))


def test_the_last_round_with_pairs_counts():
    text = said(comparison("reward", 1, 1), comparison("reward", None, 2, n=0))
    assert text.startswith("In round 1, A is")


def test_a_finding_has_the_comparisons_of_each_measure_and_round():
    shown, undecided, missing = (
        comparison("n_words", -2.5), comparison("n_words", 1, 2, shown=False), comparison("reward", None, 2, n=0)
    )  # fmt: skip
    measures = [{"measure": m, "label": m} for m in ("reward", "n_words")]
    (finding,) = findings({"role": "evolver", "comparisons": [shown, undecided, missing], "measures": measures})
    assert finding["rounds"] == [1, 2] and finding["fewest"] == 40
    assert finding["rows"] == [(measures[0], [None, missing]), (measures[1], [shown, undecided])]
    assert [winner(entry) for entry in (shown, undecided, missing)] == ["B", None, None]


def test_who_is_higher_stands_at_the_head(tmp_path):
    results, rows = make(measures=("reward", "n_words"))
    results["comparisons"][0] |= {"difference": -2.5, "low": -3.25, "high": -1.75, "verdict": "On it, large is higher"}
    results["comparisons"][1] |= {"verdict": "No difference shown"}
    results["comparisons"][2] |= {"n": 0, "verdict": None}
    results["yields"][0] |= {"ok": 4, "rows_in": 12}
    _, page, _ = written((results, rows), tmp_path, figures=False)
    assert "33.3 %" in page.text
    head = " ".join(page.text[: page.text.index("What it says.")].split())
    assert "reward * large by 2.5 (1.75 to 3.25) no difference shown n words not compared" in head


def test_costs_in_words():
    costs = [
        {"evolver": name, "flops": flops, "tokens": 10} for name, flops in (("A", 30.0), ("A", 30.0), ("B", 600.0))
    ]
    results = {"role": "evolver", "evolvers": [{"label": "A"}, {"label": "B"}], "costs": costs}
    assert cost_sentences(results) == ["A spent 10 % of the FLOPs of B."]
    costs[0]["flops"] = None
    assert cost_sentences(results) == ["B spent 50 % of the generated tokens of A."]
    assert cost_sentences(results | {"costs": costs[:2]}) == []


def test_numbers():
    assert (figure(-1.23456), figure(2.0, True), figure(None), figure(0)) == ("−1.235", "+2", "–", "0")
    assert (p_value(0.0001), p_value(0.0421), p_value(None)) == ("< 0.001", "0.042", "–")
    assert (listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])) == ("a", "a and b", "a, b and c")


@pytest.mark.parametrize(
    ("seed", "text", "marked"),
    [
        ("Name a river.", "Name a river.", []),
        ("Name a river.", "name a river in Asia!", ["in Asia"]),
        ("Name a river.", "Please, kindly name a long river", ["Please, kindly", "long"]),
        ("", "All new", ["All new"]),
        ("Name a river", "", []),
        ("川の名前", "長い川の名前", ["長い"]),
        ("x + y", "x + y + 😀 z", ["z"]),
    ],
)
def test_added_words(seed, text, marked):
    parts = added(seed, text)
    assert parts[1::2] == marked and "".join(parts) == text


@given(st.text(), st.text())
def test_parts_make_the_text(seed, text):
    assert "".join(added(seed, text)) == text


def test_excerpt_draws_whole_seeds(tmp_path):
    results, rows = make(n=12, rounds=2)
    shown = excerpt(results, rows, cap=7)
    assert len(shown["pairs"]) == 6 and shown["total"] == 24
    drawn = [pair["id"] for pair in shown["pairs"]]
    assert drawn[::2] == drawn[1::2] and sorted(drawn, key=lambda id_: int(id_[2:])) == drawn != [
        f"t-{i // 2}" for i in range(6)
    ]
    assert excerpt(results, rows, cap=7) == shown
    assert excerpt(results, rows)["total"] == len(excerpt(results, rows)["pairs"]) == 24


def test_excerpt_keeps_what_a_row_says():
    results, rows = make()
    rows = rows.map(lambda row: {"instruction": "word " * 1000 if row["id"] == "t-0" else row["instruction"]})
    rows = rows.filter(lambda row: (row["label"], row["id"]) != ("large", "t-1"))
    shown = excerpt(results, rows)
    (cell, _), (_, none) = (next(p["by"] for p in shown["pairs"] if p["id"] == id_) for id_ in ("t-0", "t-1"))
    assert len("".join(cell["parts"])) == 3000 and cell["more"] == 2000 and none is None
    source = next(row for row in rows if (row["label"], row["id"], row["round"]) == ("small", "t-0", 1))
    place = [measure["measure"] for measure in shown["measures"]].index("reward")
    assert cell["values"][place] == pytest.approx(source["reward"], rel=1e-5) and cell["status"] == "ok"
    assert cell["level"] == source["difficulty_level"] and shown["pairs"][0]["method"] == "constraint"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_rows_can_be_searched_and_filtered(tmp_path):
    study = make(text=UTF8)
    path, _, _ = written(study, tmp_path, figures=False)

    def shown(query):
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        command += ["--virtual-time-budget=2000", "--dump-dom", f"{path.as_uri()}#rows?{query}"]
        page = Page(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
        return page, sum(attributes.get("class") == "pair" for tag, attributes in page.elements)

    page, n = shown("q=T-3 asia&round=2")
    assert n == 1 and "1 of 24 pairs" in page.text and ("ins", {}) in page.elements
    assert not any(tag == "b" for tag, _ in page.elements) and len(page.scripts) == 2
    ahead = sum(
        None not in pair["by"]
        and None not in (values := [cell["values"][0] for cell in pair["by"]])
        and values[0] > values[1]
        for pair in excerpt(*study)["pairs"]
    )
    page, n = shown("measure=0&order=0-1&page=2")
    assert f"{ahead} of 24 pairs, largest difference first" in page.text and n == ahead - 10
