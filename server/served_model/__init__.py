"""The loaded model and the constraints of its output. Imports `http`, `prompt`, `protocol` and `tools`."""
