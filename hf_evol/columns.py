"""The names of every column this package reads or writes, in one place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

ID = "id"  # stable: seed set name, a dash, the row's position from 0; "alpaca-17"
INSTRUCTION = "instruction"
INPUT = "input"
OUTPUT = "output"
CONTEXT = (
    "context"  # the turns before the instruction, a system turn among them: a list of {"role", "content"}, or null
)
READ_STATUS = "read_status"

SEED_INSTRUCTION = "seed_instruction"
SEED_OUTPUT = "seed_output"
PARENT_INSTRUCTION = "parent_instruction"
ROUND = "round"
METHOD = "method"
EVOL_STATUS = "evol_status"
EVOLVER = "evolver"
TRY = "try"
REJECTED = "rejected"
HISTORY = "history"
TRAJECTORY = "trajectory"
TRAJECTORY_KEYWORDS = "trajectory_keywords"
TRAJECTORY_STATUS = "trajectory_status"

INSTRUCTION_STATUS = "instruction_status"
GENERATOR = "generator"
INPUT_GENERATOR = "input_generator"
IS_CLASSIFICATION = "is_classification"
ROUGE_L = "rouge_l"
NEAREST_SEED = "nearest_seed"
SHOWN = "shown"

CONSTRAINTS = "constraints"
AUGMENT_STATUS = "augment_status"
COMPLETIONS = "completions"
VERIFY_STATUS = "verify_status"
FUNCTIONS = "functions"
CASES = "cases"
ACCURACIES = "accuracies"
N_FUNCTIONS = "n_functions"
N_CASES = "n_cases"
LOSSES = "losses"
CONSTRAINT_STATUS = "constraint_status"
PASS_RATE = "pass_rate"
CHECK_STATUS = "check_status"
CHECKS = "checks"
BACK_TRANSLATE_STATUS = "back_translate_status"

ELIMINATION = "elimination"

MESSAGES = "messages"

RESPONDER = "responder"
RESPONSE_STATUS = "response_status"

IC_IFD = "ic_ifd"
IFD = "ifd"
LOSS_Q = "loss_q"
LOSS_A = "loss_a"
LOSS_A_GIVEN_Q = "loss_a_given_q"
N_TOKENS_Q = "n_tokens_q"
N_TOKENS_A = "n_tokens_a"
IC_IFD_STATUS = "ic_ifd_status"
IC_IFD_CONVENTION = "ic_ifd_convention"
IC_IFD_TURNS = "ic_ifd_turns"

DIFFICULTY_LEVEL = "difficulty_level"
DIFFICULTY_SCORE = "difficulty_score"
DIFFICULTY_STATUS = "difficulty_status"

REWARD = "reward"
REWARD_STATUS = "reward_status"

BASE_LOSS = "base_loss"
CAR = "car"
COMPATIBILITY_STATUS = "compatibility_status"

OUTPUT_A = "output_a"
OUTPUT_B = "output_b"
VERDICT = "verdict"
VERDICT_ORDERS = "verdict_orders"
JUDGE_STATUS = "judge_status"

TOP1_PROBS = "top1_probs"
TOP1_MEAN = "top1_mean"
SHARE_OVER_90 = "share_over_90"
CONFIDENCE_STATUS = "confidence_status"

EMBEDDING = "embedding"
EMBEDDING_STATUS = "embedding_status"
MND = "mnd"

OK = "ok"  # the value of a status column where nothing went wrong
PASSING_FAILURES = ("engine_error", "out_of_memory")  # begin the statuses of rows that another try may mend
KEPT = "kept"  # the value of the elimination column where no rule applied


def reason(status: str) -> str:
    """The countable part of a status: ``"engine_error: timed out"`` gives ``"engine_error"``."""
    return status.split(":", 1)[0]


def lost(statuses: Iterable[str]) -> Counter[str]:
    """How many rows are not ok, by reason."""
    return Counter(reason(status) for status in statuses if status != OK)


def failed(statuses: Iterable[str | None]) -> Counter[str]:
    """How many rows' requests failed, by what was said of them."""
    return Counter(status for status in statuses if status and status.startswith(PASSING_FAILURES))


def counted(reasons: Mapping[str, int]) -> str:
    """Such as ``leak 3, empty 1``, the most frequent first."""
    return ", ".join(f"{why} {count}" for why, count in Counter(reasons).most_common())


def are_answers(statuses: Sequence[str]) -> bool:
    """Whether most requests have been answered, so that the statuses say something of the model."""
    return 2 * sum(reason(status) in PASSING_FAILURES for status in statuses) < len(statuses)
