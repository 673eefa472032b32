"""Responses and conversations in SQLite. Imports no other folder."""
