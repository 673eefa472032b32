"""Pure planning of steps: slots, prefix cache, step budget and drafts. Imports the engine's root only."""
