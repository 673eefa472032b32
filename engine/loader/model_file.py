"""Read a model file without its weights: header, vocabulary and chat template."""

from functools import partial
from pathlib import Path

from engine import backends, gguf
from engine.chat_template import ChatTemplate, sources
from engine.gguf import GGUFError, Header, kinds
from engine.tokenizer import Vocabulary


def read(path: Path, libllama: Path | None = None, chat_template: str = "") -> tuple[Header, Vocabulary, ChatTemplate]:
    """Read a file without its weights; `chat_template` (see `Options`) replaces its own.

    Raises GGUFError, TemplateError, TemplateFileError, ModelError, OSError.
    """
    header = read_header(path)
    return header, *read_texts(path, header, libllama, chat_template)


def read_header(path: Path) -> Header:
    """Read and check a file's header. Raises GGUFError, OSError."""
    header = gguf.read(path)
    kinds.check(path, header)
    return header


def read_texts(
    path: Path, header: Header, libllama: Path | None = None, chat_template: str = ""
) -> tuple[Vocabulary, ChatTemplate]:
    """Return the vocabulary and the chat template of a header. Raises GGUFError, TemplateError, ModelError."""
    try:
        vocabulary = Vocabulary(header, partial(backends.native_tokenizer, path, libllama))
    except GGUFError as error:
        raise GGUFError(f"{path} cannot be used: {error}") from error
    source = sources.source(chat_template) if chat_template else header.text("tokenizer.chat_template")
    return vocabulary, ChatTemplate(source, vocabulary)


def trained_context(header: Header) -> int:
    """Return the context length of the training, in tokens; 0 if the file does not state it."""
    return header.integer(f"{header.architecture}.context_length", 0) or 0
