"""Studies that compare evolvers on the same seeds."""
