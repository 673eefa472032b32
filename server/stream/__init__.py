"""Engine output to events, pure. Imports `protocol` and, of the engine, `dialects`, `job`, `notations`."""
