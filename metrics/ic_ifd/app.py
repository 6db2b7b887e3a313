"""The metric's page as a Space: type a pair, read its score."""

import pathlib

import evaluate
import gradio

SCORER = "HuggingFaceTB/SmolLM2-135M"
metric = evaluate.load(str(pathlib.Path(__file__).with_name("ic_ifd.py")), model=SCORER)
SHOWN = ("ic_ifd", "ifd", "loss_q", "loss_a", "loss_a_given_q", "n_tokens_q", "n_tokens_a", "status")


def score(instruction, response, convention):
    result = metric.compute(predictions=[response], references=[instruction], convention=convention)
    return {name: result[name][0] for name in SHOWN}


page = gradio.Interface(
    score,
    [
        gradio.Textbox(label="Instruction", lines=3, value="Name the capital of Portugal and one of its rivers."),
        gradio.Textbox(label="Response", lines=5, value="Lisbon, on the Tagus."),
        gradio.Radio(["paper", "superfiltering", "exact"], value="paper", label="Convention"),
    ],
    gradio.JSON(label=f"Scores under {SCORER}"),
    title="IC-IFD",
    description=metric.description,
    article=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8").split("---", 2)[2],
    flagging_mode="never",
)

if __name__ == "__main__":
    page.launch()
