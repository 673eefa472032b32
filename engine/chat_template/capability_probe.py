"""Detect the capabilities of a template by rendering sample conversations, since no file declares them. Pure."""

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import Any, Protocol, TypeAlias

from msgspec.structs import replace

from engine.chat_template.capabilities import CallFields, TemplateCapabilities
from engine.chat_template.efforts import EFFORT_WORDS, effort_variables
from engine.chat_template.message import Call, Message, Tool
from engine.chat_template.rendering import adapt_messages
from engine.chat_template.values import Turn, tool_variables
from engine.dialects import Dialect, Parser
from engine.notations import UNDECLARED, ToolCallArguments, ToolCallStart


class Render(Protocol):
    def __call__(self, turns: list[Turn], **variables: Any) -> str | None:
        """Render turns; None if the template raises."""


Reads: TypeAlias = Callable[..., bool]
"""Returns True if a template renders every word of the messages, adapted to the given capabilities."""

CALL_FIELDS = tuple(
    CallFields(mapping, empty, ids) for ids in ("", "digits") for empty in ("", None) for mapping in (True, False)
)
"""Fields to try, the preferred ones first."""
METADATA = CallFields(mapping=False, empty="", metadata=True)
"""Fields of GLM-4."""
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking", "thought")
"""Names of the field of reasoning to try, the preferred ones first."""

# Words that occur in no template.
_SYSTEM, _ASK, _ANSWER = Message("system", "Wombat"), Message("user", "Okapi"), Message("assistant", "Ibex")
_MORE, _ASK_AGAIN = Message("assistant", "Numbat"), Message("user", "Quokka")
_CALL, _SECOND = (Call(f"call_{word}", word, f'{{"at":"{word}s"}}') for word in ("civet", "dugong"))
_OUTPUT, _SECOND_OUTPUT = (
    Message("tool", f"{call.name}ish", name=call.name, call_id=call.id) for call in (_CALL, _SECOND)
)

_TOOL = Tool(
    "serval",
    "Tapir",
    '{"type":"object","properties":{"oryx":{"type":"string","description":"Kudu"}},"required":["oryx"]}',
)


def detect_capabilities(render: Render, dialect: Dialect) -> TemplateCapabilities:
    """Detect the template's capabilities by rendering sample messages.

    `dialect` is the dialect of the template's family. A kind of message is unsupported if the template raises or drops
    one of its words.
    """

    def reads(capabilities: TemplateCapabilities, *messages: Message) -> bool:
        text = render(adapt_messages(messages, capabilities)) or ""
        return all(word in text for message in messages for word in _words(message))

    # Some templates use only the last system message.
    conversation = (_SYSTEM, _ASK, _ANSWER, Message("system", "Narwhal"), _ASK_AGAIN)
    found = TemplateCapabilities(
        system=reads(TemplateCapabilities(system=True), _SYSTEM, _ASK),
        later_system=reads(TemplateCapabilities(system=True, later_system=True), *conversation),
        consecutive_roles=reads(TemplateCapabilities(consecutive_roles=True), _ASK, _ASK_AGAIN, _ANSWER, _MORE, _ASK),
        effort=_uses_effort(render),
        tools=_renders_tools(render),
        efforts=_efforts(render),
    )
    found = _with_calls(found, reads, (*CALL_FIELDS, METADATA) if _renders_metadata(render) else CALL_FIELDS)
    if found.call_fields is not None and dialect.numbers_ids:
        found = replace(found, call_fields=replace(found.call_fields, ids=_numbered_ids(render, found)))
    outputs = found.call_fields is None and found.tools and found.consecutive_roles and _has_outputs(render)
    return _with_reasoning(replace(found, outputs=outputs), reads)


def reads_back(render: Render, capabilities: TemplateCapabilities, dialect: Dialect) -> bool:
    """True if the dialect finds the call that the template renders.

    For a template that renders no calls, return True if the dialect has signatures.
    """
    if capabilities.call_fields is None:
        return bool(dialect.template_signatures)
    text = render(adapt_messages((_ASK, Message("assistant", "", calls=(_CALL,)), _OUTPUT), capabilities)) or ""
    text, before = text.partition(_OUTPUT.content)[0], render(adapt_messages((_ASK,), capabilities)) or ""
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, before, strict=False)))
    answer = text[shared:]  # the prompt may end with the start of a marker
    return any(_finds_call(dialect, each) for each in (text.partition(_ASK.content)[2], answer))


def _finds_call(dialect: Dialect, text: str) -> bool:
    parser = Parser(dialect, {_CALL.name: UNDECLARED})
    found = [*parser.feed(text), *parser.finish()]
    arguments = "".join(each.text for each in found if isinstance(each, ToolCallArguments))
    return ToolCallStart(_CALL.name) in found and f"{_CALL.name}s" in arguments


def _uses_effort(render: Render) -> bool:
    turns = adapt_messages((_ASK,), TemplateCapabilities())
    return render(turns, **effort_variables("none")) != render(turns, **effort_variables("high"))


def _efforts(render: Render) -> tuple[str, ...]:
    """Return the effort words that the template accepts. If it rejects all, return all: the fault lies elsewhere."""
    turns = adapt_messages((_ASK,), TemplateCapabilities())
    accepted = tuple(word for word in EFFORT_WORDS if render(turns, **effort_variables(word)) is not None)
    return accepted or EFFORT_WORDS


def _renders_tools(render: Render) -> bool:
    text = render(adapt_messages((_ASK,), TemplateCapabilities()), **tool_variables((_TOOL,))) or ""
    return all(word in text for word in (_TOOL.name, _TOOL.description, "oryx"))


def _has_outputs(render: Render) -> bool:
    """True if the template renders outputs, and not as it renders users or assistants."""
    roles = ("tool", "user", "assistant")
    turns = [{"role": role, "content": _OUTPUT.content, "name": _OUTPUT.name} for role in roles]
    asked, answered, *_ = adapt_messages((_ASK, _ANSWER), TemplateCapabilities(consecutive_roles=True))
    output, *others = (render([asked, answered, turn]) for turn in turns)
    return output is not None and _OUTPUT.content in output and output not in others


def _renders_metadata(render: Render) -> bool:
    called = {"role": "assistant", "metadata": "Jerboa", "content": "{}"}
    return "Jerboa" in (render([*adapt_messages((_ASK,), TemplateCapabilities()), called]) or "")


def _with_calls(found: TemplateCapabilities, reads: Reads, candidates: Sequence[CallFields]) -> TemplateCapabilities:
    talk = (_ASK, Message("assistant", "", calls=(_CALL,)), _OUTPUT, _ANSWER, _ASK_AGAIN)
    # Clients choose ids of any length.
    called = Message("assistant", "", calls=(replace(_CALL, id="c"),))
    short = (_ASK, called, replace(_OUTPUT, call_id="c"), _ANSWER, _ASK_AGAIN)
    fields = next(
        (
            each
            for each in candidates
            if all(reads(TemplateCapabilities(call_fields=each), *messages) for messages in (talk, short))
        ),
        None,
    )
    if fields is None:
        return found
    found = replace(found, call_fields=fields)
    both = (_ASK, Message("assistant", "", calls=(_CALL, _SECOND)), _OUTPUT, _SECOND_OUTPUT)
    # Some templates take text beside a call for reasoning, which later turns drop.
    beside = (_ASK, replace(_ANSWER, calls=(_CALL,)), _OUTPUT, _MORE, _ASK_AGAIN)
    parallel = reads(replace(found, parallel=True), *both)
    text_beside_calls = reads(replace(found, text_beside_calls=True), *beside)
    found = replace(found, parallel=parallel, text_beside_calls=text_beside_calls)
    if not (text_beside_calls or found.consecutive_roles):
        found = replace(found, text_before_calls=reads(replace(found, text_before_calls=True), *beside))
    return replace(found, drops_system=found.system and not reads(found, _SYSTEM, *talk[:3]))


def _numbered_ids(render: Render, found: TemplateCapabilities) -> str:
    """Return the counting of calls by which outputs have the ids that the template writes for their calls."""
    assert found.call_fields is not None, "a template with calls has fields for them"
    talk = [_ASK]
    for call, output in ((_CALL, _OUTPUT), (_SECOND, _SECOND_OUTPUT)):
        talk += [Message("assistant", "", calls=(call,)), output]
    for ids in ("conversation", "message"):
        turns = adapt_messages(talk, replace(found, call_fields=replace(found.call_fields, ids=ids)))
        text = render(turns) or ""
        if all(text.count(turn["tool_call_id"]) > 1 for turn in turns if turn["role"] == "tool"):
            return ids
    return ""


def _with_reasoning(found: TemplateCapabilities, reads: Reads) -> TemplateCapabilities:
    """Detect the field of reasoning. Many templates read it only in the current turn, before a call."""
    thought = replace(_ANSWER, reasoning="Zebra")
    plain = (_ASK, thought, _ASK_AGAIN)
    before_call = (_ASK, replace(thought, content="", calls=(_CALL,)), _OUTPUT)
    for field in REASONING_FIELDS:
        candidate = replace(found, reasoning=field)
        if reads(candidate, *plain) or (found.call_fields is not None and reads(candidate, *before_call)):
            return candidate
    return found


def _words(message: Message) -> Iterator[str]:
    yield from (message.content, message.reasoning)
    for call in message.calls:
        yield from (call.name, call.arguments.split('"')[3])
