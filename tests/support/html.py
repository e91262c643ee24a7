"""A reader of HTML that fails on each tag that browsers would have to repair, and the text that a page should show."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any


def displayed(text: Any, most: int = 200) -> str:
    """Return what a reader should see of a text from data: one line, cut, without invisible characters."""
    line = " ".join(str(text).split())
    line = line if len(line) <= most else line[: most - 1] + "…"
    return "".join(c if c.isprintable() else f"U+{ord(c):04X}" for c in line)


_VOID = {"meta", "img", "input", "br", "hr", "link", "source", "col", "area", "base", "embed", "track", "wbr"}
# the open elements that a start tag ends
_ENDS = {
    "li": {"li"},
    "option": {"option"},
    "dt": {"dt", "dd"},
    "dd": {"dt", "dd"},
    "td": {"td", "th"},
    "th": {"td", "th"},
    "tr": {"td", "th", "tr"},
}
_MAY_STAY_OPEN = {"li", "option", "dt", "dd", "td", "th", "tr"}
_BLOCKS = {
    "p",
    "div",
    "table",
    "ul",
    "ol",
    "dl",
    "figure",
    "form",
    "section",
    "article",
    "h1",
    "h2",
    "h3",
    "h4",
    "details",
}


@dataclass
class Element:
    """An element with its child elements and texts."""

    tag: str
    attributes: dict[str, str]
    inside: list["Element | str"] = field(default_factory=list)

    def walk(self) -> Iterator["Element"]:
        """Yield this element and all below it, in the order of the page."""
        yield self
        for child in self.inside:
            if isinstance(child, Element):
                yield from child.walk()

    def all(self, *tags: str) -> list["Element"]:
        """Return the elements below it with one of these tags."""
        return [element for element in self.walk() if element is not self and element.tag in tags]

    @property
    def classes(self) -> list[str]:
        return self.attributes.get("class", "").split()

    @property
    def raw(self) -> str:
        """The text with its white space."""
        return "".join(child if isinstance(child, str) else child.raw for child in self.inside)

    @property
    def text(self) -> str:
        """The text as a browser shows it, with single spaces."""
        return " ".join(self.raw.split())


class _Reader(HTMLParser):
    """Builds the tree, and fails on a tag that is not closed or closes nothing."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        while self.open[-1].tag in _ENDS.get(tag, ()):
            self.open.pop()
        assert not (tag in _BLOCKS and self.open[-1].tag == "p"), f"<{tag}> would end the paragraph before it"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].inside.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert any(element.tag == "svg" for element in self.open), f"<{tag}/> closes nothing in HTML"
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        while self.open[-1].tag in _MAY_STAY_OPEN and self.open[-1].tag != tag:
            self.open.pop()
        assert self.open[-1].tag == tag, f"</{tag}> inside <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].inside.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data[:80]}")

    def handle_decl(self, decl: str) -> None:
        assert decl == "doctype html"

    def handle_pi(self, data: str) -> None:
        raise AssertionError(f"a processing instruction: {data[:80]}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data[:80]}")


def read(page: str) -> Element:
    """Return the page as a tree."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert [element.tag for element in reader.open] == [""], [element.tag for element in reader.open]
    (html,) = (child for child in reader.open[0].inside if isinstance(child, Element))
    return html


def structure(tree: Element) -> list[tuple[str, ...]]:
    """Return tag and attribute names of all elements outside charts, whose ticks depend on the widths of texts."""
    tags = [(tree.tag, *sorted(tree.attributes))]
    if "chart" not in tree.classes:
        for child in tree.inside:
            if isinstance(child, Element):
                tags += structure(child)
    return tags
