"""The backend over llama.cpp's C API. Imports the engine's root only."""
