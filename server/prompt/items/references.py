"""References to other items in a list of input items, and the kinds of its items. Pure."""

from collections.abc import Sequence

import msgspec

from server.protocol.decoding import part
from server.protocol.errors import InvalidRequest
from server.protocol.input_items import ItemReference
from server.protocol.request import TypeAndRole


def references(raws: Sequence[msgspec.Raw], name: str) -> dict[int, str]:
    """Return the id that each reference names, by the index of its item. Raises InvalidRequest."""
    ids: dict[int, str] = {}
    for index, raw in enumerate(raws):
        place = f"{name}[{index}]"
        kind = kind_of(part(raw, TypeAndRole, place))
        if kind in ("item_reference", ""):
            id_ = part(raw, ItemReference, place).id
            if kind and id_ is None:
                raise InvalidRequest(f"`{place}` references no item: `id` is missing.", param=f"{place}.id")
            if id_ is not None:
                ids[index] = id_
    return ids


def newest_of_user(raws: Sequence[msgspec.Raw], name: str) -> int:
    """Return the index of the user's newest message; -1 if there is none. Raises InvalidRequest."""
    for index in reversed(range(len(raws))):
        if part(raws[index], TypeAndRole, f"{name}[{index}]").role == "user":
            return index
    return -1


def kind_of(item: TypeAndRole) -> str:
    """Return the type of an item: "message" if it has only a role; empty if it has neither and may be a reference."""
    return item.type or ("message" if item.role is not None else "")
