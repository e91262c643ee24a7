"""Text in Markdown."""

from hypothesis import given
from hypothesis import strategies as st

from cbir.app.cards import as_markdown


@given(st.text(st.characters(max_codepoint=126, min_codepoint=33), max_size=30))
def test_each_mark_is_escaped_in_markdown(text: str) -> None:
    markdown = as_markdown(text)
    assert markdown.replace("\u2060", "").replace("\\\\", "\0").replace("\\", "").replace("\0", "\\") == text
    for place, character in enumerate(markdown):
        if not character.isalnum() and character not in "\\\u2060":
            assert markdown[place - 1] == "\\"
