"""Everything that makes text: engines behind one protocol, keyed sampling, and the journal."""
