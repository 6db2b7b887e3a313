"""Runs that begin again: from the journal, after an interruption, or when memory ran out."""

import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from scored_rows import CHAT, CONVENTIONS, ROWS, batch_of, close, hooked, records, unloadable

from hf_evol import columns as col
from hf_evol.models import ModelSpec
from hf_evol.models import journal as journals
from hf_evol.scoring import losses, pairs
from hf_evol.scoring.ic_ifd import IcIfd


@pytest.fixture
def journal(tmp_path, monkeypatch):
    """A journal file, opened anew by each call, as by another process."""
    monkeypatch.setattr(journals, "_journals", SimpleNamespace(setdefault=lambda path, journal: journal))
    return tmp_path / "journal.sqlite"


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_second_run_is_read_from_the_journal(tiny_model, journal, convention):
    expected = IcIfd(tiny_model, convention=convention, journal=False)(batch_of(ROWS))
    assert IcIfd(tiny_model, convention=convention, journal=journal)(batch_of(ROWS)) == expected
    with unloadable():
        again = IcIfd(tiny_model, convention=convention, journal=journal, batch_tokens=1)(batch_of(ROWS[::-1]))
    assert records(again)[::-1] == records(expected)


def test_turns_are_read_from_the_journal_too(tiny_model, journal):
    chats = {"messages": [CHAT, CHAT[:3], CHAT[1:]]}
    expected = IcIfd(tiny_model, turns="each", journal=False)(chats)
    assert IcIfd(tiny_model, turns="each", journal=journal)(chats) == expected
    with unloadable():
        assert IcIfd(tiny_model, turns="each", journal=journal)(chats) == expected
        assert records(IcIfd(tiny_model, turns="last", journal=journal)(chats)) == records(expected)


def test_the_journal_keeps_settings_and_models_apart(tiny_model, bos_model, journal):
    variants = [
        IcIfd(tiny_model), IcIfd(bos_model), IcIfd(tiny_model, convention="superfiltering"), IcIfd(tiny_model, max_length=30),
        IcIfd(tiny_model, max_length=30, truncate=True), IcIfd(tiny_model, convention="exact"), IcIfd(tiny_model, convention="exact_chat"),
        IcIfd(ModelSpec(tiny_model, chat_template="{{ messages[-1].content }}!"), convention="exact_chat"),
        IcIfd(ModelSpec(tiny_model, dtype="bfloat16")),
    ]  # fmt: skip
    plain = [records(replace(variant, journal=False)(batch_of(ROWS))) for variant in variants]
    assert len({json.dumps(found) for found in plain}) == len(variants)
    assert [records(replace(variant, journal=journal)(batch_of(ROWS))) for variant in variants] == plain


@pytest.mark.parametrize("calls", [1, 2, 4])
def test_a_run_that_was_interrupted_goes_on(tiny_model, journal, calls, monkeypatch):
    monkeypatch.setattr(pairs, "_WINDOW", 2)
    batch = batch_of(list(dict.fromkeys(ROWS)))
    expected = IcIfd(tiny_model, journal=False)(batch)
    scorer, passes = IcIfd(tiny_model, batch_tokens=64, journal=journal), []

    def stop(tokens):
        if len(passes) == calls:
            raise KeyboardInterrupt
        passes.append(tokens)

    with hooked(tiny_model, stop), pytest.raises(KeyboardInterrupt):
        scorer(batch)
    passes.clear()
    with hooked(tiny_model, passes.append):
        out = scorer(batch)
        first = sum(tokens.numel() for tokens in passes)
        IcIfd(tiny_model, batch_tokens=64, journal=False)(batch)
    assert records(out) == [close(record) for record in records(expected)]
    whole = sum(tokens.numel() for tokens in passes) - first
    assert first <= whole if calls == 1 else first < whole  # no row need be finished by the first pass


MANY = [
    (f"How many rivers are left, {number}?", "The sea is deep and blue. " * 4 + str(number)) for number in range(40)
]
KILLED = """
import os, signal, sqlite3, sys, time
from scored_rows import batch_of, hooked
from test_ic_ifd_journal import MANY
from hf_evol.models import journal
from hf_evol.scoring.ic_ifd import IcIfd

folder, file = sys.argv[1:]
journal._WRITE_AFTER_S, passes = 0.1, []

def kill(tokens):
    passes.append(tokens)
    if len(passes) == 42:  # the model's check are 2, and each row is 2
        limit = time.monotonic() + 10
        while sqlite3.connect(file).execute("SELECT COUNT(*) FROM requests").fetchone()[0] < 16:
            if time.monotonic() > limit:
                break
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)

with hooked(folder, kill):
    IcIfd(folder, batch_tokens=160, journal=file)(batch_of(MANY))
"""


def test_a_run_that_was_killed_goes_on(tiny_model, journal, monkeypatch):
    """Of rows that one batch of a dataset holds, those that were finished before are not scored again."""
    settings = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", KILLED, tiny_model, str(journal)]
    assert subprocess.run(arguments, env=settings, timeout=120).returncode == -signal.SIGKILL
    known = journals.Journal(journal).stats().requests
    assert 16 <= known < 20  # as far as the passes went, but for the last few
    asked, stream = [], IcIfd.stream
    monkeypatch.setattr(IcIfd, "stream", lambda self, requests: (asked.extend(requests), stream(self, requests))[1])
    scorer = IcIfd(tiny_model, batch_tokens=160, journal=journal)
    out = scorer(batch_of(MANY))
    assert len(asked) == len(MANY) - known
    assert records(out) == [close(record) for record in records(replace(scorer, journal=False)(batch_of(MANY)))]


def test_rows_that_do_not_fit_into_memory(tiny_model, journal, monkeypatch):
    """They are left out, alone, and tried again by the next run."""
    rows = [("Name a river.", "The Nile, in Africa. " * 8), *ROWS[:1], *ROWS[3:8]]
    expected = records(IcIfd(tiny_model, journal=False)(batch_of(rows)))
    monkeypatch.setattr(losses, "_budgets", {})

    passes = itertools.count()

    def limit(tokens):
        if next(passes) > 100:
            pytest.fail("The same batch again and again.")
        if tokens.numel() > 100:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    scorer = IcIfd(tiny_model, journal=journal)
    with hooked(tiny_model, limit):
        found = records(scorer(batch_of(rows)))
    assert found[0][col.IC_IFD_STATUS] == "out_of_memory"
    assert found[0][col.IC_IFD] is found[0][col.IFD] is found[0][col.LOSS_A_GIVEN_Q] is None
    assert found[1:] == [close(record) for record in expected[1:]]
    tokens = []
    with hooked(tiny_model, tokens.append):
        assert records(scorer(batch_of(rows))) == [close(record) for record in expected]
    assert sum(len(batch) for batch in tokens) == 2  # the row's two sequences; the others are known
