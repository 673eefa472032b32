"""Explanations for shared libraries that the dynamic linker cannot load."""

import re

PACKAGES = {
    "libgomp.so.1": "libgomp1",
    "libstdc++.so.6": "libstdc++6",
    "libgcc_s.so.1": "libgcc-s1",
    "libopenblas.so.0": "libopenblas0",
    "libvulkan.so.1": "libvulkan1",
}
"""Library -> the Debian package that contains it."""
MISSING_LIBRARY = re.compile(r"^(?P<name>[^/\s]+\.so[.\d]*): cannot open shared object file")
MISSING_SYMBOL = re.compile(r"version `(?P<symbol>(?:GLIBC|GLIBCXX)_[\d.]+)' not found")
WRONG_ARCHITECTURE = re.compile(r"wrong ELF class|invalid ELF header|cannot open shared object file: Exec format")


def explain_load_error(error: Exception) -> str:
    """Return the linker's reason, with a remedy if one is known."""
    reason = str(error)
    if missing := MISSING_LIBRARY.search(reason):
        name = missing["name"]
        remedy = f"`apt install {PACKAGES[name]}`" if name in PACKAGES else "install the package that contains it"
        return f"it needs {name}, which is not installed: {remedy}"
    if symbol := MISSING_SYMBOL.search(reason):
        return f"it needs {symbol['symbol']}, and this system is older: upgrade it, or compile llama.cpp here"
    if WRONG_ARCHITECTURE.search(reason):
        return f"it is not for this machine ({reason})"
    return reason
