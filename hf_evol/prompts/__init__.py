"""The words sent to models, one file per scenario, worked examples, and a safe template for them."""
