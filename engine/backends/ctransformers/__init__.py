"""The backend over ctransformers, and its file converter. Imports `gguf`, `tokenizer` and the root."""
