"""Built-in chat templates, and templates from files."""

import os
from pathlib import Path

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
PLAIN = "{% for message in messages %}{{ '' if loop.first else '\\n\\n' }}{{ message.content }}{% endfor %}"
"""Texts with a blank line between them and no role marks: a base model continues them."""

MAX_CHARACTERS = 1 << 20
"""Maximum characters to read from a file. `ChatTemplate` rejects long templates with its own limit."""

BUILT_IN = {"chatml": CHATML, "plain": PLAIN}
"""Name for `--chat-template` -> template."""


class TemplateFileError(Exception):
    """The file of `--chat-template` cannot be used. The message is one sentence with a remedy."""


def located(name: str) -> str:
    """Return the name of a built-in template, or a file's absolute path: child processes run in another folder."""
    return name if name in BUILT_IN else os.path.abspath(name)


def source(name: str) -> str:
    """Return the template in a file, or the built-in template of that name. Raises TemplateFileError."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    known = ", ".join(sorted(BUILT_IN))
    try:
        with Path(name).open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS)
    except OSError as error:
        raise TemplateFileError(
            f"--chat-template {name} cannot be read ({error.strerror}): name a file, or one of {known}"
        ) from error
    except UnicodeDecodeError as error:
        raise TemplateFileError(f"--chat-template {name} is not UTF-8 text: convert the file to UTF-8") from error
    if not text.strip():
        raise TemplateFileError(f"--chat-template {name} is empty: name a file with a template, or one of {known}")
    return text
