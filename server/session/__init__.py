"""WebSocket mode of the Responses API: requests of one connection, answered in lanes.

Imports `access`, `generation`, `http`, `postprocessing`, `preprocessing`, `prompt`, `protocol`, `websocket` and
`work_thread`.
"""

from server.session.client_events import STREAM_ID
from server.session.memory import ResponseMemory
from server.session.responder import Responder
from server.session.server_events import SessionEvent
from server.session.session import Session
from server.session.turn import SessionTurn

__all__ = [
    "STREAM_ID",
    "Responder",
    "ResponseMemory",
    "Session",
    "SessionEvent",
    "SessionTurn",
]
