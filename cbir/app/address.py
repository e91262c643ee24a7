"""The page's address, which holds the search so that it can be shared: ?q=a+red+star&encoder=clip_demo&k=20&exact=1&label=...

q : a text query.  like : the image_id of a gallery-image query.  add, not : words to add to it and to leave out.
with : further encoders, shown side by side; may be repeated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cbir.core.text import nearest

DEFAULT_K, MAX_K = 20, 100
MAX_SIDE_BY_SIDE = 4  # encoders; more columns are too narrow
MAX_TEXT_CHARACTERS = 1000  # encoders read the first few dozen words
_NAMES = ("q", "like", "add", "not", "encoder", "with", "k", "exact", "label")
_MAX_QUOTED_CHARACTERS = 60


@dataclass(frozen=True)
class SearchState:
    """A search as the address describes it.

    text, like : at most one of the two; neither if an image was uploaded or there is no query yet.
    beside : further encoders, whose results are shown side by side with the encoder's.
    add, without : words to add to the query, and to leave out.
    """

    encoder: str
    k: int
    text: str | None = None
    like: str | None = None
    exact: bool = False
    labels: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    add: str | None = None
    without: str | None = None


@dataclass(frozen=True)
class Choices:
    """The valid values of a search.  encoders : the first is the default.  labels : label -> display name."""

    encoders: Sequence[str]
    labels: Mapping[str, str]
    max_k: int

    @classmethod
    def of(cls, encoders: Sequence[str], labels: Mapping[str, str], size: int) -> "Choices":
        """size : of the gallery."""
        return cls(encoders, labels, min(MAX_K, size))

    @property
    def default(self) -> SearchState:
        """The search that an empty address describes."""
        return SearchState(self.encoders[0], min(DEFAULT_K, self.max_k))


def read_address(values: Mapping[str, Sequence[str]], choices: Choices) -> tuple[SearchState, list[str]]:
    """The search that an address describes, and a message for each invalid value, which the default replaces.

    values : name -> its values in order, as in a query string.
    """
    default = choices.default
    messages = [f"Page address: there is no parameter {_quoted(name)}." for name in values if name not in _NAMES]
    single = {name: given[-1] for name, given in values.items() if given and name not in ("label", "with")}
    like = single.get("like") or None
    texts = {name: single.get(name, "").strip() or None for name in ("q", "add", "not")}
    if texts["q"] and like:
        messages.append("Page address: expected q or like, found both; using q.")
        like = None
    for name, text in texts.items():
        if text and len(text) > MAX_TEXT_CHARACTERS:
            messages.append(
                f"Page address, {name}: expected at most {MAX_TEXT_CHARACTERS:,} characters, found {len(text):,}; ignoring it."
            )
            texts[name] = None
    for name in ("add", "not"):
        if texts[name] and not texts["q"] and not like:
            messages.append(f"Page address, {name}: expected q or like beside it, found neither; ignoring it.")
            texts[name] = None
    encoder = single.get("encoder", default.encoder)
    if encoder not in choices.encoders:
        messages.append(
            f"Page address, encoder: expected {' or '.join(choices.encoders)}, found {_quoted(encoder)}; "
            f"using {default.encoder}."
        )
        encoder = default.encoder
    k = _parse_k(single.get("k", str(default.k)))
    if not 1 <= k <= choices.max_k:
        messages.append(
            f"Page address, k: expected a number from 1 to {choices.max_k}, found {_quoted(single.get('k', ''))}; "
            f"using {default.k}."
        )
        k = default.k
    labels = tuple(dict.fromkeys(label for label in values.get("label", ()) if label in choices.labels))
    messages += [
        f"Page address, label: the gallery has no {_quoted(label)}; {nearest(label, choices.labels)}."
        for label in values.get("label", ())
        if label not in choices.labels
    ]
    if single.get("exact", "0") not in ("0", "1"):
        messages.append(f"Page address, exact: expected 0 or 1, found {_quoted(single['exact'])}; using 0.")
    beside = tuple(
        dict.fromkeys(name for name in values.get("with", ()) if name in choices.encoders and name != encoder)
    )
    messages += [
        f"Page address, with: the run has no encoder {_quoted(name)}; {nearest(name, choices.encoders)}."
        for name in values.get("with", ())
        if name not in choices.encoders
    ]
    if len(beside) >= MAX_SIDE_BY_SIDE:
        messages.append(f"Page address, with: expected at most {MAX_SIDE_BY_SIDE - 1} encoders, found {len(beside)}.")
        beside = beside[: MAX_SIDE_BY_SIDE - 1]
    is_exact = single.get("exact", "0") == "1"
    return SearchState(encoder, k, texts["q"], like, is_exact, labels, beside, texts["add"], texts["not"]), messages


def write_address(search: SearchState, choices: Choices) -> dict[str, str | list[str]]:
    """name -> value of the query string that `read_address` reads as `search`; defaults are left out."""
    default, values = choices.default, dict[str, str | list[str]]()
    if search.text:
        values["q"] = search.text
    if search.like:
        values["like"] = search.like
    if search.text or search.like:  # what refines an uploaded image is of no use without it
        values |= {name: words for name, words in (("add", search.add), ("not", search.without)) if words}
    if search.encoder != default.encoder:
        values["encoder"] = search.encoder
    if search.k != default.k:
        values["k"] = str(search.k)
    if search.labels:
        values["label"] = list(search.labels)
    if search.beside:
        values["with"] = list(search.beside)
    return values | ({"exact": "1"} if search.exact else {})


def _parse_k(text: str) -> int:
    """The number that a few digits spell; 0, which is no valid k, for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0


def _quoted(value: str) -> str:
    return repr(value if len(value) <= _MAX_QUOTED_CHARACTERS else f"{value[:_MAX_QUOTED_CHARACTERS]}...")
