"""What stands in the page's address, so that a search can be mailed: ?q=a+red+star&encoder=clip&k=20&exact=1&label=...

q : a text, or like : the image_id of a gallery image.  both=1 : both encoders side by side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cbir.core.params import nearest

K, MOST_K = 20, 100
MOST_CHARACTERS = 1000  # of a text; encoders read the first few dozen words
_NAMES = ("q", "like", "encoder", "k", "exact", "label", "both")
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class SearchState:
    """A search as its address tells it.

    text, like : at most one of the two; neither where an image was uploaded, or nothing asked yet.
    """

    encoder: str
    k: int
    text: str | None = None
    like: str | None = None
    exact: bool = False
    labels: tuple[str, ...] = ()
    both: bool = False


@dataclass(frozen=True)
class Offer:
    """What can be asked for.  encoders : the first is the default.  most_k : the largest k."""

    encoders: Sequence[str]
    labels: Mapping[str, str]
    most_k: int

    @classmethod
    def of(cls, encoders: Sequence[str], labels: Mapping[str, str], size: int) -> "Offer":
        """clip first, which reads images and texts.  size : of the gallery; a query's own image is never found."""
        return cls(sorted(encoders, key=lambda name: name != "clip"), labels, max(1, min(MOST_K, size - 1)))

    @property
    def default(self) -> SearchState:
        return SearchState(self.encoders[0], min(K, self.most_k))


def read_address(values: Mapping[str, Sequence[str]], offer: Offer) -> tuple[SearchState, list[str]]:
    """What an address asks for, and a sentence on each value that is wrong, for which the default stands.

    values : name -> its values, in order, as a query string has them.
    """
    default, told = (
        offer.default,
        [f"The address has an unknown {_short(name)}." for name in values if name not in _NAMES],
    )
    single = {name: found[-1] for name, found in values.items() if found and name != "label"}
    text, like = single.get("q", "").strip() or None, single.get("like") or None
    if text and like:
        told.append("The address has both q and like: q is searched for.")
        like = None
    if text and len(text) > MOST_CHARACTERS:
        told.append(f"The address's q: expected at most {MOST_CHARACTERS:,} characters, found {len(text):,}.")
        text = None
    encoder = single.get("encoder", default.encoder)
    if encoder not in offer.encoders:
        told.append(
            f"The address's encoder: expected {' or '.join(offer.encoders)}, found {_short(encoder)}; "
            f"{default.encoder} is used."
        )
        encoder = default.encoder
    k = _number(single.get("k", str(default.k)))
    if not 1 <= k <= offer.most_k:
        told.append(
            f"The address's k: expected a number from 1 to {offer.most_k}, found {_short(single.get('k', ''))}; "
            f"{default.k} is used."
        )
        k = default.k
    labels = tuple(dict.fromkeys(label for label in values.get("label", ()) if label in offer.labels))
    told += [
        f"The address's label: the gallery has no {_short(label)}; {nearest(label, offer.labels)}."
        for label in values.get("label", ())
        if label not in offer.labels
    ]
    flags = {}
    for name in ("exact", "both"):
        flags[name] = single.get(name, "0") == "1"
        if single.get(name, "0") not in ("0", "1"):
            told.append(f"The address's {name}: expected 0 or 1, found {_short(single[name])}; 0 is used.")
    return SearchState(encoder, k, text, like, flags["exact"], labels, flags["both"]), told


def write_address(asked: SearchState, offer: Offer) -> dict[str, str | list[str]]:
    """name -> value of a query string that `read_address` reads as `asked`; what is the default is left out."""
    default, written = offer.default, dict[str, str | list[str]]()
    if asked.text:
        written["q"] = asked.text
    if asked.like:
        written["like"] = asked.like
    if asked.encoder != default.encoder:
        written["encoder"] = asked.encoder
    if asked.k != default.k:
        written["k"] = str(asked.k)
    if asked.labels:
        written["label"] = list(asked.labels)
    return written | {name: "1" for name in ("exact", "both") if getattr(asked, name)}


def _number(text: str) -> int:
    """The number that a few digits spell; 0, which no k is, for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0


def _short(value: str) -> str:
    return repr(value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}...")
