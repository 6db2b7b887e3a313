"""Fine-tuning on evolved sets, and evaluating the result, with other tools: their data and configurations."""
