"""Requests as clients send them, decoded."""

import json
from typing import Any

from engine.job import SamplingParams
from server.protocol import request as schema

DEFAULT = SamplingParams(temperature=0.8, top_p=0.95, top_k=40, min_p=0.05)


def request(input_: Any = "hi", **fields: Any) -> schema.Request:
    return schema.decode(json.dumps({"model": "m", "input": input_} | fields).encode())
