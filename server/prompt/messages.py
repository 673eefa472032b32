"""Convert entries of a prompt into messages: join calls with their outputs, and reasoning with its answer. Pure."""

from collections.abc import Container, Iterator, Mapping, Sequence

from msgspec.structs import replace

from engine.chat_template import Call, Message
from server.prompt.items import Output, PromptEntry, ReasoningEntry


def to_messages(entries: Sequence[PromptEntry]) -> Iterator[Message]:
    """Yield the messages of a conversation.

    A call becomes a part of the assistant's message before it; the outputs follow that message, in the order of the
    calls. A call without its output, or an output without its call, becomes text: no template expects it. Reasoning
    without an answer after it is dropped.
    """
    entries = _outputs_after_calls(entries)
    outputs = dict(_call_output_pairs(entries))
    paired = set(outputs.values())
    turn: list[Message] = []
    """Assistant's message that later calls may extend, and the outputs of its calls."""
    reasoning: list[str] = []
    for index, entry in enumerate(entries):
        if isinstance(entry, ReasoningEntry):
            reasoning.append(entry.text)
        elif isinstance(entry, Call) and index in outputs:
            if reasoning or not turn:
                yield from turn
                turn = [Message("assistant", "", _drain(reasoning))]
            turn[0] = replace(turn[0], calls=(*turn[0].calls, entry))
            turn.append(_output(entry, entries[outputs[index]]))
        else:
            yield from turn
            turn = []
            if index not in paired:
                message = _standalone_message(entry)
                text = _drain(reasoning)
                if message.role == "assistant":
                    turn = [replace(message, reasoning=text)]
                else:
                    yield message
    yield from turn


def merge_system_messages(messages: Sequence[Message], note: str) -> Iterator[Message]:
    """Yield the messages with all leading system messages joined into one: many templates allow only one."""
    leading = 0
    while leading < len(messages) and messages[leading].role == "system":
        leading += 1
    if texts := [*(message.content for message in messages[:leading]), *filter(None, [note])]:
        yield Message("system", "\n\n".join(texts))
    yield from messages[leading:]


def _outputs_after_calls(entries: Sequence[PromptEntry]) -> Sequence[PromptEntry]:
    """Return the entries with outputs directly after their calls.

    Templates cannot render a message between the two, so calls move after the messages that precede their last output.
    The last entry stays last, and all other entries stay in order.
    """
    if not any(isinstance(each, Call) for each in entries):
        return entries
    outputs = dict(_call_output_pairs(entries))
    place = list(range(len(entries)))
    """Sort key of each entry; entries with equal keys stay in order."""
    for run in _runs_of_calls(entries, outputs):
        ends = [outputs[each] for each in run if each in outputs]
        if ends and any(isinstance(between, Message) for between in entries[run[-1] : max(ends)]):
            for each in (*run, *ends):
                place[each] = max(ends)
    return [entries[index] for index in sorted(range(len(entries)), key=place.__getitem__)]


def _runs_of_calls(entries: Sequence[PromptEntry], outputs: Container[int]) -> Iterator[list[int]]:
    """Yield the indexes of consecutive calls that have outputs, with the reasoning before and between them."""
    run: list[int] = []
    for index, entry in enumerate(entries):
        if isinstance(entry, ReasoningEntry) or (isinstance(entry, Call) and index in outputs):
            run.append(index)
        else:
            yield run
            run = []
    yield run


def _call_output_pairs(entries: Sequence[PromptEntry]) -> Iterator[tuple[int, int]]:
    """Yield the index of each call with the index of its output. Calls of equal ids, or of none, pair in order."""
    waiting: dict[str, dict[int, str]] = {}
    """Names of the calls without output, by id and index."""
    for index, entry in enumerate(entries):
        if isinstance(entry, Call):
            waiting.setdefault(entry.id, {})[index] = entry.name
        elif isinstance(entry, Output) and (found := _call_of(entry, waiting)) is not None:
            id_, call = found
            del waiting[id_][call]
            yield call, index


def _call_of(output: Output, waiting: Mapping[str, Mapping[int, str]]) -> tuple[str, int] | None:
    """Return id and index of the call with the output's id, else with its name: asynchronous tools may send no id."""
    same_id = waiting.get(output.call_id, {})
    if output.name and not (output.call_id and same_id):
        named = ((index, id_) for id_, calls in waiting.items() for index in calls if calls[index] == output.name)
        first = min(named, default=None)
        return None if first is None else (first[1], first[0])
    return (output.call_id, next(iter(same_id))) if same_id else None


def _output(call: Call, output: PromptEntry) -> Message:
    assert isinstance(output, Output), "a pair is a call and an output"
    return Message("tool", output.text, name=call.name, call_id=call.id)


def _standalone_message(entry: PromptEntry) -> Message:
    match entry:
        case Call(_, name, arguments):
            return Message("assistant", f"{name}({arguments})")
        case Output(_, text):
            return Message("user", text)
        case Message():
            return entry
    raise AssertionError("to_messages has read the reasoning")


def _drain(reasoning: list[str]) -> str:
    text = "\n\n".join(reasoning)
    reasoning.clear()
    return text
