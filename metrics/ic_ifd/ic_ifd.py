"""IC-IFD as a module of the evaluate library; the work is done by hf_evol."""

import datasets
import evaluate

import hf_evol
import hf_evol.errors
import hf_evol.scoring.pairs
import hf_evol.scoring.summary

_CITATION = """\
@article{hui2024smaller,
  title   = {Smaller Language Models Are Better Instruction Evolvers},
  author  = {Hui, T. and Zhao, L. and Dong, G. and Zhang, Y. and Zhou, H. and Su, S.},
  journal = {arXiv preprint arXiv:2412.11231},
  year    = {2024}
}
"""

_DESCRIPTION = """\
Instruction-complex instruction-following difficulty. For an instruction Q and a response A,
IC-IFD = L(A | Q) / (L(Q) * L(A)), where L is the mean cross-entropy per token (nats) under a causal language model.
Higher means that the pair teaches more.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: list of str, the responses.
    references: list of str, the instructions.
    inputs: list of str, the instructions' inputs, or None for no inputs.
    model: str, the scoring model's name on the Hub, its folder or GGUF file; or a loaded (model, tokenizer) pair. It may be
        given to evaluate.load("ic_ifd", model=...) instead.
    convention: str, which tokens count: "paper", "superfiltering", "exact" or "exact_chat" (see hf_evol.IcIfd).
    max_length: int, the most tokens of one sequence; by default, and at most, the model's context.
    truncate: bool, whether to score longer pairs by the part of the response that fits.
    batch_tokens: int, tokens in each forward pass; 4096 by default on a GPU, 1024 on a CPU.
Returns:
    mean_ic_ifd, median_ic_ifd: float or None, over the pairs that have a score.
    quartiles_ic_ifd: [float, float] or None, the first and the third.
    ci95_ic_ifd: [float, float] or None, a 95 % bootstrap interval of the mean.
    mean_ifd, median_ifd, quartiles_ifd, ci95_ifd: likewise for IFD.
    n_scored, n_unscored: int, pairs with and without a score.
    convention: str.
    ic_ifd, ifd, loss_q, loss_a, loss_a_given_q, n_tokens_q, n_tokens_a: lists, one entry a pair; None without a score.
    status: list of str, "ok", "truncated", or why a pair has no score.
Example:
    >>> ic_ifd = evaluate.load("ic_ifd")
    >>> pairs = {"predictions": ["4, since two and two make four."], "references": ["What is 2 + 2?"]}
    >>> ic_ifd.compute(**pairs, model="HuggingFaceTB/SmolLM2-135M")["n_scored"]
    1
"""


class IcIfd(evaluate.Metric):
    """IC-IFD of responses (predictions) to instructions (references)."""

    def __init__(self, model=None, **options):
        super().__init__(**options)
        self.model = model

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
            reference_urls=["https://arxiv.org/abs/2412.11231"],
        )

    def _compute(
        self,
        predictions,
        references,
        inputs=None,
        model=None,
        convention="paper",
        max_length=None,
        truncate=False,
        batch_tokens=None,
    ):
        model = model or self.model
        if model is None:
            raise hf_evol.errors.ConfigError(
                "Name the scoring model: compute(..., model=...), or model=... when the module is loaded."
            )
        if inputs is not None and len(inputs) != len(predictions):
            raise hf_evol.errors.ConfigError(f"There are {len(inputs)} inputs for {len(predictions)} predictions.")
        scorer = hf_evol.scoring.pairs.PairScorer(convention, max_length, truncate, batch_tokens)
        rows = zip(references, predictions, inputs or [""] * len(predictions), strict=True)
        pairs = [hf_evol.scoring.pairs.make_pair(*row) for row in rows]
        records = scorer.score(*self._loaded(model, convention), pairs)
        columns = {name: [record[name] for record in records] for name in hf_evol.scoring.pairs.SCORES}
        columns["status"] = columns.pop("ic_ifd_status")
        results = {}
        for name in ("ic_ifd", "ifd"):
            summary = hf_evol.scoring.summary.summarize(name, columns[name])
            results |= {f"{part}_{name}": summary[part] for part in ("mean", "median", "ci95")}
            results[f"quartiles_{name}"] = [summary["q1"], summary["q3"]] if summary["n"] else None
        counts = {"n_scored": summary["n"], "n_unscored": summary["nulls"], "convention": convention}
        return results | counts | columns

    def _loaded(self, model, convention):
        if isinstance(model, (tuple, list)):
            return model
        return hf_evol.IcIfd(model, convention=convention).load()
