"""Rows in and out: seed sets read, formats converted, rows selected, files written."""

FILE_FORMATS = {"parquet": "parquet", "json": "jsonl", "arrow": "arrow"}  # name: extension
