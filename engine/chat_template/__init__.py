"""Prompts from messages, by the model's own chat template. Imports `dialects`, `notations` and `tokenizer`."""

from engine.chat_template.compiled_template import TOO_MUCH, TemplateEndless, TemplateError
from engine.chat_template.message import Call, Message, Tool
from engine.chat_template.sources import BUILT_IN, TemplateFileError
from engine.chat_template.template import NO_VARIABLES, RESERVED, ChatTemplate

__all__ = [
    "BUILT_IN",
    "NO_VARIABLES",
    "RESERVED",
    "TOO_MUCH",
    "Call",
    "ChatTemplate",
    "Message",
    "TemplateEndless",
    "TemplateError",
    "TemplateFileError",
    "Tool",
]
