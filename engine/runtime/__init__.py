"""The inference thread and its trio side. Imports `sampling`, `scheduler` and the root."""
