"""Grammars at run time: the compiler, and which grammar applies when. Imports `grammar`, `notations` and below."""
