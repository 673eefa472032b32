"""Memory bandwidth, and the tokens per second that it allows: a token needs every weight once.

`memchr` of the C library reads memory with the CPU's widest loads and does nothing else; ctypes lets the other threads
run meanwhile. The buffers together exceed the CPU's caches many times over.
"""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from engine.gguf import Header

MEGABYTES = 512
"""Megabytes that all threads together read in a round."""
ABSENT = 0xFF
"""Byte that the buffers lack, so that all of them is read."""


def read_rates(threads: int, rounds: int, megabytes: int = MEGABYTES) -> list[float]:
    """Return the bytes per second of each round, read by that many threads."""
    libc = ctypes.CDLL(None)
    libc.memchr.restype = ctypes.c_void_p
    libc.memchr.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    size = megabytes * 1_000_000 // threads
    buffers = [bytearray(b"\x01") * size for _ in range(threads)]
    addresses = [ctypes.addressof(ctypes.c_char.from_buffer(buffer)) for buffer in buffers]
    rates = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            begin = perf_counter()
            assert not any(pool.map(lambda address: libc.memchr(address, ABSENT, size), addresses))
            rates.append(threads * size / (perf_counter() - begin))
    return rates


def bytes_per_token(header: Header) -> int:
    """Return the bytes of the weights that a token needs: all but the rows of other tokens in the embedding, unless
    the output layer is the same tensor. The KV cache, which grows with the context, is left out."""
    has_output = any(tensor.name == "output.weight" for tensor in header.tensors)
    return sum(each.n_bytes for each in header.tensors if not (has_output and each.name == "token_embd.weight"))
