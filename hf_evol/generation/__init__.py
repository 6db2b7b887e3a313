"""Everything that makes text: engines behind one protocol, keyed sampling,."""
