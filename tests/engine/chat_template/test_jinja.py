"""`engine.chat_template.jinja`: templates render as in transformers; jinja2, set up as there, is the oracle."""

import json
import sys
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.backends import scripted
from engine.chat_template import ChatTemplate, TemplateError
from engine.chat_template.jinja import MAX_WIDTH
from engine.chat_template.message import Message
from engine.chat_template.minijinja_source import readable, with_methods
from tests.rows import thinned

MAPPING = "{'b': [1, 2.5], 'a': {'d': 'é<b>', 'c': none}}"
WORDS = "['b', 'A', 'a', 'C']"
PEOPLE = "[{'n': 'b', 'm': {'x': 2}}, {'n': 'A', 'm': {'x': 1}}, {'n': 'a', 'm': {'x': 0}}]"


def tojson(
    x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """As transformers defines it (utils/chat_template_utils.py)."""
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def expected(source: str) -> str:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = tojson
    return environment.from_string(source).render(messages=[{"role": "user", "content": "Hello."}])


def rendered(source: str) -> str:
    vocabulary = scripted.vocabulary()
    ids = ChatTemplate(source, vocabulary).prompt([Message("user", "Hello.")])
    return b"".join(vocabulary.bytes_of(id_) or vocabulary.name_of(id_).encode() for id_ in ids).decode()


EXPRESSIONS = [
    *(
        f"{MAPPING}|tojson({wishes})"
        for wishes in (
            *("", "ensure_ascii=true", "ensure_ascii=false", "sort_keys=true", "indent=2", "indent='\t'", "indent=0"),
            *("separators=(',', ':')", "separators=[', ', ' = ']", "indent=4, separators=(',', ': ')", "indent=none"),
            *("true", "false, 2", "true, none, (',', ':'), true", "sort_keys=True, indent=1, ensure_ascii=True"),
        )
    ),
    "messages|tojson(sort_keys=true, separators=(',', ':'))",
    *(
        f"'a.b.c d  e '.{call}"
        for call in (
            *("rsplit('.')", "rsplit('.', 1)", "rsplit()", "rsplit(none, 1)", "rsplit(maxsplit=1)", "rsplit(sep='b')"),
            *("split(sep='.')", "split(maxsplit=2)", "split(sep='.', maxsplit=1)", "split('.', 1)", "split()"),
            *("rsplit('.', 1)[-1]", "rsplit('.')[0].rsplit('a')", "rsplit('.')|join('|')", "removeprefix('a.')"),
            *("removesuffix(' ')", "partition('.')[2]", "rpartition('.')[0]", "index('b')", "rindex('.')"),
            *("swapcase()", "casefold()", "ljust(15, '-')", "rjust(15)", "center(15)", "zfill(15)", "isdecimal()"),
        )
    ),
    "messages[0]['content'].rsplit('l', 1)",
    "messages[0].content.upper().rsplit('L')[1:]",
    "(messages[0].content ~ ')').rsplit(')')",
    "'x' ~ messages[0].content.rsplit(messages[0].content.rsplit('o')[-1])[0] ~ '.rsplit('",
    "'a}}b'.rsplit('}}')",
    "('y' if not 'a b'.rsplit() else ['a.b'.rsplit('.'), {'k': 'c.d'.rsplit('.')}])",
    "[1, 2].index(2) + [1, 1].count(1) + 'aa'.count('a')",
    "{'a': 1}.copy()",
    *(
        f"dict({value})"
        for value in (
            *("[('a', 1), ('b', 2)]", "[['a', 1]]", "{'a': 1}, b=2", "a=1", "", "{'b': 1, 'a': 2}.items()"),
            *("{'b': 1, 'a': 2}|dictsort", "[('a', 1)], a=3", "['xy']"),
        )
    ),
    *(
        f"{WORDS}|sort{wishes}"
        for wishes in ("", "(true)", "(false, true)", "(true, true)", "(reverse=true)", "(case_sensitive=true)")
    ),
    *(
        f"{PEOPLE}|sort({wishes})"
        for wishes in ("attribute='n'", "true, false, 'n'", "attribute='m.x'", "attribute='n,m.x'", "true, true, 'n'")
    ),
    "[[2, 'b'], [1, 'a']]|sort(attribute=0)|list",
    "[3, 1, 2]|sort(true)|join",
    "{'b': 1, 'a': 2}|sort",
    *(
        f"{{'b': 1, 'A': 3, 'a': 2}}|dictsort({wishes})|map('join', ':')|join(',')"
        for wishes in ("", "true", "false, 'value'", "by='value', reverse=true", "reverse=true", "true, 'key', true")
    ),
    "['b', 'B', 'a']|unique|list ~ (['b', 'B', 'a']|unique(true)|list)",
    f"{PEOPLE}|unique(attribute='n')|map(attribute='n')|join",
    "'a' is sequence ~ ({} is sequence) ~ ([] is sequence) ~ (1 is sequence) ~ (none is iterable)",
]


@pytest.mark.parametrize("expression", thinned({expression: expression for expression in EXPRESSIONS}))
def test_expression_renders_as_in_transformers(expression: str) -> None:
    source = f"[{{{{ {expression} }}}}]\n{{% set x = {expression} %}}\n{{% if {expression} %}}{{{{ x }}}}{{% endif %}}"
    assert rendered(source) == expected(source)


REFUSED = [
    ("{}|tojson(colour=1)", "unexpected keyword argument 'colour'"),
    ("{}|tojson(separators=[1])", "list index out of range"),
    (f"[1]|tojson(indent={MAX_WIDTH + 1})", "indents by at most 1000"),
    ("'a'.rsplit('')", "empty separator"),
    ("(5).rsplit('')", "int has no method named rsplit"),
    ("'a'.rsplit('.', 1, 2)", "rsplit"),
    ("'a'.ljust(10 ** 12)", "at most 1000 characters"),
    ("'a'.ljust(width=10 ** 12)", "keyword"),
    ("_method('a', 'format', 1)", "str has no method named format"),
    ("_method('a', '__class__')", "str has no method named __class__"),
    ("[messages]|sort(attribute='0.__class__')|sort(attribute='__class__.mro')|join", None),
    ("[1, 'a']|sort", "'<' not supported"),
    ("{}|dictsort(by='x')", "dictsort takes"),
    ("dict([1])", "object is not iterable" if sys.version_info >= (3, 14) else "cannot convert dictionary"),
    ("messages[0].items.get('x')", "has no attribute 'get'"),  # GigaChat3, if a list has no type of items
]


@pytest.mark.parametrize(("expression", "sentence"), REFUSED)
def test_expression_that_python_rejects_raises_template_error(expression: str, sentence: str | None) -> None:
    if sentence is None:
        assert "class" not in rendered(f"{{{{ {expression} }}}}.")
        return
    with pytest.raises(TemplateError, match="refuses this conversation") as caught:
        rendered(f"{{{{ {expression} }}}}")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("{{ a.b }} .rsplit('x')", "{{ a.b }} .rsplit('x')"),
        ("{{ a.b['c'].rsplit('x') }}", "{{ _method(a.b['c'], \"rsplit\", 'x') }}"),
        ("{# a.rsplit() #}{{ '.rsplit(' }}", "{# a.rsplit() #}{{ '.rsplit(' }}"),
        ("{% raw %}{{ a.rsplit() }}{% endraw %}", "{% raw %}{{ a.rsplit() }}{% endraw %}"),
        ("{{ a.split('x') }}{{ a.rsplit", "{{ a.split('x') }}{{ a.rsplit"),
        ("{{ a . rsplit ( x ) -}}", '{{ _method(a , "rsplit",  x ) -}}'),
    ],
)
def test_with_methods_rewrites_calls_inside_tags_only(source: str, written: str) -> None:
    assert with_methods(source) == written


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("{%- set _ = n.ids.append('a(' ~ x) -%}", "{%- set n.ids = n.ids + ['a(' ~ x] -%}"),
        ("{% do n.ids.append(x % 2) %}", "{% set n.ids = n.ids + [x % 2] %}"),
        ("{%- set id = n.ids.pop(0) -%}", "{%- set id = n.ids|first -%}{% set n.ids = n.ids[1:] -%}"),
        ("{% set _ = ids.append(1) %}", "{% set _ = ids.append(1) %}"),  # a loop would lose its own variable
        ("{{ n.ids.append }}", "{{ n.ids.append }}"),
    ],
)
def test_readable_template_changes_lists_in_namespaces(source: str, written: str) -> None:
    assert readable(source) == written
