"""The engine: models and the one thread that runs them. It has never heard of HTTP or OpenAI."""

from engine.constraint import Constraint, Grammar, GrammarError
from engine.dialect import Parser
from engine.grammar import Grammars
from engine.header import GGUFError
from engine.holds import Beginning, Thought, Trigger
from engine.loader import Loaded, Options, load
from engine.messages import Call, Message, Tool
from engine.model import Knobs, Model, ModelError, ModelInfo
from engine.phases import Phases
from engine.pieces import Finish, Job, Likelihood, Piece, Progress, Reason, Sampling, Started, Token
from engine.snapshots import Snapshots
from engine.template import ChatTemplate, TemplateError
from engine.text import StopStrings, TextDecoder
from engine.utterance import Arguments, CallBegun, CallEnded, Reasoned, Said, Utterance
from engine.vocabulary import Vocabulary
from engine.worker import Engine, EngineStopped
from engine.writers import Function

__all__ = [
    "Arguments",
    "Beginning",
    "Call",
    "CallBegun",
    "CallEnded",
    "ChatTemplate",
    "Constraint",
    "Engine",
    "EngineStopped",
    "Finish",
    "Function",
    "GGUFError",
    "Grammar",
    "GrammarError",
    "Grammars",
    "Job",
    "Knobs",
    "Likelihood",
    "Loaded",
    "Message",
    "Model",
    "ModelError",
    "ModelInfo",
    "Options",
    "Parser",
    "Phases",
    "Piece",
    "Progress",
    "Reason",
    "Reasoned",
    "Said",
    "Sampling",
    "Snapshots",
    "Started",
    "StopStrings",
    "TemplateError",
    "TextDecoder",
    "Thought",
    "Token",
    "Tool",
    "Trigger",
    "Utterance",
    "Vocabulary",
    "load",
]
