"""Constraints on a response that code can check: what is counted, what a response meets, and which of it is worth asking."""
