"""Scenarios of answers under a JSON schema, against free answers of the same server."""

from typing import Any

from answer import parse
from client import Recording
from measures import Group
from target import Target
from texts import Texts

from scenarios.groups import Groups, Size, group

_STORY: dict[str, Any] = {
    "summary": {"type": "string", "minLength": 80},
    "mood": {"enum": ["calm", "eager", "sad"]},
    "people": {
        "type": "array",
        "minItems": 3,
        "items": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": "^[A-Z][a-z]+ [A-Z][a-z]+$"},
                "age": {"type": "integer", "minimum": 1, "maximum": 120},
                "says": {"anyOf": [{"type": "string", "minLength": 20}, {"type": "null"}]},
            },
            "required": ["name", "age", "says"],
            "additionalProperties": False,
        },
    },
    "weight": {"type": "number", "minimum": 0},
    "rest": {"type": "string", "minLength": 400},
}
_FORM: dict[str, Any] = {
    "preferred_method_of_communication": {"enum": ["telephone_call_during_office_hours", "electronic_mail_message"]},
    "customer_satisfaction_category": {"enum": ["completely_satisfied", "partly_satisfied", "not_satisfied_at_all"]},
    "reason_for_contacting_customer_support": {
        "enum": ["damaged_during_transportation", "wrong_item_was_delivered", "question_about_the_invoice"]
    },
    "number_of_previous_conversations": {"type": "integer", "minimum": 0, "maximum": 99},
    "requires_immediate_attention": {"type": "boolean"},
    "suggested_responsible_department": {
        "enum": ["shipping_and_logistics", "accounting_and_billing", "technical_customer_service"]
    },
    "estimated_financial_impact_in_euros": {"type": "integer", "minimum": 0, "maximum": 9999},
    "has_agreed_to_privacy_conditions": {"type": "boolean"},
    "recommended_compensation_procedure": {
        "enum": ["full_refund_of_the_purchase_price", "replacement_without_additional_cost", "no_compensation_at_all"]
    },
}


def _format(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    """Return the `text.format` of an object with these properties."""
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    return {"type": "json_schema", "name": name, "strict": True, "schema": schema}


STORY = _format("story", _STORY)
"""A response format with texts, a choice, objects in a list and bounds, as applications use them; longer than any
answer here."""
FORM = _format("form", _FORM)
"""A response format with long keys and enums: hardly any token of the answer is a choice. It has no free text, so that
the answers of all servers have about the same length."""
FORM_TOKENS = 512
"""Maximum tokens of a filled-in form: more than it needs."""


def constrained(target: Target, texts: Texts, size: Size) -> Groups:
    """Send questions alternately without and with a JSON schema.

    Repetitive answers could be drafted, so the schema demands texts of many kinds. A longer prompt makes steps longer,
    and a server may render the schema for the model: then the unconstrained questions get instructions of that length.
    """
    kinds = {"free": _padding(target, texts, STORY), "constrained": {"format_": STORY}}
    answers: dict[str, list[Recording]] = {name: [] for name in kinds}
    for _ in range(size.requests):
        words = texts.prompt(size.words)
        for name, options in kinds.items():
            answers[name] += target.client().play([target.request(words, size.tokens, **options)], 1)
    return {name: group(recordings) for name, recordings in answers.items()}


def forms(target: Target, texts: Texts, size: Size) -> Groups:
    """Let the model fill in a form, then answer freely with as many tokens, after a prompt of equal length."""
    padding = _padding(target, texts, FORM)
    groups = {"free": Group(), "form": Group()}
    for _ in range(size.requests):
        words = texts.prompt(size.words)
        form = group(target.client().play([target.request(words, FORM_TOKENS, format_=FORM)], 1))
        tokens = max(1, form.records[0].output_tokens)
        groups["form"] += form
        groups["free"] += group(target.client().play([target.request(words, tokens, **padding)], 1))
    return groups


def _padding(target: Target, texts: Texts, format_: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a free request whose prompt is as long as with that format, and as much of it cached."""
    free, formatted = _input_tokens(target, texts), _input_tokens(target, texts, format_=format_)
    if formatted <= free:
        return {}
    options = {"instructions": texts.words(max(1, (formatted - free) * 3 // 4))}
    _input_tokens(target, texts, **options)
    return options


def _input_tokens(target: Target, texts: Texts, **options: Any) -> int:
    """Return the input tokens of a request with these options; 0 if the server does not report them."""
    return parse(target.client().play([target.request(texts.prompt(1), 1, **options)], 1)[0]).input_tokens
