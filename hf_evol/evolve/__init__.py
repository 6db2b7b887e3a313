"""From seeds to evolved, answered rows: evolve, eliminate, respond."""
