"""Everything that makes text: engines behind one protocol, and keyed sampling."""
