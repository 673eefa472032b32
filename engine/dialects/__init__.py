"""Model families: which notation, markers and reasoning tags each uses. Imports `grammar` and `notations`."""
