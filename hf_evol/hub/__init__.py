"""Publishing: where models and rows come from, the dataset card, and the push to the Hub."""
