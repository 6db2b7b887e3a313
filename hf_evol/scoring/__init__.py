"""Scores of instruction rows under a language model."""
