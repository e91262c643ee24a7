"""A reader of Markdown that sees what a Markdown viewer shows."""

import itertools

from markdown_it import MarkdownIt
from markdown_it.rules_block.table import escapedSplit
from markdown_it.token import Token


def parsed(page: str) -> list[Token]:
    """Return the tokens of the page, after checking it: no raw HTML, no ragged table, no stray white space."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(page)
    inner = [child for token in tokens for child in token.children or []]
    for token in (*tokens, *inner):
        assert token.type not in ("html_block", "html_inline", "link_open", "image", "s_open"), token
    lines = page.split("\n")
    for token in tokens:
        if token.type == "table_open" and token.map:
            rows = lines[slice(*token.map)]
            # Readers cut or fill a row that has more or fewer cells than its header, so count in the text itself.
            counts = {len(escapedSplit(row.strip()[1:-1])) for row in rows}
            assert len(counts) == 1, rows
            assert all(row.startswith(("| ", "|---")) for row in rows), rows
    n_tables = sum(line.startswith("|---") for line in lines)
    assert [token.type for token in tokens].count("table_open") == n_tables  # none was taken for a paragraph
    assert not [line for line in lines if line != line.rstrip()]
    assert "\n\n\n" not in page
    assert page.endswith("\n")
    return tokens


def text_of(inline: Token) -> str:
    """Return the text of an inline token, without its markup."""
    return "".join(child.content for child in inline.children or [])


def tables(page: str) -> list[list[list[str]]]:
    """Return the tables of the page, each as rows of the text of its cells, header first."""
    rows_of_tables: list[list[list[str]]] = []
    tokens = parsed(page)
    for token, after in itertools.pairwise(tokens):
        if token.type == "table_open":
            rows_of_tables.append([])
        elif token.type == "tr_open":
            rows_of_tables[-1].append([])
        elif token.type in ("th_open", "td_open"):
            rows_of_tables[-1][-1].append(text_of(after))
    return rows_of_tables
