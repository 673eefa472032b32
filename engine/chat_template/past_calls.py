"""Write past calls in the format of a model's family, for templates that render no calls. Pure.

A model imitates earlier calls, so this format equals the format that grammars enforce for new calls.
"""

import json
import re
from collections.abc import Sequence

from engine.chat_template.message import Call
from engine.chat_template.values import Clean, WriteCalls, as_object, generic_call
from engine.dialects import Dialect
from engine.notations import GENERIC_FORMAT, CallFormat, is_plain


def calls_writer(dialect: Dialect) -> WriteCalls | None:
    """Return a function that writes calls as text.

    None if the family has the generic format, or if only a template can write its messages. The function applies
    `clean` to names and values, and writes the family's markers unchanged.
    """
    call_format = dialect.call_format
    if call_format == GENERIC_FORMAT or dialect.generation_prefix or call_format.answer != "$answer":
        return None

    def write(calls: Sequence[Call], clean: Clean) -> str:
        if not (call_format.any_name or all(is_plain(call.name) for call in calls)):
            return clean("\n".join(map(generic_call, calls)))
        parts = [_parts(call_format, n, call, clean) for n, call in enumerate(calls)]
        numbered = [_lined(call_format.call, each["arguments"]).replace("$", f"${n}:") for n, each in enumerate(parts)]
        template = _spaced(f"{call_format.begin}{(call_format.between or '').join(numbered)}{call_format.end}")
        return _PART.sub(lambda part: parts[int(part[1])].get(part[2], ""), template)

    return write


_PART = re.compile(r"\$(\d+):([a-z]+)")


def _parts(call_format: CallFormat, number: int, call: Call, clean: Clean) -> dict[str, str]:
    name = clean(call.name)
    return {
        "name": json.dumps(name, ensure_ascii=False)[1:-1] if call_format.any_name else name,
        "arguments": call_format.spell(as_object(call.arguments, clean)),
        "number": str(number),
        "id": clean(call.id),
    }


def _lined(call: str, arguments: str) -> str:
    """Return a call's template with its arguments, if there are any, in lines of their own between tags."""
    return call.replace("~$arguments~<", "\n$arguments\n<" if arguments else "\n<")


def _spaced(template: str) -> str:
    """Return a template without its optional parts and with the usual white space: line breaks between tags as in XML,
    none between control tokens."""
    template = re.sub(r"«[^«»]*»", "", template)
    template = re.sub(r"(?<=[:,;])~", " ", template)
    return re.sub(r"(?<=[^|｜]>)~(?=<)", "\n", template).replace("~", "")
