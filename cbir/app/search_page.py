"""The page Search: a text, an image or a gallery image in, ranked images out.  All searching is `Searcher`'s.

st.session_state holds, of each user: query, the address that the page wrote last, sentences to be told, and the controls.
"""

from dataclasses import dataclass, replace

import streamlit as st

from cbir.app.address import MOST_CHARACTERS, SearchState, read_address, write_address
from cbir.app.cards import as_markdown, card_html, categories_html, encoder_name, picture_html
from cbir.app.serving import MAX_UPLOAD_MB
from cbir.app.state import CardImage, GalleryView
from cbir.app.url_image import fetch_image
from cbir.core.errors import CbirError
from cbir.core.text import printable
from cbir.search.searcher import EXACT, Part, Results

AWAY = "away"  # set by the other pages
_TYPES = ["jpg", "jpeg", "png", "gif", "webp", "bmp", "tif", "tiff"]  # what cbir.datasets.decoding decodes
_EXAMPLES = 6
_CARD_COLUMN_PX = 130
_EXPLANATION = """
The score is the **cosine similarity** of two embeddings, the query's and the image's: 1 where they point the same way, 0 where
they have nothing in common. A higher score is a nearer image.

- Compare scores **within one query and one encoder** only. Each encoder spreads its embeddings in its own way: what is near for
  one may be far for the other.
- CLIP keeps texts and images apart: a text and the image that fits it best often score low (0.2 to 0.35 with weights trained
  on photographs), where two similar images reach 0.8. The order counts, not the height.
- The **distance** of a category is 1 minus the cosine similarity of the query to the mean embedding of the class's images: a
  lower one is nearer.
"""


@dataclass(frozen=True)
class Query:
    """What is searched for: one of the three.  name : of an image, as its owner calls it."""

    text: str | None = None
    like: str | None = None
    image: bytes | None = None
    name: str = ""


def show(gallery: GalleryView, urls: bool) -> None:
    """urls : whether images may be fetched from pasted addresses."""
    _follow_address(gallery)
    st.title("Search")
    _ask(gallery, urls)
    asked = _choose(gallery)
    _write_address(asked, gallery)
    if told := st.session_state.pop("told", []):
        _warn(*told)
    if _query() is None:
        _offer_examples(gallery)
    else:
        _answer(gallery, asked)
    with st.expander("What do score and distance mean?", icon=":material/help:"):
        st.markdown(_EXPLANATION)


def _query() -> Query | None:
    found: Query | None = st.session_state.get("query")
    return found


def _tell(sentence: str) -> None:
    """To be shown when the page is drawn next, once."""
    st.session_state.setdefault("told", []).append(sentence)


def _warn(*sentences: str) -> None:
    whole = [as_markdown(one[:1].upper() + one[1:].rstrip(".") + ".") for one in sentences]
    st.warning("\n\n".join(whole), icon=":material/info:")


# ---- the address


def _address() -> dict[str, list[str]]:
    return {name: st.query_params.get_all(name) for name in st.query_params}


def _follow_address(gallery: GalleryView) -> None:
    """Set query and controls by the address where it is not what we wrote: a link was opened, or the browser went back."""
    state, found = st.session_state, _address()
    away = state.pop(AWAY, False)
    if away and not found and "address" in state:  # back from another page, by the menu: all as it was left
        _set_controls(read_address(state["address"], gallery.offer)[0])
        return
    if found == state.get("address") and not away:
        return
    asked, told = read_address(found, gallery.offer)
    for sentence in told:
        _tell(sentence)
    state["query"] = Query(asked.text, asked.like) if asked.text or asked.like else None
    _set_controls(asked)


def _set_controls(asked: SearchState) -> None:
    for name in ("encoder", "k", "exact", "both"):
        st.session_state[name] = getattr(asked, name)
    st.session_state["labels"] = list(asked.labels)
    st.session_state["text"] = asked.text or ""


def _write_address(asked: SearchState, gallery: GalleryView) -> None:
    """Make the address say what is shown, so that it can be mailed."""
    written = write_address(asked, gallery.offer)
    address = {name: [value] if isinstance(value, str) else value for name, value in written.items()}
    if address != _address():
        st.query_params.from_dict(written)
    st.session_state["address"] = address


# ---- what is asked


def _ask(gallery: GalleryView, urls: bool) -> None:
    text, image = st.columns(2, gap="medium")
    with (
        text,
        st.form("text form", border=False),
        st.container(horizontal=True, vertical_alignment="bottom", gap="small"),
    ):
        st.text_input("Search by text", key="text", max_chars=MOST_CHARACTERS, placeholder="what an image shows")
        st.form_submit_button("Search", type="primary", icon=":material/search:", on_click=_search_text)
    with image:
        name = f"upload {st.session_state.get('uploads', 0)}"
        st.file_uploader(
            "Search by image",
            type=_TYPES,
            key=name,
            max_upload_size=MAX_UPLOAD_MB,
            on_change=_search_upload,
            args=(gallery, name),
        )
        if urls:
            with (
                st.form("url form", border=False),
                st.container(horizontal=True, vertical_alignment="bottom", gap="small"),
            ):
                st.text_input("Search by an image's address", key="url", placeholder="https://...", type="url")
                st.form_submit_button("Fetch", icon=":material/download:", on_click=_search_url, args=(gallery,))


def _search(query: Query) -> None:
    st.session_state["query"] = query
    st.session_state["text"] = query.text or ""


def _search_text() -> None:
    text = " ".join(st.session_state["text"].split())
    if text:
        _search(Query(text=text))
    else:
        _tell("Nothing to search for: type a few words, or choose an image.")


def _search_upload(gallery: GalleryView, name: str) -> None:
    file = st.session_state[name]
    if file is None:
        return
    # The next uploader is a new one, and empty: so Streamlit lets go of the file, of which we keep what is searched for.
    st.session_state["uploads"] = st.session_state.get("uploads", 0) + 1
    _search_image(gallery, file.getvalue(), file.name)


def _search_url(gallery: GalleryView) -> None:
    url = st.session_state["url"].strip()
    try:
        data = fetch_image(url, max_bytes=MAX_UPLOAD_MB << 20)
    except CbirError as error:
        _tell(str(error))
    else:
        _search_image(gallery, data, url)


def _search_image(gallery: GalleryView, data: bytes, name: str) -> None:
    try:
        packed = gallery.searcher.picture_of(Part(image=data))
    except CbirError as error:
        _tell(f"'{printable(name)}': {error}")
    else:
        _search(Query(image=packed, name=name))


def _search_like(image_id: str) -> None:
    _search(Query(like=image_id))


def _search_example(text: str) -> None:
    _search(Query(text=text))


def _choose(gallery: GalleryView) -> SearchState:
    """The controls, and what they say together with the query."""
    offer, state = gallery.offer, st.session_state
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        st.segmented_control("Encoder", offer.encoders, key="encoder", format_func=encoder_name, required=True)
        st.number_input("Results", 1, offer.most_k, key="k", width=130)
        if offer.labels:
            st.multiselect(
                "Only these classes",
                list(offer.labels),
                key="labels",
                format_func=lambda label: offer.labels[label],
                placeholder="all",
                width=260,
            )
        with st.container(horizontal=True, width="content", gap="small"):
            st.toggle("Exact search", key="exact", help="Compare with every image, in place of asking the index.")
            if len(offer.encoders) > 1:
                st.toggle("Encoders side by side", key="both")
    query = _query() or Query()
    both = bool(state.get("both"))
    labels = tuple(state.get("labels", ()))
    encoder = state["encoder"] or offer.default.encoder
    return SearchState(encoder, int(state["k"]), query.text, query.like, bool(state["exact"]), labels, both)


def _offer_examples(gallery: GalleryView) -> None:
    """What to do on an empty page: a few classes and images of the gallery."""
    searcher = gallery.searcher
    classes = "" if not searcher.labels else f" of {len(searcher.labels):,} classes"
    st.markdown(
        f"The gallery holds **{searcher.size:,} images**{classes}. Search it by words or by an image, or begin with:"
    )
    names = list(dict.fromkeys(searcher.labels.values()))
    with st.container(horizontal=True):
        for name in names[:: max(1, len(names) // _EXAMPLES)][:_EXAMPLES]:
            st.button(as_markdown(printable(name)), key=f"example {name}", on_click=_search_example, args=(name,))
    with st.grid(min_column_width=_CARD_COLUMN_PX, gap="small"):
        for image_id in searcher.sample(_EXAMPLES):
            with st.container(gap="xsmall"):
                st.html(picture_html(gallery.thumbnail(image_id), searcher.label_of(image_id) or image_id))
                _like_button("example", image_id)


def _like_button(where: str, image_id: str) -> None:
    st.button(
        "More like this", key=f"like {where} {image_id}", type="tertiary", on_click=_search_like, args=(image_id,)
    )


# ---- what is found


def _answer(gallery: GalleryView, asked: SearchState) -> None:
    query = _query() or Query()
    try:
        _show_query(gallery, query)
    except CbirError as error:  # a link to an image that the gallery has no more
        _warn(str(error))
        st.session_state["query"] = None
        _offer_examples(gallery)
        return
    if not asked.both:
        _show_results(gallery, query, asked)
        return
    for column, encoder in zip(
        st.columns(len(gallery.offer.encoders), gap="large"), gallery.offer.encoders, strict=True
    ):
        with column:
            st.subheader(encoder_name(encoder))
            _show_results(gallery, query, replace(asked, encoder=encoder))


def _show_query(gallery: GalleryView, query: Query) -> None:
    if query.image is not None:
        st.html(picture_html(CardImage.of(query.image), f"Images like {query.name}"))
    elif query.like is not None:
        name = gallery.searcher.label_of(query.like) or query.like
        st.html(picture_html(gallery.thumbnail(query.like), f"Images like this one: {name}"))


def _show_results(gallery: GalleryView, query: Query, asked: SearchState) -> None:
    part = Part(text=query.text, image=query.image, image_id=query.like)
    try:
        found = gallery.searcher.search([part], asked.k, encoder=asked.encoder, exact=asked.exact, labels=asked.labels)
    except CbirError as error:
        _warn(str(error))
        return
    st.caption(_told_briefly(found, asked))
    if found.categories:
        st.markdown("**Similar categories**, with their distance")
        st.html(categories_html(found.categories))
    with st.grid(min_column_width=_CARD_COLUMN_PX, gap="small"):
        for hit in found:
            with st.container(gap="xsmall"):
                st.html(card_html(hit, gallery.thumbnail(hit.image_id)))
                _like_button(asked.encoder, hit.image_id)


def _told_briefly(found: Results, asked: SearchState) -> str:
    images = "1 image" if len(found) == 1 else f"{len(found):,} images"
    by = "exact search" if found.by == EXACT else f"its {found.by} index"
    fewer = " (its classes have no more)" if asked.labels and len(found) < asked.k else ""
    return (
        f"{images}{fewer}, found by {encoder_name(found.encoder)} and {by}: "
        f"{found.encode_ms:,.0f} ms for the query, {found.search_ms:,.1f} ms to search."
    )
