"""The ``hf-evol`` command: one file per subcommand, heavy imports inside each."""
