"""Read a model file without its weights: header, vocabulary and chat template."""

from functools import partial
from pathlib import Path

from engine import backends, gguf
from engine.chat_template import ChatTemplate, sources
from engine.gguf import GGUFError, Header, kinds
from engine.tokenizer import Vocabulary


def read(path: Path, libllama: Path | None = None, chat_template: str = "") -> tuple[Header, Vocabulary, ChatTemplate]:
    """Read a file without its weights; `chat_template` (see `Options`) replaces its own.

    Raises GGUFError, TemplateError, ModelError, OSError.
    """
    header = gguf.read(path)
    kinds.check(path, header)
    try:
        vocabulary = Vocabulary(header, partial(backends.native_tokenizer, path, libllama))
    except GGUFError as error:
        raise GGUFError(f"{path} cannot be used: {error}") from error
    source = sources.source(chat_template) if chat_template else header.text("tokenizer.chat_template")
    return header, vocabulary, ChatTemplate(source, vocabulary)


def trained_context(header: Header) -> int:
    """Return the context length of the training, in tokens; 0 if the file does not state it."""
    return header.integer(f"{header.architecture}.context_length", 0) or 0
