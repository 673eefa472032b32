"""Read the vocabulary and the chat template of a model that another process runs: no weights are needed."""

from functools import partial
from pathlib import Path

from engine import backends, gguf
from engine.chat_template import ChatTemplate, sources
from engine.gguf import GGUFError
from engine.tokenizer import Vocabulary, read_tokenizer_json

GGUF_MAGIC = b"GGUF"


def read(path: Path, chat_template: str = "") -> tuple[Vocabulary, ChatTemplate]:
    """Read a GGUF file or a `tokenizer.json`. `chat_template` (see `Options`) replaces the model's own.

    Raises GGUFError, TemplateError, ModelError, OSError.
    """
    with path.open("rb") as file:
        is_gguf = file.read(len(GGUF_MAGIC)) == GGUF_MAGIC
    vocabulary, template = _from_gguf(path) if is_gguf else read_tokenizer_json(path)
    return vocabulary, ChatTemplate(sources.source(chat_template) if chat_template else template, vocabulary)


def _from_gguf(path: Path) -> tuple[Vocabulary, str | None]:
    header = gguf.read(path)
    try:
        vocabulary = Vocabulary(header, partial(backends.native_tokenizer, path, None))
        vocabulary.settle()
    except GGUFError as error:
        raise GGUFError(f"{path} cannot be used: {error}") from error
    return vocabulary, header.text("tokenizer.chat_template")
