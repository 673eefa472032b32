"""Summaries of reasoning: extracts of the text."""

import pytest

from server.stream.reasoning_summary import summary_parts

TEXT = "Okay. So they ask for the sum. It is 1.5 plus 2.\n\n1. Add the numbers! Then check.\n\n\n Done"


@pytest.mark.parametrize(
    ("text", "concise", "detailed"),
    [
        ("", [], []),
        ("\n\n \n\n", [], []),
        ("Yes", ["Yes"], ["Yes"]),
        (
            TEXT,
            ["Okay. So they ask for the sum.", "1. Add the numbers!", "Done"],
            ["Okay. So they ask for the sum. It is 1.5 plus 2.", "1. Add the numbers! Then check.", "Done"],
        ),
        ("It is version 1.5 now. Good.", ["It is version 1.5 now."], ["It is version 1.5 now. Good."]),
        ('He said "it is so." Then more.', ['He said "it is so."'], ['He said "it is so." Then more.']),
        ("**Add the numbers**\nFirst two.", ["**Add the numbers**"], ["**Add the numbers**\nFirst two."]),
        ("\u597d\u7684\u3002\u7136\u540e\u3002", ["\u597d\u7684\u3002"], ["\u597d\u7684\u3002\u7136\u540e\u3002"]),
        ("No. No. No. Never.", ["No. No. No."], ["No. No. No. Never."]),
    ],
)
def test_summary_has_first_sentences_or_all_paragraphs(text: str, concise: list[str], detailed: list[str]) -> None:
    assert (summary_parts(text, "concise"), summary_parts(text, "detailed")) == (concise, detailed)


def test_summary_of_another_kind_has_no_parts() -> None:
    assert (summary_parts(TEXT, None), summary_parts(TEXT, "auto")) == ([], [])
