"""The backend over ctransformers, and its file converter.

Imports `gguf`, `platform`, `tokenizer`, `wording` and the root.
"""
