"""Rows in and out: seed sets read, formats converted, rows selected, files written."""
