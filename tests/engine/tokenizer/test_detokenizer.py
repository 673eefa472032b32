"""`engine.tokenizer.detokenizer` against a reference that sees the whole answer at once."""

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.tokenizer.detokenizer import Detokenizer, StopStrings

# Every beginning of a character with several bytes. The last byte runs through 64 code points. Python waits
# for the last byte of a surrogate too, before it refuses all three.
PREFIXES = frozenset(
    letter[:n]
    for code in range(0x80, 0x110000, 64)
    for letter in [chr(code).encode(errors="surrogatepass")]
    for n in range(1, len(letter))
)


def play(parts: Iterable[bytes], stops: Sequence[str] = ()) -> list[str]:
    """Return the text after each part, and the text at the end."""
    decoder, watch = Detokenizer(), StopStrings(stops)
    return [*(watch.feed(decoder.feed(part)) for part in parts), watch.flush()]


def bytewise(data: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in data]


def reference(data: bytes, stops: Sequence[str]) -> tuple[str, bool]:
    """Return the text before the stop string that is complete first (the longest of several), and whether there is
    one."""
    tail = next((tail for n in (3, 2, 1) if (tail := data[-n:]) in PREFIXES), b"")
    text = data.removesuffix(tail).decode(errors="replace")
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if stop and text[:end].endswith(stop)]
        if ending:
            return text[: end - len(max(ending, key=len))], True
    return text, False


@pytest.mark.parametrize(
    ("parts", "shown"),
    [
        ([b"Hello", b" world"], ["Hello", " world", ""]),
        ([b"", b"a", b""], ["", "a", "", ""]),
        (bytewise("日本".encode()), ["", "", "日", "", "", "本", ""]),
        ([b"\xe6\x97", b"\xa5\xe6", b"\x9c\xac!"], ["", "日", "本!", ""]),
        # A person waving, with a skin tone: two characters, each of them whole.
        (["👋🏽".encode()[:3], "👋🏽".encode()[3:6], "👋🏽".encode()[6:]], ["", "👋", "🏽", ""]),
        (bytewise("e\u0301".encode()), ["e", "", "\u0301", ""]),  # a combining accent
        (bytewise("🇫🇷".encode()), ["", "", "", "🇫", "", "", "", "🇷", ""]),
        (["👩\u200d💻".encode()[:5], "👩\u200d💻".encode()[5:]], ["👩", "\u200d💻", ""]),
    ],
)
def test_detokenizer_emits_a_character_once_it_is_complete(parts: list[bytes], shown: list[str]) -> None:
    assert play(parts) == shown


@pytest.mark.parametrize(
    ("parts", "shown"),
    [
        ([b"a\xffb"], ["a\ufffdb", ""]),
        ([b"\x80\x80"], ["\ufffd\ufffd", ""]),
        ([b"\xe6\x97", b"x"], ["", "\ufffdx", ""]),
        ([b"\xf0\x9f", b"\x91", b"a"], ["", "", "\ufffda", ""]),
        ([b"\xed\xa0\x80"], ["\ufffd\ufffd\ufffd", ""]),  # half of a UTF-16 pair
        ([b"\xc0\xaf"], ["\ufffd\ufffd", ""]),  # an overlong slash
        ([b"\xf4\x90\x80\x80"], ["\ufffd\ufffd\ufffd\ufffd", ""]),  # behind the last code point
        ([b"ok\xe6\x97"], ["ok", ""]),  # cut off by the end: dropped
        ([b"ok", b"\xf0\x9f\x91"], ["ok", "", ""]),
        ([b"ok\xed\xa0"], ["ok", ""]),
    ],
)
def test_detokenizer_replaces_invalid_utf8_and_drops_a_cut_off_tail(parts: list[bytes], shown: list[str]) -> None:
    assert play(parts) == shown


@pytest.mark.parametrize(
    ("parts", "stops", "shown"),
    [
        ([b"one STOP two"], ["STOP"], ["one ", ""]),
        ([b"one ST", b"OP two", b"three"], ["STOP"], ["one ", "", "", ""]),
        (bytewise(b"aSTOPb"), ["STOP"], ["a", "", "", "", "", "", ""]),
        ([b"ST", b"AND"], ["STOP"], ["", "STAND", ""]),
        ([b"a ST"], ["STOP"], ["a ", "ST"]),  # the end shows that there was none
        ([b"aab", b"aac"], ["aac"], ["aab", "", ""]),
        ([b"aaa", b"b"], ["aab"], ["a", "", ""]),  # the beginning overlaps itself
        ([b"abcd"], ["bcd", "c"], ["ab", ""]),  # "c" is complete first
        ([b"ab", b"cd"], ["bcd", "c"], ["a", "b", ""]),
        ([b"abc"], ["c", "bc"], ["a", ""]),  # both at once: the longer one
        ([b"x\n", b"\ny"], ["\n\n"], ["x", "", ""]),
        (["…日".encode()[:4], "…日".encode()[4:] + b"!"], ["日"], ["…", "", ""]),  # arrives in halves
        (["a日".encode()[:2], "a日".encode()[2:], "本".encode()], ["日本"], ["a", "", "", ""]),
        ([b"a\xff", b"b"], ["\ufffdb"], ["a", "", ""]),
        ([b"anything"], ["", ""], ["anything", ""]),
    ],
)
def test_stop_string_cuts_the_text_before_itself(parts: list[bytes], stops: list[str], shown: list[str]) -> None:
    assert play(parts, stops) == shown


@pytest.mark.parametrize(
    ("text", "stops", "matched"),
    [
        ("b!c", ["!"], "!"),
        ("bc", ["!"], None),
        ("abcd", ["bcd", "c"], "c"),
        ("abc", ["c", "bc"], "bc"),
        ("a\n\n", ["\n\n"], "\n\n"),
        ("a", [""], None),
    ],
)
def test_stop_strings_report_the_one_that_matched(text: str, stops: list[str], matched: str | None) -> None:
    watch = StopStrings(stops)
    watch.feed(text)
    assert watch.matched == matched
    assert matched is None or (watch.feed("d"), watch.flush(), watch.matched) == ("", "", matched)


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    at = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


few = st.text("ab日👋", max_size=12)
answers = st.one_of(few.map(str.encode), st.text(max_size=12).map(str.encode), st.binary(max_size=12))
stop_lists = st.lists(st.one_of(st.text("ab日👋\ufffd", max_size=4), st.text(max_size=2)), max_size=3)


@given(st.data(), answers, stop_lists)
@example(None, "a👋".encode()[:-1], ["👋"])
def test_stop_strings_of_any_split_emit_the_text_of_the_whole(
    data: st.DataObject | None, answer: bytes, stops: list[str]
) -> None:
    parts = bytewise(answer) if data is None else data.draw(cuts(answer))
    decoder, watch = Detokenizer(), StopStrings(stops)
    shown = "".join([*(watch.feed(decoder.feed(part)) for part in parts), watch.flush()])
    assert (shown, watch.matched is not None) == reference(answer, stops)


@given(answers, stop_lists)
def test_stop_strings_never_retract_emitted_text(answer: bytes, stops: list[str]) -> None:
    """After each byte, the delayed text may still become a stop string, and no more than necessary is delayed."""
    decoder, watch = Detokenizer(), StopStrings(stops)
    shown = ""
    for n in range(1, len(answer) + 1):
        shown += watch.feed(decoder.feed(answer[n - 1 : n]))
        whole, stopped = reference(answer[:n], stops)
        pending = whole.removeprefix(shown)
        assert shown + pending == whole
        assert not pending or not stopped
        assert not pending or any(stop.startswith(pending) for stop in stops)
