"""The child process that tries a model file; `engine.loader.probe` starts it.

It imports no more of the engine than a look at the file needs, and ends with its parent.
"""

import _thread
import os
import resource
import sys
from pathlib import Path

import numpy as np

from engine import backends
from engine.chat_template import ChatTemplate, Message, TemplateEndless, TemplateError
from engine.gguf import GGUFError
from engine.loader import model_file
from engine.model import BatchEntry, Model, ModelError

TEMPLATE_BYTES = 512 << 20
"""Address space a template may ask for beyond what the child has; real ones need less than a megabyte."""

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


def main() -> int:
    """In the child: the last line of stdout names the stage, and behind a colon what was wrong."""
    _end_with_parent()
    path, weights, engine, chat_template, *named = sys.argv[1:]
    stage = "template"
    try:
        print(stage, flush=True)
        library = Path(named[0]) if named else None
        _try_template(model_file.read(Path(path), library, chat_template)[2])
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
    """End this process when its standard input closes, which the parent's end does, whatever ends it."""

    def wait() -> None:
        os.read(0, 1)
        os._exit(1)

    _thread.start_new_thread(wait, ())  # ends inside native code too, unlike a signal handler


def _try_template(template: ChatTemplate) -> None:
    """The simplest conversation must work. Others may be refused (no system message, say), but must end."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    room = _address_space() + TEMPLATE_BYTES
    least = min([room, *(limit for limit in before if limit != resource.RLIM_INFINITY)])
    resource.setrlimit(resource.RLIMIT_AS, (least, before[1]))
    first, *others = SAMPLE_CHATS
    template.prompt(first)
    for talk in others:
        try:
            template.prompt(talk)
        except TemplateEndless:
            raise
        except TemplateError:
            continue
    resource.setrlimit(resource.RLIMIT_AS, before)


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _try_weights(model: Model) -> None:
    model.decode([BatchEntry(slot=0, position=0, tokens=[0], logits=True)])
    if not np.isfinite(model.logits(0)).all():
        raise ModelError("the model's weights are damaged: it computes what is no number. Download the file again")
