"""The folders import one another as drawn: `server` imports `engine`, never back, and nothing runs in a circle."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.repo.syntax import statements

ROOT = Path(__file__).parents[2]
OURS = ("engine", "server")
ROOT_MODULES = "root"

DRAWN = {
    "engine.gguf": "",
    "engine.model": "",
    "engine.platform": "",
    "engine.wording": "",
    "engine.backends.llamacpp": "model platform wording",
    "engine.constraint": "model",
    "engine.prefix_cache": "model",
    "engine.tokenizer": "gguf",
    "engine.tuner": "model wording",
    "engine.backends.ctransformers": "gguf model platform tokenizer wording",
    "engine.job": "constraint",
    "engine.json_schema": "constraint",
    "engine.backends": "backends.ctransformers backends.llamacpp gguf model tokenizer wording",
    "engine.grammar": "constraint json_schema",
    "engine.grammar.ebnf": "grammar json_schema",
    "engine.sampling": "job model",
    "engine.scheduler": "job model prefix_cache",
    "engine.notations": "grammar json_schema",
    "engine.runtime": "constraint job model platform prefix_cache sampling scheduler",
    "engine.dialects": "constraint grammar json_schema notations",
    "engine.chat_template": "dialects notations tokenizer",
    "engine.structured_output": "constraint dialects grammar grammar.ebnf json_schema model notations tokenizer",
    "engine.loader": "backends backends.ctransformers chat_template gguf model platform tokenizer wording",
    "server.bench_command": "",
    "server.cli.console": "",
    "server.protocol": "",
    "server.store": "engine.wording",
    "server.stream.decoders": "",
    "server.systemd": "engine.wording",
    "server.verification": "engine.wording",
    "server.version": "",
    "server.work_thread": "",
    "server.access": "protocol",
    "server.stream.completions": "protocol",
    "server.websocket": "protocol",
    "server.stream": "protocol stream.decoders",
    "server.postprocessing": "engine.dialects engine.job engine.notations engine.tokenizer protocol stream",
    "server.config": "access engine.chat_template engine.job engine.model engine.platform",
    "server.generation": (
        "access engine.job engine.runtime engine.scheduler engine.wording postprocessing protocol store stream"
    ),
    "server.mcp": "protocol store stream",
    "server.tools": (
        "engine.chat_template engine.constraint engine.dialects engine.json_schema engine.notations protocol stream"
    ),
    "server.listening": "access config",
    "server.prompt.items": "engine.chat_template protocol stream tools",
    "server.prompt": "engine.chat_template engine.job prompt.items protocol stream tools",
    "server.http": "access listening protocol websocket work_thread",
    "server.page": "http",
    "server.prompt_comparison": (
        "engine.prefix_cache engine.tokenizer engine.wording generation prompt protocol store work_thread"
    ),
    "server.upstream.transport": "access engine.job http postprocessing protocol",
    "server.served_model": (
        "config engine.chat_template engine.constraint engine.gguf engine.job engine.json_schema engine.model "
        "engine.notations engine.structured_output engine.tokenizer generation postprocessing prompt "
        "prompt_comparison protocol store tools work_thread"
    ),
    "server.monitoring": "engine.job engine.scheduler generation http protocol served_model store",
    "server.preprocessing": (
        "access config engine.chat_template engine.job engine.platform generation http mcp postprocessing prompt "
        "prompt.items prompt_comparison protocol served_model store stream work_thread"
    ),
    "server.relay": "access engine.platform generation http protocol served_model store stream",
    "server.upstream.tokens": (
        "config engine.chat_template engine.constraint engine.grammar.ebnf engine.job engine.model "
        "engine.structured_output engine.tokenizer postprocessing prompt prompt_comparison served_model store stream "
        "upstream.transport work_thread"
    ),
    "server.live_view": "config monitoring",
    "server.session": (
        "access generation http postprocessing preprocessing prompt prompt.items protocol websocket work_thread"
    ),
    "server.openapi": "protocol session stream.completions",
    "server.upstream.chat": (
        "config engine.chat_template engine.constraint engine.job postprocessing prompt prompt_comparison protocol "
        "served_model store stream tools upstream.transport verification work_thread"
    ),
    "server.upstream": (
        "config engine.chat_template engine.job engine.loader engine.runtime engine.scheduler engine.tokenizer "
        "generation postprocessing prompt protocol served_model store upstream.chat upstream.tokens "
        "upstream.transport work_thread"
    ),
    "server.api": (
        "access config engine.job generation http mcp monitoring openapi page preprocessing prompt prompt.items "
        "protocol relay served_model session store stream.completions websocket work_thread"
    ),
    "server.daemon": "api config engine.job engine.wording generation http listening protocol systemd",
    "server.cli": (
        "access api cli.console config daemon engine.backends engine.backends.llamacpp engine.chat_template "
        "engine.gguf engine.loader engine.model engine.platform engine.runtime engine.tuner engine.wording "
        "generation listening live_view monitoring served_model store stream systemd upstream"
    ),
    "server.__main__": "bench_command cli",
}
"""Folder -> folders it imports; a module at the root of a package stands for itself. Names of its own package are
short.
"""

ALONE = {
    "ctransformers": {"engine.backends.ctransformers.model"},
    "ctypes": {
        "engine.backends.ctransformers.model",
        "engine.backends.llamacpp.batch",
        "engine.backends.llamacpp.declarations",
        "engine.backends.llamacpp.library",
        "engine.backends.llamacpp.model",
        "engine.backends.llamacpp.quantizer",
        "engine.backends.llamacpp.saved_state",
        "engine.backends.llamacpp.tokenizer",
        "engine.platform.zero_pages",
    },
    "h11": {
        "server.http.client",
        "server.http.connection",
        "server.http.h11_adapter",
        "server.http.request_head",
        "server.relay.peer",
        "server.upstream.transport.answer",
        "server.upstream.transport.client",
    },
    "hypercorn": {"server.http.listener"},
    "llguidance": {
        "engine.structured_output.compiled_grammar",
        "engine.structured_output.grammar_constraint",
        "engine.structured_output.source_compiler",
    },
    "minijinja": {"engine.chat_template.compiled_template"},
    "sqlite3": {"server.store.errors", "server.store.open_stores", "server.store.sqlite"},
    "threading": {"engine.loader.thread_check", "server.systemd.notifier"},
    "tokenizers": {"engine.tokenizer.encoders"},
    "tomli_w": {"server.config.file"},
    "wsproto": {"server.websocket.handshake", "server.websocket.message", "server.websocket.socket"},
}
"""Library -> modules that import it. trio starts the threads, in `engine.runtime.engine`."""

TRIO = {
    "engine.runtime",
    "server.api",
    "server.daemon",
    "server.generation",
    "server.http",
    "server.mcp",
    "server.relay",
    "server.session",
    "server.store",
    "server.upstream",
    "server.upstream.chat",
    "server.upstream.tokens",
    "server.upstream.transport",
    "server.websocket",
    "server.work_thread",
}
"""Folders whose modules import trio, besides the command and `server.served_model`."""

PURE = (
    "engine.dialects",
    "engine.grammar",
    "engine.grammar.ebnf",
    "engine.json_schema",
    "engine.notations",
    "engine.scheduler",
    "server.access",
    "server.postprocessing",
    "server.prompt",
    "server.prompt.items",
    "server.protocol",
    "server.stream",
    "server.stream.completions",
    "server.stream.decoders",
    "server.tools",
    "server.verification",
)
"""Folders that decide and compute only: no clock, no file, no thread, no socket."""
IMPURE = {"logging", "os", "pathlib", "socket", "sqlite3", "subprocess", "threading", "time", "trio"}
UNLOADED = (
    "ctransformers",
    "engine.backends",
    "h11",
    "hypercorn",
    "llguidance",
    "sqlite3",
    "subprocess",
    "trio",
    "wsproto",
)
"""Modules that no pure folder loads, directly or through what it imports."""


LOADING = f"""
import importlib, json, sys
found = {{}}
for name, modules in json.loads(sys.argv[1]).items():
    before = set(sys.modules)
    for module in modules:
        importlib.import_module(module)
    if impure := sorted(({set(UNLOADED)} & sys.modules.keys()) - before):
        found[name] = impure
print(found)
"""
"""Program that imports the folders one after the other and prints what each has loaded of `UNLOADED`."""


def sources() -> dict[str, Path]:
    paths = [path for package in OURS for path in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


SOURCES = sources()
FOLDERS = {module for module, path in SOURCES.items() if path.name == "__init__.py"}


def folder(module: str) -> str:
    """Return the folder of a module; a module at the root of a package is its own."""
    parent = module if module in FOLDERS else module.rpartition(".")[0]
    return module if parent in OURS else parent


@cache
def import_statements(module: str) -> list[tuple[ast.stmt, bool]]:
    """Return the imports of a module, each with True if it is inside a function.

    The rest of the tree is dropped: the garbage collector would search it again and again.
    """
    every = [*statements(ast.parse(SOURCES[module].read_text()))]
    functions = [each for each in every if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in statements(function)}
    return [(node, id(node) in inside) for node in every if isinstance(node, ast.Import | ast.ImportFrom)]


@cache
def imports(module: str) -> set[str]:
    """Return everything that a module imports, wherever the statement is; of our own packages the modules."""
    return set(_imports(module))


def _imports(module: str) -> Iterator[str]:
    for node, _ in import_statements(module):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(source), names=names, level=0):
                inside = {f"{source}.{alias.name}" for alias in names}
                yield from inside & SOURCES.keys()
                if inside - SOURCES.keys():  # something is taken out of the module itself
                    yield source
            case ast.ImportFrom():
                raise AssertionError(f"a relative import in line {node.lineno}")


@cache
def graph() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {folder(module): set() for module in SOURCES if module not in OURS}
    for module in SOURCES.keys() - set(OURS):
        here = folder(module)
        found[here] |= {folder(name) for name in imports(module) & SOURCES.keys()} - {here}
    return found


def drawn() -> dict[str, set[str]]:
    return {name: {_full(other, name) for other in others.split()} for name, others in DRAWN.items()}


def _full(name: str, importer: str) -> str:
    return name if name.split(".")[0] in OURS else f"{importer.split('.')[0]}.{name}"


def test_folders_import_the_drawn_ones() -> None:
    assert graph() == drawn()


@pytest.mark.parametrize("name", sorted(name for name in DRAWN.keys() & FOLDERS if name.startswith("server.")))
def test_docstring_of_a_server_folder_names_the_folders_it_imports(name: str) -> None:
    """A docstring without a list states nothing; a named folder stands for the folders inside it too."""
    text = " ".join((ast.get_docstring(ast.parse(SOURCES[name].read_text())) or "").split())
    named = re.search(r"\bImports (`.*?)\.(?: |$)", text)
    if named is not None:
        imported = {each.split(".")[1] for each in drawn()[name] if each.startswith("server.")} - {name.split(".")[1]}
        assert set(re.findall(r"`(\w+)`", named[1])) == imported


def test_docstrings_of_engine_folders_name_the_folders_they_import() -> None:
    """`the root` are the modules beside the folders: model, job and constraint."""
    doors = [name for name in DRAWN if name in FOLDERS and name.startswith("engine.")]
    expected = {name: {_top(other) for other in drawn()[name] if not other.startswith(f"{name}.")} for name in doors}
    assert {name: _named_imports(name) for name in doors} == expected


def _named_imports(name: str) -> set[str]:
    sentence = (ast.get_docstring(ast.parse(SOURCES[name].read_text())) or "").rpartition("Imports ")[2]
    return {*re.findall("`([a-z_]+)`", sentence)} | ({ROOT_MODULES} if "the root" in sentence else set())


def _top(name: str) -> str:
    """Return the folder of the engine that a folder is in."""
    return ROOT_MODULES if name not in FOLDERS else name.split(".")[1]


def test_folders_have_no_circle() -> None:
    assert list(TopologicalSorter(graph()).static_order())


def test_modules_have_no_circle() -> None:
    ours = {module: imports(module) & SOURCES.keys() for module in SOURCES.keys() - FOLDERS}
    assert list(TopologicalSorter(ours).static_order())


def test_engine_imports_nothing_of_the_server() -> None:
    assert [module for module in SOURCES if module.startswith("engine") and _roots(module) & {"server"}] == []


def test_imports_stand_at_the_top_of_a_module() -> None:
    """An import inside a function could hide a circle."""
    hidden = [
        (module, node.lineno)
        for module in SOURCES
        for node, inside in import_statements(module)
        if inside and isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in OURS
    ]
    assert hidden == []


def test_imports_from_outside_go_through_the_door_of_a_folder() -> None:
    """`protocol` has no door: its structs have many names, and its modules say where each belongs."""
    past = [
        (module, node.module)
        for module in SOURCES
        for node, _ in import_statements(module)
        if isinstance(node, ast.ImportFrom) and node.module in SOURCES.keys() - FOLDERS
        if node.module != folder(node.module) and folder(node.module) not in {folder(module), "server.protocol"}
    ]
    assert past == []


@pytest.mark.parametrize(("library", "modules"), ALONE.items(), ids=ALONE)
def test_library_is_imported_by_these_modules_only(library: str, modules: set[str]) -> None:
    assert {module for module in SOURCES if library in _roots(module)} == modules


def test_trio_is_imported_by_these_folders_only() -> None:
    users = {folder(module) for module in SOURCES if "trio" in _roots(module)}
    assert users == TRIO | {"server.cli", "server.served_model"}


@pytest.mark.parametrize("name", PURE)
def test_pure_folder_imports_nothing_impure(name: str) -> None:
    assert {module: found for module in SOURCES if folder(module) == name and (found := _roots(module) & IMPURE)} == {}


@pytest.mark.slow
def test_pure_folders_load_nothing_impure() -> None:
    modules = {name: [module for module in SOURCES if folder(module) == name] for name in PURE}
    command = [sys.executable, "-c", LOADING, json.dumps(modules)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("{}\n", "")


def _roots(module: str) -> set[str]:
    return {name.split(".")[0] for name in imports(module)}


def test_modules_have_at_most_300_lines() -> None:
    assert [module for module, path in SOURCES.items() if len(path.read_text().splitlines()) > 300] == []


def test_folders_have_at_most_15_files() -> None:
    """`__init__.py` is not counted."""
    counts = Counter(path.parent for name in (*OURS, "bench", "tests") for path in (ROOT / name).rglob("*.py"))
    assert {folder.relative_to(ROOT): count for folder, count in counts.items() if count > 16} == {}


@pytest.mark.parametrize("package", OURS)
def test_package_has_at_most_six_files_beside_its_folders(package: str) -> None:
    shown = [path for path in (ROOT / package).iterdir() if path.is_file() and not path.name.startswith(".")]
    assert len(shown) <= 6
