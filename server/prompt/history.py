"""What items say -> messages: calls with their outputs, reasoning with what it led to. Pure."""

from collections import deque
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from engine.chat_template import Call, Message
from server.prompt.hosted_items import Output
from server.prompt.item_reader import PromptEntry, ReasoningText


def to_messages(entries: Sequence[PromptEntry]) -> Iterator[Message]:
    """Calls stand in the assistant's message that they follow, their outputs directly behind it, in their order.

    A call without its output, or an output without its call, is told as text: no template expects it. Reasoning that
    leads to nothing is left out.
    """
    entries = _outputs_after_calls(entries)
    outputs = dict(_call_output_pairs(entries))
    paired = set(outputs.values())
    turn: list[Message] = []
    """The assistant's message that may yet be continued, and the outputs of its calls."""
    thoughts: list[str] = []
    for index, entry in enumerate(entries):
        if isinstance(entry, ReasoningText):
            thoughts.append(entry.text)
        elif isinstance(entry, Call) and index in outputs:
            if thoughts or not turn:
                yield from turn
                turn = [Message("assistant", "", _drain(thoughts))]
            turn[0] = replace(turn[0], calls=(*turn[0].calls, entry))
            turn.append(_output(entry, entries[outputs[index]]))
        else:
            yield from turn
            turn = []
            if index not in paired:
                message = _standalone_message(entry)
                thought = _drain(thoughts)
                if message.role == "assistant":
                    turn = [replace(message, reasoning=thought)]
                else:
                    yield message
    yield from turn


def _outputs_after_calls(entries: Sequence[PromptEntry]) -> Sequence[PromptEntry]:
    """The entries with outputs directly behind their calls.

    Templates can't render anything between the two, so calls move behind what was said before their last output came:
    the last entry stays the last one, and everything else keeps its order.
    """
    outputs = dict(_call_output_pairs(entries))
    place = list(range(len(entries)))
    """Where each entry stands; equal places keep their order."""
    run: list[int] = []
    for index, entry in enumerate([*entries, Message("user", "")]):
        if (isinstance(entry, Call) and index in outputs) or isinstance(entry, ReasoningText):
            run.append(index)
            continue
        ends = [outputs[each] for each in run if each in outputs]
        if ends and any(isinstance(between, Message) for between in entries[run[-1] : max(ends)]):
            for each in (*run, *ends):
                place[each] = max(ends)
        run = []
    return [entries[index] for index in sorted(range(len(entries)), key=place.__getitem__)]


def _call_output_pairs(entries: Sequence[PromptEntry]) -> Iterator[tuple[int, int]]:
    """Where a call stands, and where its output. Equal ids, and calls without any, are paired in their order."""
    waiting: dict[str, deque[int]] = {}
    for index, entry in enumerate(entries):
        if isinstance(entry, Call):
            waiting.setdefault(entry.id, deque()).append(index)
        elif isinstance(entry, Output) and waiting.get(entry.call_id):
            yield waiting[entry.call_id].popleft(), index


def _output(call: Call, output: PromptEntry) -> Message:
    assert isinstance(output, Output), "pairs are of calls and outputs"
    return Message("tool", output.text, name=call.name, call_id=call.id)


def _standalone_message(entry: PromptEntry) -> Message:
    match entry:
        case Call(_, name, arguments):
            return Message("assistant", f"{name}({arguments})")
        case Output(_, text):
            return Message("user", text)
        case Message():
            return entry
    raise AssertionError("a thought is no message")


def _drain(thoughts: list[str]) -> str:
    text = "\n\n".join(thoughts)
    thoughts.clear()
    return text
