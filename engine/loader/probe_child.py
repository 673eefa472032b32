"""The child process that probes a model file; `engine.loader.probe` starts it.

It imports only the parts of the engine that the probe needs, and ends with its parent.
"""

import _thread
import contextlib
import math
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from engine import backends
from engine.chat_template import TOO_MUCH, ChatTemplate, Message, TemplateEndless, TemplateError
from engine.gguf import GGUFError
from engine.loader import model_file
from engine.model import BatchEntry, Model, ModelError

TEMPLATE_BYTES = 128 << 20
"""Address space that a template may use beyond the child's own; real templates need less than a megabyte."""
TEMPLATE_SECONDS = 3
"""CPU seconds that a template may use; fuel ends most templates after 20 ms, but charges nothing for long lists."""
TEMPLATE_CHARACTERS = 1 << 20
"""Maximum characters of a sample chat's prompt; real templates render less than 10,000."""

SAMPLE_CHATS = (
    (Message("user", "Hello."),),
    (Message("system", "Be brief."), Message("user", "Hello.")),
    (Message("user", "Hello."), Message("assistant", "Hi."), Message("user", "And now?")),
    (
        Message("system", "Be brief."),
        *(Message("user", "Hello."), Message("assistant", "Hi.")) * 8,
        Message("user", "?"),
    ),
)
"""Conversations that the template must render in bounded time and memory."""


def main() -> int:
    """Run the probe. The last line of stdout is the stage, followed by a colon and the error if there is one."""
    _end_with_parent()
    path, weights, engine, chat_template, *named = sys.argv[1:]
    stage = "file"
    try:
        print(stage, flush=True)
        library = Path(named[0]) if named else None
        template = model_file.read(Path(path), library, chat_template)[2]
        stage = "template"
        print(stage, flush=True)
        _try_template(template)
        stage = "weights"
        print(stage, flush=True)
        name = Path(path).name
        _try_weights(
            backends.open_model(engine, Path(weights), name=name, n_ctx=64, n_slots=1, threads=1, library=library)
        )
    except (GGUFError, ModelError, TemplateError) as error:
        print(f"{stage}: {error}")
        return 2
    return 0


def _end_with_parent() -> None:
    """End this process when its standard input closes, as it does whenever the parent ends."""

    def wait() -> None:
        os.read(0, 1)
        os._exit(1)

    _thread.start_new_thread(wait, ())  # unlike a signal handler, a thread also ends native code


def _try_template(template: ChatTemplate) -> None:
    """Render the sample chats. The simplest must work; the template may reject others (no system message, say), but
    must end.

    Nothing is encoded: to build the tokenizer of a large vocabulary takes more than the template may use.
    """
    max_seconds = math.ceil(time.process_time()) + TEMPLATE_SECONDS
    with (
        _limited(resource.RLIMIT_AS, _address_space() + TEMPLATE_BYTES),
        _limited(resource.RLIMIT_CPU, max_seconds),  # by SIGXCPU, which ends the process
        _limited(resource.RLIMIT_CORE, 0),  # that signal would write a core file
    ):
        first, *others = SAMPLE_CHATS
        _try_chat(template, first)
        for chat in others:
            try:
                _try_chat(template, chat)
            except TemplateEndless:
                raise
            except TemplateError:
                continue


def _try_chat(template: ChatTemplate, chat: Sequence[Message]) -> None:
    if len(template.render(chat)) > TEMPLATE_CHARACTERS:
        raise TemplateEndless(f"the model's chat template {TOO_MUCH}")


@contextlib.contextmanager
def _limited(kind: int, most: int) -> Iterator[None]:
    """Limit a resource of this process, unless it has a lower limit already."""
    before = resource.getrlimit(kind)
    soft_limit = min([most, *(limit for limit in before if limit != resource.RLIM_INFINITY)])
    resource.setrlimit(kind, (soft_limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def _address_space() -> int:
    """Return this process's address space, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _try_weights(model: Model) -> None:
    """Evaluate one token."""
    model.decode([BatchEntry(slot=0, position=0, tokens=[0], logits=True)])
    if not np.isfinite(model.logits(0)).all():
        raise ModelError("the model's weights are damaged: its logits are not finite numbers; download the file again")
