"""The words sent to models: a safe template and one file per scenario."""
