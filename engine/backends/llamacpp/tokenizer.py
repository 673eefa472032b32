"""llama.cpp's own tokenizer, over the vocabulary of a loaded file."""

from ctypes import Array, c_int32

from engine.backends.llamacpp.library import Library
from engine.model import ModelError


class NativeTokenizer:
    """Turns plain text into ids. Any thread may call it; meanwhile the others run."""

    def __init__(self, library: Library, model: int) -> None:
        """`model` is the address of a loaded model, which must live until `close`."""
        self._lib = library
        self._vocab: int | None = library.llama_model_get_vocab(model)
        self.size: int = library.llama_vocab_n_tokens(self._vocab)
        """Number of tokens."""

    def __call__(self, text: str) -> list[int]:
        """Return the ids of plain text. Names of control tokens in it are ordinary text."""
        if self._vocab is None:
            raise ModelError("the model is closed")
        data = text.encode()
        # Most tokens have at least one byte; SentencePiece prepends a space.
        ids, n = self._tokenize(data, len(data) + 1)
        if n < 0:  # they do not fit, and -n are needed
            ids, n = self._tokenize(data, -n)
        return ids[:n]

    def _tokenize(self, data: bytes, size: int) -> tuple[Array[c_int32], int]:
        """Return room for `size` ids, and the library's result: the number of ids in it."""
        ids = (c_int32 * size)()
        return ids, self._lib.llama_tokenize(self._vocab, data, len(data), ids, size, False, False)

    def close(self) -> None:
        """Forget the vocabulary, whose memory is about to be freed."""
        self._vocab = None
