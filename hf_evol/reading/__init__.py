"""How the replies of models are read: evolved texts and what is wrong with them, new instructions, levels, scores and verdicts."""
