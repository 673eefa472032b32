"""Run GGUF models: tokens in, tokens out. The engine imports nothing from the server."""
