"""The Search page: search by a text, an uploaded image or a gallery image, and show the ranked results.

st.session_state holds, for each user: the query, the address that the page wrote last, messages to show, and the controls.
"""

from dataclasses import replace

import streamlit as st

from cbir.app.address import MAX_SIDE_BY_SIDE, SearchState, read_address, write_address
from cbir.app.cards import as_markdown, captioned_html, categories_html, query_html, result_html
from cbir.app.messages import error_text, show_later, show_postponed, warn
from cbir.app.query import (
    TEXT_KEYS,
    PageQuery,
    can_read_images,
    can_read_text,
    current_query,
    remove_refinements,
    search_example,
    search_like,
    set_query,
    show_inputs,
    show_refinements,
)
from cbir.app.state import SharedGallery, card_image
from cbir.core.errors import CbirError, ConfigError
from cbir.core.text import printable
from cbir.encoders.demo import DEMO_NOTE
from cbir.search.results import EXACT, Hit, Results

LEFT = "left the search page"  # a key of the session state, set by the other pages
_CONTROLS = ("encoder", "k", "exact")  # fields of SearchState that are keys of controls
_EXAMPLES = 6
_CARD_COLUMN_PX = 130
_EXPLANATION = """
The score is the **cosine similarity** of the embeddings of query and image: 1 if they point in the same direction, 0 if they
have nothing in common. A higher score means a nearer image.

- Compare scores only **within one query and one encoder**. Each encoder spreads its embeddings differently, so a high score of
  one encoder may be a low score of another.
- Scores of text queries are low by nature. Encoders such as CLIP keep texts and images apart: a text and the image that fits
  it best often score only 0.2 to 0.35 (with weights trained on photographs), while two similar images reach 0.8. The order of
  the results matters, not the size of the scores.
- The **distance** of a category is 1 minus the cosine similarity of the query and the mean embedding of the class. A lower
  distance means a nearer category.
"""


def show(gallery: SharedGallery) -> None:
    """Show the page."""
    _apply_address(gallery)
    _send_controls()
    st.title("Search", anchor=False)
    show_inputs(gallery)
    search = _show_controls(gallery)
    _update_address(search, gallery)
    show_refinements(gallery)
    show_postponed()
    if query := current_query():
        _show_query_and_results(gallery, query, search)
    else:
        _show_examples(gallery)
    with st.expander("What do score and distance mean?", icon=":material/help:"):
        st.markdown(_EXPLANATION)


# ---- the address


def _current_address() -> dict[str, list[str]]:
    return {name: st.query_params.get_all(name) for name in st.query_params}


def _apply_address(gallery: SharedGallery) -> None:
    """Set query and controls from an address that the page did not write: the user opened a link or went back."""
    state, address = st.session_state, _current_address()
    left, known = state.pop(LEFT, False), state.get("address")
    if left and known is not None and address in ({}, known):  # the user returns by the menu or by Back
        set_query(current_query())
        _set_controls(read_address(known, gallery.choices)[0])
        return
    if address == known:
        return
    search, messages = read_address(address, gallery.choices)
    for message in messages:
        show_later(message)
    set_query(PageQuery.of(search))
    _set_controls(search)


def _set_controls(search: SearchState) -> None:
    for name in _CONTROLS:
        st.session_state[name] = getattr(search, name)
    st.session_state["labels"], st.session_state["beside"] = list(search.labels), list(search.beside)


def _send_controls() -> None:
    """Send each control with its value: Streamlit sends a value only in the run that set it, and the browser, when it draws two
    runs at once, skips the first, shows the controls at their defaults and returns these as if the user had chosen them."""
    state = st.session_state
    for name in (*_CONTROLS, "labels", "beside", *TEXT_KEYS):
        if name in state:
            state[name] = state[name]


def _update_address(search: SearchState, gallery: SharedGallery) -> None:
    """Make the address describe what the page shows, so that it can be shared.

    An address that describes it already stays, in whatever form: a new one would be a step in the browser's history, and Back
    would lead to the old one, which would be replaced again.
    """
    address = _current_address()
    if read_address(address, gallery.choices)[0] != search:
        values = write_address(search, gallery.choices)
        address = {name: [value] if isinstance(value, str) else value for name, value in values.items()}
        if address != _current_address():
            st.query_params.from_dict(values)
    st.session_state["address"] = address


# ---- controls and examples


def _show_controls(gallery: SharedGallery) -> SearchState:
    """Show the controls; return the search that they and the query describe."""
    choices, state = gallery.choices, st.session_state
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        st.segmented_control("Encoder", choices.encoders, key="encoder", required=True)
        encoder = state["encoder"] or choices.default.encoder
        if others := [name for name in choices.encoders if name != encoder]:
            state["beside"] = [name for name in state.get("beside", ()) if name in others]
            st.multiselect(
                "Side by side with",
                others,
                key="beside",
                max_selections=MAX_SIDE_BY_SIDE - 1,
                placeholder="none",
                width=220,
            )
        st.number_input("Results", 1, choices.max_k, key="k", width=130)
        if choices.labels:
            st.multiselect(
                "Only these classes",
                list(choices.labels),
                key="labels",
                format_func=lambda label: choices.labels[label],
                placeholder="all",
                width=220,
            )
        with st.container(horizontal=True, width="content", gap="small"):
            st.toggle(
                "Exact search", key="exact", help="Compare the query with every image instead of using the index."
            )
    query = current_query() or PageQuery()
    return SearchState(
        encoder,
        int(state["k"]),
        query.text or None,
        query.like,
        bool(state["exact"]),
        tuple(state.get("labels", ())),
        tuple(state.get("beside", ())),
        query.add or None,
        query.without or None,
    )


def _show_examples(gallery: SharedGallery) -> None:
    """Offer a few classes and gallery images to start from."""
    searcher = gallery.searcher
    classes = "" if not searcher.labels else f" in {len(searcher.labels):,} classes"
    inputs = ["by text"] * can_read_text(gallery) + ["by image"] * can_read_images(gallery)
    advice = f"Search {' or '.join(inputs)}, or start" if inputs else "Start"
    st.markdown(f"The gallery has **{searcher.size:,} images**{classes}. {advice} with an example:")
    if can_read_text(gallery):
        names = list(dict.fromkeys(searcher.labels.values()))
        with st.container(horizontal=True):
            for name in names[:: max(1, len(names) // _EXAMPLES)][:_EXAMPLES]:
                st.button(as_markdown(printable(name)), key=f"example {name}", on_click=search_example, args=(name,))
    with st.grid(min_column_width=_CARD_COLUMN_PX, gap="small"):
        for image_id in searcher.sample(_EXAMPLES):
            with st.container(gap="xsmall"):
                st.html(captioned_html(gallery.thumbnail(image_id), searcher.label_name(image_id) or image_id))
                _like_button("example", image_id)


def _like_button(where: str, image_id: str) -> None:
    st.button("More like this", key=f"like {where} {image_id}", type="tertiary", on_click=search_like, args=(image_id,))


# ---- the results


def _show_query_and_results(gallery: SharedGallery, query: PageQuery, search: SearchState) -> None:
    try:
        _show_query(gallery, query)
    except CbirError as error:  # a link to an image that is no longer in the gallery
        warn(error_text(error))
        st.session_state["query"] = None
        _show_examples(gallery)
        return
    if not search.beside:
        _show_results(gallery, query, search)
        return
    encoders = (search.encoder, *search.beside)
    for column, encoder in zip(st.columns(len(encoders), gap="large"), encoders, strict=True):
        with column:
            st.subheader(encoder, anchor=False)
            _show_results(gallery, query, replace(search, encoder=encoder))


def _show_query(gallery: SharedGallery, query: PageQuery) -> None:
    """Show the images of the query, and all of it if it is refined."""
    images = [(card_image(upload.image), upload.name) for upload in (query.upload, query.add_upload) if upload]
    if query.like is not None:
        name = gallery.searcher.label_name(query.like) or query.like
        images.insert(0, (gallery.thumbnail(query.like), name))
    if images:
        with st.container(horizontal=True, gap="small"):
            for thumbnail, name in images:
                st.html(captioned_html(thumbnail, f"Query: {name}"), width="content")
    if query.is_refined:
        words = (query.text, *(name for _, name in images), query.add)
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.html(query_html([word for word in words if word], query.without), width="content")
            st.button("Remove all refinements", type="tertiary", on_click=remove_refinements)


def _show_results(gallery: SharedGallery, query: PageQuery, search: SearchState) -> None:
    try:
        results = gallery.searcher.search(
            query.parts(), search.k, encoder=search.encoder, exact=search.exact, labels=search.labels
        )
    except ConfigError as error:
        warn(error_text(error))
        return
    except (CbirError, OSError) as error:
        warn(error_text(error), "If the pipeline is running, search again when it has finished")
        return
    demo = f"{search.encoder} {DEMO_NOTE}." if gallery.searcher.has_demo_weights(search.encoder) else ""
    st.caption(f"{_summary(results, search)} {as_markdown(demo)}".rstrip())
    if results.categories:
        st.markdown("**Nearest categories** and their distances")
        st.html(categories_html(results.categories))
    with st.grid(min_column_width=_CARD_COLUMN_PX, gap="small"):
        for hit in results:
            with st.container(gap="xsmall"):
                st.html(result_html(hit, gallery.thumbnail(hit.image_id)))
                with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                    _like_button(search.encoder, hit.image_id)
                    key = f"enlarge {search.encoder} {hit.image_id}"
                    is_clicked = st.button(
                        "Enlarge", key=key, type="tertiary", help="The image as the gallery has it, and its file"
                    )
                if is_clicked:
                    _show_large(gallery, hit)


@st.dialog("Image", width="large")
def _show_large(gallery: SharedGallery, hit: Hit) -> None:
    st.image(gallery.searcher.image_bytes(hit.image_id))
    st.code(printable(hit.file, max_characters=None), language=None, wrap_lines=True)


def _summary(results: Results, search: SearchState) -> str:
    count = "1 result" if len(results) == 1 else f"{len(results):,} results"
    fewer = " (these classes have no more images)" if search.labels and len(results) < search.k else ""
    method = "exact search" if results.by == EXACT else f"the {results.by} index"
    return (
        f"{count}{fewer} from {method}: "
        f"{results.encode_ms:,.0f} ms to embed the query, {results.search_ms:,.1f} ms to search."
    )
