"""The backend over llama.cpp's C API. Imports `platform`, `wording` and the root."""
