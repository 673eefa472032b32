"""Input items to messages to tokens, pure. Imports `protocol` and `tools`."""
