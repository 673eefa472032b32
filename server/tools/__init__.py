"""The tools of a request, pure. Imports `protocol` and `stream`."""
