"""The backend over ctransformers, and the rewriting of files for it. Imports `gguf`, `tokenizer` and the root."""
