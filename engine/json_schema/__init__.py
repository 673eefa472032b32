"""JSON schemas: which can be enforced, and their rewriting for the grammar compiler. Imports the engine's root only."""
