"""IC-IFD as a module of the evaluate library; the work is done by hf_evol."""

import datasets
import evaluate

import hf_evol
import hf_evol.errors
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
    model: str, the scoring model's name on the Hub or its folder; "embedded" is the small model that hf_evol bundles.
    batch_tokens: int, tokens in one forward pass.
Returns:
    mean_ic_ifd: float or None, the mean over the pairs that have a score.
    median_ic_ifd: float or None, likewise.
    mean_ifd: float or None, likewise.
    n_scored: int, pairs with a score.
    n_unscored: int, pairs without one.
    ic_ifd: list of float or None, one a pair.
    ifd: list of float or None, one a pair.
    status: list of str, "ok" or why a pair has no score.
Example:
    >>> ic_ifd = evaluate.load("ic_ifd")
    >>> ic_ifd.compute(predictions=["4, since two and two make four."], references=["What is 2 + 2?"], model="embedded")["n_scored"]
    1
"""


class IcIfd(evaluate.Metric):
    """IC-IFD of responses (predictions) to instructions (references)."""

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

    def _compute(self, predictions, references, inputs=None, model="embedded", batch_tokens=8192):
        if inputs is not None and len(inputs) != len(predictions):
            raise hf_evol.errors.ConfigError(f"There are {len(inputs)} inputs for {len(predictions)} predictions.")
        scorer = hf_evol.IcIfd(model, batch_tokens=batch_tokens)
        scorer.check()
        batch = {"instruction": references, "output": predictions, "input": inputs or [""] * len(predictions)}
        scores = scorer(batch)
        summaries = {name: hf_evol.scoring.summary.summarize(name, scores[name]) for name in ("ic_ifd", "ifd")}
        return {
            "mean_ic_ifd": summaries["ic_ifd"]["mean"],
            "median_ic_ifd": summaries["ic_ifd"]["median"],
            "mean_ifd": summaries["ifd"]["mean"],
            "n_scored": summaries["ic_ifd"]["n"],
            "n_unscored": summaries["ic_ifd"]["nulls"],
            "ic_ifd": scores["ic_ifd"],
            "ifd": scores["ifd"],
            "status": scores["ic_ifd_status"],
        }
