"""Settings: flags, variables and the configuration file. Imports `engine.job` only."""
