"""Words of messages for people. Imports nothing."""

from engine.wording.plurals import counted

__all__ = ["counted"]
