"""Incremental decoders of a call's arguments. Pure."""

from server.stream.decoders.custom_input import CustomInputDecoder
from server.stream.decoders.partial_json import PartialObject

__all__ = ["CustomInputDecoder", "PartialObject"]
