"""Words of messages for people. Imports nothing of ours."""

from engine.wording.plurals import counted

__all__ = ["counted"]
