"""Self-Instruct (Wang et al., arXiv:2212.10560): new instructions from those of a seed set."""

from __future__ import annotations

import logging
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from hf_evol import columns as col
from hf_evol.errors import ConfigError, ModelError, require_extra
from hf_evol.evolve.make_input import NEEDS_INPUT, MakeInput
from hf_evol.generation.sampling import row_key
from hf_evol.prompts.self_instruct import instruction_prompt
from hf_evol.prompts.words import words
from hf_evol.reading.new_instruction import MOST_WORDS, is_classification, read_instruction
from hf_evol.transform import Batch, SampledTransform, check_columns, map_dataset

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

_SHOWN, _OF_GENERATED = 8, 2  # instructions shown at a time, and how many of them a model has made up
_SIMILAR = 0.7  # from this ROUGE-L on
_LAST, _FEW = 64, 4  # of so many requests, so many rows at least are kept, or the pool is as good as exhausted
# As rouge-score splits texts, without stemming; in scripts written without spaces, which it knows nothing of, each character.
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")

_FEATURES = {
    col.ID: "string", col.INSTRUCTION: "string", col.INPUT: "string", col.INSTRUCTION_STATUS: "string", col.GENERATOR: "string",
    col.INPUT_GENERATOR: "string", col.IS_CLASSIFICATION: "bool", col.ROUGE_L: "float64", col.NEAREST_SEED: "string", col.SHOWN: ["string"],
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ProposeInstruction(SampledTransform):
    """Ask a model for one more instruction, once a row: a step of `hf_evol.self_instruct`.

    Input columns:
        ``id``, which decides the sampling noise alone; ``shown``, a list of instructions.

    Output columns:
        ``instruction`` (null where the reply holds none), ``generator`` (the model's name), ``instruction_status``: ``ok``, the
        reason of `hf_evol.reading.new_instruction.read_instruction`, ``too_long: …``, ``template_error: …`` or ``engine_error: …``.

    Args:
        temperature, top_p: 0.7 and 0.5 in the paper.
        max_new_tokens: 256, which hold the 150 words that an instruction may have.
    """

    top_p: float = 0.5
    max_new_tokens: int = 256

    input_columns: ClassVar[tuple[str, ...]] = (col.ID, col.SHOWN)
    output_columns: ClassVar[dict[str, Any]] = dict.fromkeys(
        (col.INSTRUCTION, col.GENERATOR, col.INSTRUCTION_STATUS), "string"
    )
    keyed_by: ClassVar[tuple[str, ...]] = (col.ID,)
    label: ClassVar[str] = "Self-Instruct"

    def apply(self, batch: Batch) -> Batch:
        chats = [instruction_prompt(shown) for shown in batch[col.SHOWN]]
        keys = [row_key(self.seed, row_id, 0, "self_instruct") for row_id in batch[col.ID]]
        read = [
            (None, done.error) if done.error else read_instruction(done.text, shown, done.finish_reason)
            for done, shown in zip(self.complete(chats, keys), batch[col.SHOWN], strict=True)
        ]
        return {
            col.INSTRUCTION: [text for text, _ in read],
            col.GENERATOR: [self.model.name] * len(read),
            col.INSTRUCTION_STATUS: [status for _, status in read],
        }


class SelfInstructed(NamedTuple):
    """What `self_instruct` made: the new rows, the other replies with their reasons, of each round how many replies got which
    status, and why it ended."""

    rows: Dataset
    rejected: Dataset
    rounds: list[dict[str, Any]]
    ended: str

    @property
    def counts(self) -> Counter[str]:
        """How many replies of all rounds got which status, the commonest first."""
        of_all = sum((Counter(table["counts"]) for table in self.rounds), Counter[str]())
        return Counter(dict(of_all.most_common()))

    @property
    def n_inputs(self) -> int:
        """How many rows have an input."""
        return sum(map(bool, self.rows[col.INPUT]))


def self_instruct(
    seeds: Dataset, model: Any, n: int = 200, *, requests: int | None = None, per_round: int = 64, responder: Any = None,
    num_proc: int | None = None, **sampling: Any,
) -> SelfInstructed:  # fmt: skip
    """Have a model make up new instructions from a pool, which begins as the seeds and grows (Self-Instruct, arXiv:2212.10560).

    Each request shows 8 instructions of the pool, 2 of them made up in earlier rounds as soon as there are such, drawn by seed,
    round and number of the request; the reply is one more. It is kept if it can stand as an instruction
    (`hf_evol.reading.new_instruction.read_instruction`) and its ROUGE-L F to every other one of the pool is under 0.7. A round asks as
    often as the missing rows should take by the yield so far (Laplace's rule of succession, so twice for each row at first).
    Rounds follow each other until ``n`` rows are kept or the requests are spent, or of the last 64 requests fewer than 4 brought a
    row, which is logged. The same seed gives the same rows in any arrangement of batches and processes; in half precision, rounding
    may differ with the batch. After a crash, the journal knows the finished requests.

    Instructions that need an input, such as "Write a slogan for the given product.", are kept if a ``responder`` is given and makes up
    a good one; without it, seeds with an input are not shown. Seeds with turns before and those of more than 150 words are never shown,
    but new rows may not be similar to them. Answers are `hf_evol.Respond`'s.

    Input columns:
        ``instruction``; and, if there, ``id``, ``input``, ``context``. `to_instructions` makes them.

    Output columns:
        ``id`` (``self-instruct-`` and the number of the request), ``instruction``, ``input`` (empty where none is needed),
        ``instruction_status``, ``generator`` (the model's name), ``input_generator`` (the name of the model that made the input up),
        ``is_classification`` (whether one of a few known answers is asked for, by English words), ``rouge_l`` (the highest ROUGE-L F
        to a seed) and ``nearest_seed`` (its id), ``shown`` (the ids of what the model was shown). ``instruction_status`` is ``ok``;
        rejected replies have a reason of `read_instruction` or of the engine, ``no_input: …`` with a reason of
        `hf_evol.reading.new_input.read_input`, ``duplicate: …`` and ``similar: …`` (with ROUGE-L and the other one's id) or
        ``not_needed`` (there were ``n`` rows before).

    Args:
        seeds: the human-written instructions; 175 in the paper.
        model: a Hub id, a folder, a `ModelSpec` or an engine.
        n: how many rows to make.
        requests: the most requests to make; by default ten for each row.
        per_round: the most requests of a round, which all see the same pool.
        responder: a model, given as ``model`` is, that makes up the inputs that instructions need, as `MakeInput` does.
        num_proc: processes, as of `hf_evol.map`.
        sampling: ``seed``, ``temperature``, ``top_p``, ``max_new_tokens`` and ``journal``, as of `ProposeInstruction`.

    Raises:
        ConfigError, ColumnError: wrong arguments, or no seed that can be shown, before a model is loaded.
        MissingExtraError: rapidfuzz is not installed.
        ModelError: of the first 64 requests, no reply is kept; or most of the last ones failed.

    Example:
        >>> new, rejected, rounds, ended = self_instruct(seeds, "HuggingFaceTB/SmolLM2-360M-Instruct", 100)  # doctest: +SKIP
    """
    from datasets import Dataset

    require_extra("rapidfuzz", "self-instruct", "self_instruct")
    budget = 10 * n if requests is None else requests
    for name, value in {"n": n, "requests": budget, "per_round": per_round}.items():
        if value < 1:
            raise ConfigError(f"{name} must be 1 or more; got {value!r}.")
    propose = ProposeInstruction(model, **sampling)
    known = {name: sampling[name] for name in ("seed", "journal") if name in sampling}
    make_input = None if responder is None else MakeInput(responder, **known)
    written, pool = _read_seeds(seeds, with_input=make_input is not None)
    if make_input is not None:
        make_input.check()
    asked_of = propose.model.name if make_input is None else f"{propose.model.name} and {make_input.model.name}"
    of_seeds = range(len(pool.ids))
    kept: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    rounds: list[dict[str, Any]] = []
    statuses: list[str] = []  # of all requests
    ended = None
    while ended is None:
        asked = len(statuses)
        missing = -(-(n - len(kept)) * (asked + 2) // (len(kept) + 1))  # by the yield so far, rounded up
        numbers = range(asked, min(asked + missing, asked + per_round, budget))
        shown = [_drawn(f"{propose.seed}|{len(rounds)}|{number}", written, kept) for number in numbers]
        ids = [f"self-instruct-{number}" for number in numbers]
        asking = Dataset.from_dict({col.ID: ids, col.SHOWN: [texts for _, texts in shown]})
        options = {"batch_size": len(ids), "num_proc": num_proc}
        replies = map_dataset(asking, propose, **options, desc=f"Self-Instruct, round {len(rounds) + 1}").to_list()
        for row, (ids_shown, _) in zip(replies, shown, strict=True):
            row[col.INPUT], row[col.SHOWN] = "", ids_shown
            if (text := row[col.INSTRUCTION]) is not None:
                row[col.IS_CLASSIFICATION] = is_classification(text)
                row[col.ROUGE_L], row[col.NEAREST_SEED] = pool.nearest_of(of_seeds, text)
                if row[col.INSTRUCTION_STATUS] in (col.OK, NEEDS_INPUT):
                    row[col.INSTRUCTION_STATUS] = _beside(pool, text) or row[col.INSTRUCTION_STATUS]
        if make_input is not None:
            replies = _with_inputs(replies, make_input, options)
        for row in replies:
            if row[col.INSTRUCTION_STATUS] == col.OK:
                of_this_round = _beside(pool, row[col.INSTRUCTION])
                row[col.INSTRUCTION_STATUS] = of_this_round or (col.OK if len(kept) < n else "not_needed")
            if row[col.INSTRUCTION_STATUS] == col.OK:
                pool.add(row[col.ID], row[col.INSTRUCTION])
                kept.append(row)
            else:
                rejected.append(row)
        counts = Counter(col.reason(row[col.INSTRUCTION_STATUS]) for row in replies)
        rounds.append({"round": len(rounds) + 1, "counts": dict(counts.most_common()), "tries": []})
        statuses += [row[col.INSTRUCTION_STATUS] for row in replies]
        last = statuses[-_LAST:]
        _check(asked_of, last, len(statuses), is_over=not kept and len(statuses) >= min(_LAST, budget))
        if len(kept) == n or len(statuses) == budget:
            ended = f"{len(kept)} of {n} rows are kept, of {len(statuses)} requests."
        elif len(last) == _LAST and last.count(col.OK) < _FEW:
            ended = f"{len(kept)} of {n} rows are kept: of the last {_LAST} requests, {last.count(col.OK)} brought one."
    logger.log(logging.INFO if len(kept) == n else logging.WARNING, "Self-Instruct ended: %s", ended)
    return SelfInstructed(_dataset(kept), _dataset(rejected), rounds, ended)


def check_seeds(seeds: Dataset, with_input: bool) -> None:
    """Raise as `self_instruct` does where it can't begin with these seeds."""
    require_extra("rapidfuzz", "self-instruct", "self_instruct")
    _read_seeds(seeds, with_input)


def _read_seeds(seeds: Dataset, with_input: bool) -> tuple[list[tuple[str, str]], _Pool]:
    """The ids and instructions that can be shown, and the pool of all."""
    check_columns((col.INSTRUCTION,), seeds.column_names)
    pool, written, unfit = _Pool(), [], Counter[str]()
    known = [name for name in (col.ID, col.INSTRUCTION, col.INPUT, col.CONTEXT) if name in seeds.column_names]
    for place, row in enumerate(seeds.select_columns(known).with_format(None)):
        text, row_id = row[col.INSTRUCTION], str(row.get(col.ID) or f"seed-{place}")
        if not isinstance(text, str) or not _tokens(text):
            unfit["without text"] += 1
        elif pool.nearest(text, 1.0)[1] is not None:
            unfit["repeated"] += 1
        else:
            pool.add(row_id, text)
            has_input = bool(str(row.get(col.INPUT) or "").strip())
            if row.get(col.CONTEXT):
                unfit["with turns before"] += 1
            elif has_input and not with_input:
                unfit["with an input"] += 1
            elif len(words(text)) > MOST_WORDS:
                unfit[f"of more than {MOST_WORDS} words"] += 1
            else:
                written.append((row_id, text))
    if not written:
        raise ConfigError(
            f"None of the {len(seeds)} seeds can be shown to the model ({col.counted(unfit) or 'there is none'}). Give some whose "
            f"instruction stands alone: without {'' if with_input else 'input or '}turns before, of at most {MOST_WORDS} words."
        )
    if unfit:
        logger.info("Of %d seeds, %d can be shown; of the others: %s", len(seeds), len(written), col.counted(unfit))
    return written, pool


def _drawn(key: str, written: Sequence[tuple[str, str]], kept: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """The ids and instructions that a request shows."""
    pick = random.Random(key)
    made = [(row[col.ID], row[col.INSTRUCTION]) for row in pick.sample(kept, min(_OF_GENERATED, len(kept)))]
    chosen = made + pick.sample(written, min(_SHOWN - len(made), len(written)))
    pick.shuffle(chosen)
    return [row_id for row_id, _ in chosen], [text for _, text in chosen]


def _beside(pool: _Pool, text: str) -> str | None:
    """Whether a text is too near to one of the others."""
    score, other = pool.nearest(text, _SIMILAR)
    if other is None:
        return None
    return f"duplicate: of {other}" if score == 1 else f"similar: {score:.2f} to {other}"


def _with_inputs(replies: list[dict[str, Any]], make_input: MakeInput, options: dict[str, Any]) -> list[dict[str, Any]]:
    """The replies, those that need an input with one."""
    from datasets import Dataset

    asking = [row for row in replies if row[col.INSTRUCTION_STATUS] == NEEDS_INPUT]
    if not asking:
        return replies
    read = Dataset.from_list([{name: row[name] for name in make_input.input_columns} for row in asking])
    made = {row[col.ID]: row for row in map_dataset(read, make_input, **options)}
    return [row | made.get(row[col.ID], {}) for row in replies]


def _check(model: str, last: Sequence[str], asked: int, is_over: bool) -> None:
    """Raise if the last requests failed, or if it is over as none has brought a row."""
    if not col.are_answers(last):
        first = next(status for status in last if status.startswith(col.PASSING_FAILURES))
        raise ModelError(
            f"Most of the last {len(last)} requests to {model} failed ({first}). Finished ones are in the journal, unless it is "
            "off: the same call goes on from there."
        )
    if is_over:
        raise ModelError(
            f"{model} was asked {asked} times for a new instruction, and no reply can be kept "
            f"({col.counted(col.lost(last))}). Take a larger model, or more and other seeds."
        )


def _dataset(rows: list[dict[str, Any]]) -> Dataset:
    from datasets import Dataset, Features, List, Value

    features = {
        name: List(Value(kind[0])) if isinstance(kind, list) else Value(kind) for name, kind in _FEATURES.items()
    }
    return Dataset.from_dict({name: [row.get(name) for row in rows] for name in features}, features=Features(features))


def _tokens(text: str) -> tuple[str, ...]:
    return tuple(_TOKEN.findall(text.lower()))


class _Pool:
    """Instructions, among which the ones near to a text are found exactly without comparing it with all."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.texts: list[tuple[str, ...]] = []
        self.places: defaultdict[str, list[int]] = defaultdict(list)  # of each word, the texts that have it

    def add(self, row_id: str, text: str) -> None:
        said = _tokens(text)
        for word in set(said):
            self.places[word].append(len(self.ids))
        self.ids.append(row_id)
        self.texts.append(said)

    def nearest(self, text: str, least: float) -> tuple[float, str | None]:
        """As `nearest_of`, of all.

        With a longest common subsequence of c words, of texts of a and b words, F is 2c / (a + b). As c is at most b, F >= f needs
        c >= a·f / (2 - f): whichever words of a text are left out, as many as it can do without, one of the others is common.
        """
        said = _tokens(text)
        common = math.ceil(len(said) * least / (2 - least) - 1e-9)
        rarest = sorted(said, key=lambda word: len(self.places.get(word, ())))[: len(said) - common + 1]
        return self.nearest_of(sorted({place for word in rarest for place in self.places.get(word, ())}), text, least)

    def nearest_of(self, places: Sequence[int], text: str, least: float = 0.0) -> tuple[float, str | None]:
        """The highest ROUGE-L F of a text to those at some places, and the id of the first that has it; None under ``least``."""
        from rapidfuzz import process
        from rapidfuzz.distance import Indel

        texts = [self.texts[place] for place in places]
        found = process.extractOne(
            _tokens(text), texts, scorer=Indel.normalized_similarity, score_cutoff=least, processor=None
        )
        return (0.0, None) if found is None else (found[1], self.ids[places[found[2]]])
