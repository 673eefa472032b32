"""Each text of a prompt has its place in the request."""

import msgspec

from server.prompt import chat, conversation
from server.prompt.items.entries import ItemPlace
from server.prompt.items.item_texts import ItemText
from server.protocol import chat_request
from server.protocol import request as schema

ITEMS = [
    {"role": "user", "content": "2+2?"},
    {"type": "unknown"},
    {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "4"},
]


def test_items_of_a_request_have_field_index_and_type() -> None:
    body = msgspec.json.encode({"instructions": "Be brief.", "input": ITEMS})
    past = [msgspec.Raw(b'{"role":"user","content":"Hi"}')]
    assert conversation.messages_of(schema.decode(body), past).items == (
        ItemText(ItemPlace("instructions", None, "message"), "Be brief."),
        ItemText(ItemPlace("previous_response_id", 0, "message"), "Hi"),
        ItemText(ItemPlace("input", 0, "message"), "2+2?"),
        ItemText(ItemPlace("input", 2, "function_call"), "{}"),
        ItemText(ItemPlace("input", 3, "function_call_output"), "4"),
    )
    text = schema.decode(b'{"input":"Hi"}')
    assert conversation.messages_of(text).items == (ItemText(ItemPlace("input", None, "message"), "Hi"),)


def test_items_of_a_chat_request_have_their_index() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    body = msgspec.json.encode({"messages": messages})
    assert chat.messages_of(chat_request.decode(body)).items == (
        ItemText(ItemPlace("messages", 0, "message"), "Be brief."),
        ItemText(ItemPlace("messages", 1, "message"), "Hi"),
    )
