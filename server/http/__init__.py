"""Bytes to HTTP exchanges and back, over h11 and trio. Imports `protocol`."""
