"""Write past calls in the format of a model's family, for templates that render no calls. Pure.

A model imitates earlier calls, so this format equals the format that grammars enforce for new calls.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from engine.chat_template.message import Call
from engine.chat_template.rendering import Clean, WriteCalls, as_object, generic_call
from engine.dialects import Dialect
from engine.notations import GENERIC_FORMAT, CallFormat, Write, is_plain, json_arguments, pythonic_arguments


def calls_writer(dialect: Dialect) -> WriteCalls | None:
    """Return a function that writes calls as text.

    None if the family has the generic format, or a notation of arguments that only templates write. The function
    applies `clean` to names and values, and writes the family's markers unchanged.
    """
    form = dialect.form
    arguments = _NOTATIONS.get(form.write)
    if arguments is None or form == GENERIC_FORMAT or dialect.generation_prefix or form.answer != "$answer":
        return None

    def write(calls: Sequence[Call], clean: Clean) -> str:
        if not (form.any_name or all(is_plain(call.name) for call in calls)):
            return clean("\n".join(map(generic_call, calls)))
        numbered = [form.call.replace("$", f"${n}:") for n in range(len(calls))]
        template = _spaced(f"{form.begin}{(form.between or '').join(numbered)}{form.end}")
        parts = [_parts(form, n, call, arguments, clean) for n, call in enumerate(calls)]
        return _PART.sub(lambda part: parts[int(part[1])].get(part[2], ""), template)

    return write


_PART = re.compile(r"\$(\d+):([a-z]+)")


def _parts(
    form: CallFormat, number: int, call: Call, arguments: Callable[[dict[str, Any]], str], clean: Clean
) -> dict[str, str]:
    name = clean(call.name)
    return {
        "name": json.dumps(name, ensure_ascii=False)[1:-1] if form.any_name else name,
        "arguments": arguments(as_object(call.arguments, clean)),
        "number": str(number),
        "id": clean(call.id),
    }


def _spaced(template: str) -> str:
    """Return a template without its optional parts and with the usual white space: line breaks between tags as in XML,
    none between control tokens."""
    template = re.sub(r"«[^«»]*»", "", template)
    template = re.sub(r"(?<=[:,;])~", " ", template)
    return re.sub(r"(?<=[^|｜]>)~(?=<)", "\n", template).replace("~", "")


def _as_json(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False)


def _as_python(values: dict[str, Any]) -> str:
    if not all(map(is_plain, values)):
        return _as_json(values)
    return ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items())


_NOTATIONS: dict[Write, Callable[[dict[str, Any]], str]] = {
    json_arguments: _as_json,
    pythonic_arguments: _as_python,
}
