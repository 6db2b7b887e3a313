"""The words sent to models, one file per scenario, a safe template for them, and how to read the replies."""
