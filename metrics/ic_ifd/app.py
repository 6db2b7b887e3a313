"""The metric's page as a Space: type a pair, read its score."""

import evaluate
from evaluate.utils import launch_gradio_widget

launch_gradio_widget(evaluate.load("ic_ifd.py"))
