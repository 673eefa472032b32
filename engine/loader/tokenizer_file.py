"""Read the vocabulary and the chat template of a model that another process runs: no weights are needed."""

from pathlib import Path

from engine import gguf
from engine.chat_template import ChatTemplate, sources
from engine.gguf import GGUFError
from engine.loader.model_file import read_texts
from engine.tokenizer import Vocabulary, read_tokenizer_json

GGUF_MAGIC = b"GGUF"


def read(path: Path, chat_template: str = "") -> tuple[Vocabulary, ChatTemplate]:
    """Read a GGUF file or a `tokenizer.json`. `chat_template` (see `Options`) replaces the model's own.

    Raises GGUFError, TemplateError, TemplateFileError, ModelError, OSError.
    """
    with path.open("rb") as file:
        is_gguf = file.read(len(GGUF_MAGIC)) == GGUF_MAGIC
    if is_gguf:
        return _read_gguf(path, chat_template)
    vocabulary, template = read_tokenizer_json(path)
    return vocabulary, ChatTemplate(sources.source(chat_template) if chat_template else template, vocabulary)


def _read_gguf(path: Path, chat_template: str) -> tuple[Vocabulary, ChatTemplate]:
    vocabulary, template = read_texts(path, gguf.read(path), chat_template=chat_template)
    try:
        vocabulary.choose_encoder()
    except GGUFError as error:
        raise GGUFError(f"{path} cannot be used: {error}") from error
    return vocabulary, template
