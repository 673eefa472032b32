"""The header of a GGUF file as data: `engine.gguf.reader` reads it."""

import re
from collections.abc import Sequence
from typing import TypeAlias, TypeVar, cast, overload

import msgspec

from engine.gguf.packed_texts import PackedTexts

Value: TypeAlias = str | int | float | bool | list[str] | PackedTexts | list[int] | list[float] | list[bool]
T = TypeVar("T")

# GGUF's numbers of the value types, and numpy's names of those with a fixed size.
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
NUMBER_DTYPES = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", UINT32: "<u4", INT32: "<i4", FLOAT32: "<f4", BOOL: "?"}
NUMBER_DTYPES |= {10: "<u8", 11: "<i8", 12: "<f8"}

PER_TOKEN_LISTS = {"tokenizer.ggml.scores": {FLOAT32}, "tokenizer.ggml.token_type": {INT32, UINT32}}
"""Lists of an item a token -> their types. llama.cpp reads them without checking type or length."""
TOKEN_ID = re.compile(r"tokenizer\.ggml\.\w+_token_id")
"""Pattern of the keys of ids, by which llama.cpp indexes the vocabulary."""


class GGUFError(ValueError):
    """The file cannot be used. The message is one sentence for a person: the cause and the remedy."""


def damaged_file(problem: str) -> GGUFError:
    """Return the error for a problem whose remedy is another download."""
    return GGUFError(f"{problem}, so download it again")


class Tensor(msgspec.Struct, frozen=True):
    """Name, shape and place of one tensor."""

    name: str
    shape: tuple[int, ...]  # in elements and in the file's order: the contiguous dimension first
    type: int  # ggml's number, a key of TENSOR_TYPES
    offset: int  # bytes from the start of the file
    n_bytes: int


class MetadataEntry(msgspec.Struct, frozen=True):
    """One metadata entry. The file's bytes `start` to `end` are the whole entry, including key and type."""

    value: Value
    type: int  # GGUF's number; for a list, the number of its elements' type
    start: int
    end: int


class Header(msgspec.Struct, frozen=True):
    """Metadata and tensors of a file.

    Getters return the default for a missing key and raise GGUFError for a value of another type.
    """

    version: int
    alignment: int  # of each tensor's offset, in bytes
    metadata: dict[str, MetadataEntry]
    tensors: tuple[Tensor, ...]
    size: int  # of the whole file, in bytes

    @property
    def architecture(self) -> str:
        """The name of the model's architecture. Raises GGUFError if the file does not state it."""
        if name := self.text("general.architecture"):
            return name
        raise damaged_file("the model file does not name its architecture (general.architecture)")

    @overload
    def text(self, key: str, default: str) -> str: ...
    @overload
    def text(self, key: str, default: None = None) -> str | None: ...
    def text(self, key: str, default: str | None = None) -> str | None:
        """Return a text that is always encodable: a value that is not UTF-8 raises GGUFError (but not in `texts`)."""
        value = self._value(key, str)
        if value is not None and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise damaged_file(f"the model file's {key} is not UTF-8 text")
        return default if value is None else value

    @overload
    def integer(self, key: str, default: int) -> int: ...
    @overload
    def integer(self, key: str, default: None = None) -> int | None: ...
    def integer(self, key: str, default: int | None = None) -> int | None:
        """Return an integer of any size."""
        value = self._value(key, int)
        return default if value is None else value

    @overload
    def flag(self, key: str, default: bool) -> bool: ...
    @overload
    def flag(self, key: str, default: None = None) -> bool | None: ...
    def flag(self, key: str, default: bool | None = None) -> bool | None:
        """Return a truth value."""
        value = self._value(key, bool)
        return default if value is None else value

    def texts(self, key: str) -> Sequence[str]:
        """Return a list of texts, whose bytes that are not UTF-8 are surrogates; empty if the key is missing."""
        return self._values(key, str)

    def integers(self, key: str) -> Sequence[int]:
        """Return a list of integers; empty if the key is missing."""
        return self._values(key, int)

    def floats(self, key: str) -> Sequence[float]:
        """Return a list of floats; empty if the key is missing."""
        return self._values(key, float)

    def check_vocabulary(self) -> None:
        """Raise GGUFError if native code would read outside a list: it checks no length."""
        n = len(self.texts("tokenizer.ggml.tokens"))
        for key, entry in self.metadata.items():
            value, types = entry.value, PER_TOKEN_LISTS.get(key)
            if types and not (entry.type in types and isinstance(value, list) and len(value) == n):
                raise damaged_file(f"its {key} does not fit its {n} tokens")
            if TOKEN_ID.fullmatch(key) and not (isinstance(value, int) and value >= 0):
                raise damaged_file(f"its {key} is {value!r:.40}, not one of its {n} tokens")

    def token_id(self, name: str) -> int | None:
        """Return `tokenizer.ggml.{name}_token_id`; None if it is missing or beyond the vocabulary.

        llama.cpp warns of an id beyond the vocabulary and ignores it: converters write such ids for unused tokens.
        """
        id_ = self.integer(f"tokenizer.ggml.{name}_token_id")
        return id_ if id_ is not None and id_ < len(self.texts("tokenizer.ggml.tokens")) else None

    def stray_token_ids(self) -> list[str]:
        """Return the keys whose token id is beyond the vocabulary."""
        names = [key[len("tokenizer.ggml.") : -len("_token_id")] for key in self.metadata if TOKEN_ID.fullmatch(key)]
        return [f"tokenizer.ggml.{name}_token_id" for name in names if self.token_id(name) is None]

    def _value(self, key: str, type_: type[T]) -> T | None:
        entry = self.metadata.get(key)
        if entry is None:
            return None
        if type(entry.value) is not type_:  # not isinstance: a bool is an int
            raise damaged_file(f"the model file's {key} is a {_type_name(entry.value)}, not a {type_.__name__}")
        return entry.value

    def _values(self, key: str, type_: type[T]) -> Sequence[T]:
        """Return a list; empty if the key is missing."""
        entry = self.metadata.get(key)
        values = [] if entry is None else entry.value
        if not isinstance(values, list | PackedTexts):
            raise damaged_file(f"the model file's {key} is a {type(values).__name__}, not a list")
        if values and type(values[0]) is not type_:  # the elements of a GGUF list are all of one type
            raise damaged_file(f"the model file's {key} lists {type(values[0]).__name__}, not {type_.__name__}")
        return cast("Sequence[T]", values)


def _type_name(value: Value) -> str:
    return "list" if isinstance(value, PackedTexts) else type(value).__name__
