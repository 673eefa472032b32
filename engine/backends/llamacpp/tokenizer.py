"""llama.cpp's own tokenizer, over the vocabulary of a loaded file."""

from ctypes import c_int32

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
        ids = (c_int32 * (len(data) + 1))()  # a token has at least one byte; SentencePiece prepends a space
        n: int = self._lib.llama_tokenize(self._vocab, data, len(data), ids, len(ids), False, False)
        return ids[:n]

    def close(self) -> None:
        """Forget the vocabulary, whose memory is about to be freed."""
        self._vocab = None
