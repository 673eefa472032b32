"""The commands. Imports `config`, `store` and the engine."""
