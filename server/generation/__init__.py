"""One response being made, and all of them. Imports `protocol`, `store` and `stream`."""
