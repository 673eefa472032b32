"""Text to tokens and back, by the model file's own vocabulary. Imports `gguf`."""
