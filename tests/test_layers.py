"""The imports are those of the drawing: `server -> engine`, never back; inside each, towards the data."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("engine", "server")

DRAWN = {
    "engine": (
        "constraint dialect grammar header holds loader messages model phases pieces snapshots template text utterance "
        "vocabulary worker writers"
    ),
    # Data and decisions
    "engine.alphabet": "",
    "engine.messages": "",
    "engine.utterance": "",
    "engine.scanner": "utterance",
    "engine.declared": "json_schema",
    "engine.objects": "declared scanner utterance",
    "engine.parameters": "declared objects scanner utterance",
    "engine.elements": "declared objects parameters scanner utterance",
    "engine.wraps": "",
    "engine.prose": "scanner utterance",
    "engine.dialect": "objects prose scanner utterance wraps writers",
    "engine.parameter_writers": "declared json_schema lark parameters writers",
    "engine.gemma_writers": "declared json_schema lark parameter_writers writers",
    "engine.element_writers": "declared elements lark parameter_writers writers",
    "engine.tagged_families": "dialect element_writers elements objects parameter_writers parameters scanner writers",
    "engine.json_families": "dialect objects scanner writers",
    "engine.python_families": "dialect parameter_writers parameters writers",
    "engine.families": "dialect gemma gemma_writers json_families python_families tagged_families wraps writers",
    "engine.manners": "messages",
    "engine.past_calls": "dialect manners messages parameter_writers writers",
    "engine.rehearsal": "declared dialect manners messages utterance",
    "engine.constraint": "model",
    "engine.pieces": "constraint",
    "engine.model": "",
    "engine.text": "",
    "engine.header": "",
    "engine.penalties": "model pieces",
    "engine.sampler": "model penalties pieces",
    "engine.drafter": "",
    "engine.pace": "",
    "engine.slots": "drafter pieces",
    "engine.waiting": "pieces slots",
    "engine.step": "model",
    "engine.scheduler": "drafter model pace pieces slots step waiting",
    # Files
    "engine.gguf": "header",
    "engine.backport": "alphabet header",
    "engine.ledger": "",
    "engine.library": "",
    "engine.snapshots": "",
    "engine.spellings": "",
    "engine.vocabulary": "alphabet header spellings",
    "engine.jinja": "",
    "engine.template": (
        "chat_templates dialect families jinja manners messages objects past_calls rehearsal scanner vocabulary"
    ),
    "engine.json_values": "",
    "engine.json_formats": "json_values",
    "engine.json_unions": "json_values",
    "engine.json_limits": "json_values",
    "engine.json_texts": "json_values",
    "engine.json_rewrites": "json_formats json_unions json_values",
    "engine.json_schema": "constraint json_formats json_limits json_rewrites json_texts json_values",
    "engine.json_faults": "constraint json_schema json_values",
    "engine.json_grammar": "json_values lark",
    "engine.lark": "json_schema",
    "engine.quoting": "constraint lark",
    "engine.writers": "json_schema lark quoting",
    "engine.forms": "constraint dialect json_schema lark writers",
    "engine.memory": "",
    "engine.grammar": "constraint json_faults json_grammar json_schema json_values memory model vocabulary",
    "engine.markers": "model vocabulary",
    "engine.naming": "markers objects scanner utterance",
    "engine.holds": "grammar",
    "engine.ending": "grammar model",
    "engine.course": "grammar model",
    "engine.phases": "constraint course ending grammar holds markers model naming vocabulary",
    # Backends
    "engine.ctrans": "linking model",
    "engine.libllama": "linking model",
    "engine.llamacpp": "libllama model",
    "engine.backends": "ctrans header kinds libllama llamacpp model",
    "engine.scripted": "alphabet header model vocabulary",
    # All together
    "engine.probe": "model template",
    "engine.loader": (
        "backends backport chat_templates ctrans file_facts footprint gguf header kinds ledger machine model "
        "model_file probe template vocabulary"
    ),
    "engine.quantiser": "libllama model",
    "engine.divergence": "model",
    "engine.tuning": "model",
    "engine.stopwatch": "model tuning",
    "engine.ahead": "constraint",
    "engine.loop": "ahead constraint model pieces sampler scheduler slots snapshots step",
    "engine.worker": "loop model pieces slots snapshots",
    "server": "",
    # Data
    "server.errors": "",
    "server.toolset": "",
    "server.output": "",
    "server.effort": "",
    "server.formats": "",
    "server.events": "extensions formats output toolset",
    "server.config": "engine",
    "server.configfile": "",
    "server.settings": "config configfile engine.chat_templates values",
    "server.refusals": "errors",
    "server.schema": "errors fields formats refusals",
    # From request to frames
    "server.summary": "engine",
    "server.replayed": "schema",
    "server.reading": "engine errors hosted offers replayed schema summary",
    "server.history": "engine hosted reading",
    "server.prompt": "engine engine.template errors formats history reading schema tools truncation",
    "server.offers": "cues engine errors fields schema toolset",
    "server.argument_schemas": "engine engine.json_schema offers",
    "server.holding": (
        "argument_schemas engine engine.dialect engine.forms engine.grammar engine.json_faults engine.memory effort "
        "errors holds offers"
    ),
    "server.holds": "engine engine.grammar formats offers tools",
    "server.truncation": "engine",
    "server.compaction": "engine errors events schema summary truncation",
    "server.chat_schema": "fields formats schema",
    "server.chat": "chat_schema engine errors fields formats hosted prompt reading schema tools",
    "server.completion": "events output sse",
    "server.cues": "errors events",
    "server.unwrapping": "",
    "server.open_items": "cues events output unwrapping",
    "server.stream": "cues events extensions open_items",
    "server.sse": "events",
    "server.replay": "cues errors events stream",
    "server.items": "errors schema",
    "server.interpreter": "engine cues",
    "server.tools": "cues engine engine.declared engine.forms errors offers schema toolset",
    "server.logprobs": "engine events",
    "server.answer": "engine cues errors events interpreter logprobs",
    "server.pulse": "answer cues events stream",
    # What is kept
    "server.database": "",
    "server.entries": "database",
    "server.conversation_schema": "schema",
    "server.conversation_store": "database entries",
    "server.store": "conversation_store database entries",
    "server.archive": "conversation_store store",
    # HTTP and the process
    "server.exchange": "errors",
    "server.service": "",
    "server.progress": "",
    "server.busy": "",
    "server.gate": "errors",
    "server.routes": "errors",
    "server.models": (
        "engine engine.file_facts engine.memory engine.template errors exchange formats holding holds tools truncation"
    ),
    "server.generation": (
        "engine answer archive conversation_store cues database entries errors events pulse replay store stream"
    ),
    "server.generations": "engine archive busy errors gate generation",
    "server.follow": "errors events exchange generation sse",
    "server.chats": "bodies chat chat_schema completion exchange follow generations models prompt responses",
    "server.conversations": (
        "archive bodies config conversation_schema conversation_store engine entries errors exchange items reading "
        "references schema"
    ),
    "server.references": "archive errors items reading schema",
    "server.responses": (
        "answer archive bodies config conversations engine entries errors events exchange extensions fields follow "
        "formats generation generations holds interpreter items models prompt references schema sse tools"
    ),
    "server.tokens": "exchange responses",
    "server.compact": "compaction errors events exchange generations models responses",
    "server.kept": "archive engine entries errors exchange follow generations items replay schema sse store",
    "server.access": "errors",
    "server.bodies": "errors exchange",
    "server.app": (
        "access archive bodies busy chats compact config conversations database engine errors exchange gate "
        "generation generations kept models responses routes sse text_completions tokens"
    ),
    "server.http": "errors exchange head",
    "server.acceptor": "http",
    "server.daemon": "engine acceptor app config service",
    "server.commands": (
        "database engine engine.backends engine.gguf engine.kinds engine.library engine.loader progress settings"
    ),
    "server.copies": (
        "commands config engine engine.backends engine.divergence engine.machine engine.model_file "
        "engine.quantiser engine.stopwatch engine.tuning"
    ),
    "server.tune": (
        "commands config configfile copies engine engine.backends engine.gguf engine.library engine.machine "
        "engine.model_file engine.stopwatch engine.tuning settings"
    ),
    "server.__main__": (
        "app archive commands config configfile daemon database engine engine.library engine.quantiser entries "
        "models replay service settings store tune"
    ),
    "server.head": "exchange",
    "engine.file_facts": "header",
    "server.extensions": "",
    "server.fields": "errors",
    "server.hosted": "engine",
    "engine.footprint": "header kinds machine model",
    "engine.kinds": "header",
    "engine.linking": "",
    "engine.machine": "",
    "server.values": "configfile",
    "server.version": "",
    "engine.gemma": "objects parameters scanner utterance",
    "engine.chat_templates": "",
    "server.text_completions": (
        "bodies chat_schema completion errors events exchange fields follow generations models prompt responses "
        "schema sse"
    ),
    "engine.model_file": "backends chat_templates gguf header kinds template vocabulary",
    "engine.probe_child": "backends header messages model model_file template",
}
"""Module -> modules of ours that it imports; those of its own package by their last name."""

ALONE = {
    "ctransformers": {"engine.ctrans"},
    "ctypes": {"engine.ctrans", "engine.libllama", "engine.llamacpp", "engine.quantiser"},
    "h11": {"server.head", "server.http"},
    "hypercorn": {"server.acceptor"},
    "llguidance": {"engine.grammar"},
    "minijinja": {"engine.template"},
    "sqlite3": {"server.database"},
    "threading": set(),
    "tokenizers": {"engine.vocabulary"},
    "tomli_w": {"server.configfile"},
    "trio": {
        "engine.worker",
        "server.__main__",
        "server.app",
        "server.archive",
        "server.bodies",
        "server.busy",
        "server.acceptor",
        "server.http",
        "server.daemon",
        "server.exchange",
        "server.follow",
        "server.generation",
        "server.generations",
        "server.kept",
        "server.models",
    },
}
"""Who may know what is outside. Threads are trio's, and started in `engine.worker`."""

PURE = {
    "engine.declared",
    "engine.past_calls",
    "engine.prose",
    "engine.wraps",
    "engine.dialect",
    "engine.drafter",
    "engine.element_writers",
    "engine.elements",
    "engine.families",
    "engine.forms",
    "engine.gemma_writers",
    "engine.jinja",
    "engine.json_families",
    "engine.json_schema",
    "engine.lark",
    "engine.manners",
    "engine.messages",
    "engine.objects",
    "engine.pace",
    "engine.parameter_writers",
    "engine.parameters",
    "engine.penalties",
    "engine.python_families",
    "engine.quoting",
    "engine.rehearsal",
    "engine.scanner",
    "engine.scheduler",
    "engine.slots",
    "engine.spellings",
    "engine.tagged_families",
    "engine.text",
    "engine.tuning",
    "engine.utterance",
    "engine.waiting",
    "engine.writers",
    "server.answer",
    "server.chat",
    "server.chat_schema",
    "server.compaction",
    "server.completion",
    "server.conversation_schema",
    "server.cues",
    "server.effort",
    "server.errors",
    "server.events",
    "server.formats",
    "server.gate",
    "server.history",
    "server.interpreter",
    "server.items",
    "server.open_items",
    "server.output",
    "server.logprobs",
    "server.offers",
    "server.prompt",
    "server.pulse",
    "server.reading",
    "server.replay",
    "server.refusals",
    "server.replayed",
    "server.routes",
    "server.schema",
    "server.sse",
    "server.stream",
    "server.summary",
    "server.tools",
    "server.toolset",
    "server.truncation",
    "server.unwrapping",
}
IMPURE = {"datetime", "logging", "os", "pathlib", "random", "secrets", "socket", "subprocess", "time", "trio", "uuid"}


def sources() -> dict[str, Path]:
    paths = [path for package in OURS for path in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


SOURCES = sources()


def imports(module: str) -> set[str]:
    """Everything the module imports, wherever it stands in it; of our own packages the modules."""
    return set(_imports(ast.parse(SOURCES[module].read_text())))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                inside = {f"{module}.{alias.name}" for alias in names}
                yield from inside & SOURCES.keys()
                if inside - SOURCES.keys():  # something is taken out of the module itself
                    yield module
            case ast.ImportFrom():
                raise AssertionError(f"a relative import in line {node.lineno}")


def drawn() -> dict[str, set[str]]:
    return {module: {_full(name, module) for name in names.split()} for module, names in DRAWN.items()}


def _full(name: str, importer: str) -> str:
    return name if name.split(".")[0] in OURS else f"{importer.split('.')[0]}.{name}"


def test_the_imports_are_the_drawn_ones() -> None:
    assert {module: imports(module) & SOURCES.keys() for module in SOURCES} == drawn()


def test_the_engine_has_never_heard_of_the_server() -> None:
    assert [module for module in SOURCES if module.startswith("engine") and _roots(module) & {"server"}] == []


@pytest.mark.parametrize(("library", "files"), ALONE.items(), ids=ALONE)
def test_what_is_outside_is_known_in_these_files_only(library: str, files: set[str]) -> None:
    assert {module for module in SOURCES if library in _roots(module)} == files


@pytest.mark.parametrize("module", sorted(PURE))
def test_what_is_pure_cannot_do_otherwise(module: str) -> None:
    assert _roots(module) & IMPURE == set()


def _roots(module: str) -> set[str]:
    return {name.split(".")[0] for name in imports(module)}


def test_no_room_is_too_large() -> None:
    """Style, 1: a file is readable in one sitting."""
    assert [module for module, path in SOURCES.items() if len(path.read_text().splitlines()) > 300] == []
