"""The model that answers, as the rest of the server sees it: embedded, or behind an upstream server.

A prompt is what a model makes of a conversation: tokens here, messages for an upstream. It knows its length, and makes
the job that continues it and the processor of that job's output.
"""

from collections.abc import Collection, Sequence
from typing import Protocol

from msgspec import Struct

from engine.chat_template import Message
from engine.gguf import FileFacts
from engine.job import Lane, SamplingParams
from server.config import LiveConfig
from server.generation import GeneratorJob
from server.postprocessing import Processor
from server.prompt import ItemText, PreparedRequest
from server.prompt_comparison import Compared
from server.protocol.errors import NotFound
from server.protocol.request import Request
from server.served_model.output_constraints import UNCONSTRAINED, OutputConstraints
from server.store import AsyncStore
from server.tools import NO_TOOLS, Toolbox
from server.work_thread import WorkThread


class ModelCard(Struct, frozen=True, kw_only=True):
    """Facts about the model."""

    name: str
    created: int
    """When the file was made, in seconds."""
    engine: str
    n_ctx: int
    """Tokens of context of one response."""
    n_slots: int
    """Responses at the same time."""
    n_vocab: int
    """Number of tokens in the vocabulary; 0 if it is unknown."""
    sampling: SamplingParams
    """Settings of a request that has none."""
    lacking: tuple[str, ...] = ()
    """Fields of chat completions that the server behind the model lacks."""
    reasons: bool = False
    """True if the model has tags for reasoning."""
    file: FileFacts = FileFacts()
    fallback: str = ""
    """Reason why llama.cpp does not run the model; empty if it does, or if another engine was requested."""


class JobParams(Struct, frozen=True, kw_only=True):
    """Parameters of a job, besides its prompt."""

    request: Request
    """Request whose limits and logprobs the job has."""
    field: str
    """Field of the request that the prompt comes from, for errors."""
    sampling: SamplingParams
    constraints: OutputConstraints = UNCONSTRAINED
    effort: str | None = None
    """Reasoning effort."""
    limit: int = 0
    """The server's limit of tokens; 0 without one."""
    toolbox: Toolbox = NO_TOOLS
    client: str = ""
    affinity: str = ""
    savable: bool = False
    cache_seconds: float = 0.0
    lane: Lane = Lane.INTERACTIVE
    texts: Sequence[ItemText] | None = None
    """Texts of the prompt at which another prompt may part from it; None if nothing of this prompt is saved there."""
    timed: bool = False
    """True if the request asks for the times of its tokens."""
    fronts: tuple[str, ...] = ()
    """Names of the fronts that the request has passed."""


class Prompt(Protocol):
    def __len__(self) -> int:
        """Return the number of tokens, which is an estimate if the model is not here."""
        ...

    async def job(self, params: JobParams) -> GeneratorJob:
        """Return the job that continues the prompt. Raises InvalidRequest if it leaves no space for an answer."""
        ...

    def lacking(self, params: JobParams) -> tuple[str, ...]:
        """Return the fields of the job that have no effect, since the server behind the model lacks them."""
        ...

    def processor(self, prepared: PreparedRequest, stops: Sequence[str]) -> Processor:
        """Return the processor of the output of one job. `stops`: strings that end the output."""
        ...

    async def compare(self, prepared: PreparedRequest, response_id: str, client: str, group: str) -> Compared:
        """Return the comparison with an earlier prompt, and remember this one."""
        ...


class ModelSource(Protocol):
    def open(self, config: LiveConfig, store: AsyncStore | None, work: WorkThread) -> "AnsweringModel":
        """Return the model for a server with these settings."""
        ...


class AnsweringModel(Protocol):
    aliases: Collection[str]

    @property
    def card(self) -> ModelCard: ...

    def check_name(self, name: str | None) -> None:
        """Raise NotFound if this model does not have that name. None: the request names no model."""

    def effort(self, effort: str | None) -> str | None:
        """Return the reasoning effort in effect; None if it changes nothing with this model."""
        ...

    async def constraints(self, prepared: PreparedRequest) -> OutputConstraints:
        """Return the constraints of the answer to a request. Raises InvalidRequest."""
        ...

    async def prompt(self, prepared: PreparedRequest, counts_only: bool = False) -> Prompt:
        """Return the prompt of a request. With `counts_only`, it may be longer than the context.

        Raises InvalidRequest.
        """
        ...

    async def text_prompt(self, text: str | Sequence[int]) -> Prompt:
        """Return a text or tokens as the prompt, without a chat template. Raises InvalidRequest."""
        ...

    async def summary_prompt(
        self, messages: Sequence[Message], prepared: PreparedRequest | None = None
    ) -> tuple[int, Prompt]:
        """Return the number of messages to summarize next, and the prompt that asks for it. Raises InvalidRequest.

        With `prepared`, the prompt has the tools of the request and its volatile lines in their place, so that the KV
        cache has most of it.
        """
        ...

    def forget(self, deleted_id: str, affinity: str | None) -> None:
        """Forget the prompts of the affinity group of a deleted response or conversation, which may contain it.

        `affinity`: None if it is unknown.
        """


def check_name(name: str | None, own: str, aliases: Collection[str]) -> None:
    """Raise NotFound for a name that is neither the model's own nor an alias."""
    if name is not None and name != own and name not in aliases and "*" not in aliases:
        raise NotFound(
            f"There is no model {name!r}; this server has {own!r} (--alias gives it more names).",
            param="model",
            code="model_not_found",
        )
