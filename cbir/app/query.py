"""The query of a user of the page, and the inputs that change it.

st.session_state["query"] holds the query, a PageQuery or None; the inputs have their own keys.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import streamlit as st

from cbir.app.address import MAX_TEXT_CHARACTERS, SearchState
from cbir.app.messages import show_later
from cbir.app.settings import MAX_UPLOAD_MB
from cbir.app.state import SharedGallery
from cbir.app.uploads import take_upload
from cbir.core.errors import CbirError
from cbir.fetching.views import IMAGE_SUFFIXES
from cbir.search.query import QueryPart

TEXT_KEYS = ("text", "add", "without")  # of the text boxes; each is a field of PageQuery
_NOTHING = "Nothing to search for: enter a text or choose an image."


@dataclass(frozen=True)
class Upload:
    """An uploaded image, packed as those of the gallery.  name : of the file."""

    image: bytes
    name: str


@dataclass(frozen=True)
class PageQuery:
    """What a user searches for: one of a text, a gallery image (like, its image_id) and an upload, which the rest refines.

    add, without : words to add and to leave out.  add_upload : an image to add.
    """

    text: str = ""
    like: str | None = None
    upload: Upload | None = None
    add: str = ""
    without: str = ""
    add_upload: Upload | None = None

    @classmethod
    def of(cls, search: SearchState) -> "PageQuery | None":
        """The query that the page's address describes; None if there is none."""
        if not search.text and not search.like:
            return None
        return cls(search.text or "", search.like, None, search.add or "", search.without or "")

    @property
    def is_refined(self) -> bool:
        """Whether it has more than one part."""
        return len(self.parts()) > 1

    def parts(self) -> list[QueryPart]:
        """The parts of the query, as the Searcher takes them."""
        parts = [QueryPart(text=text) for text in (self.text, self.add) if text]
        parts += [QueryPart(image=upload.image) for upload in (self.upload, self.add_upload) if upload]
        parts += [QueryPart(image_id=self.like)] if self.like else []
        return parts + ([QueryPart(text=self.without, weight=-1)] if self.without else [])


def current_query() -> PageQuery | None:
    """The user's query; None if there is none yet."""
    query: PageQuery | None = st.session_state.get("query")
    return query


def set_query(query: PageQuery | None) -> None:
    """Replace the query, and show its words in the text boxes."""
    st.session_state["query"] = query
    for key in TEXT_KEYS:
        st.session_state[key] = getattr(query, key) if query else ""


def can_read_text(gallery: SharedGallery) -> bool:
    """Whether an encoder of the run embeds texts."""
    return any(map(gallery.searcher.reads_text, gallery.choices.encoders))


def can_read_images(gallery: SharedGallery) -> bool:
    """Whether an encoder of the run embeds new images."""
    return any(map(gallery.searcher.embeds_images, gallery.choices.encoders))


def show_inputs(gallery: SharedGallery) -> None:
    """Show the inputs that an encoder of the run can read."""
    text, image = st.columns(2, gap="medium")
    if can_read_text(gallery):
        with text, _form_in_a_row("text form"):
            st.text_input("Search by text", key="text", max_chars=MAX_TEXT_CHARACTERS, placeholder="describe an image")
            st.form_submit_button("Search", type="primary", icon=":material/search:", on_click=_search_text)
    if can_read_images(gallery):
        with image if can_read_text(gallery) else text:
            _show_uploader(gallery, "Search by image", "upload")


def show_refinements(gallery: SharedGallery) -> None:
    """Show the inputs that add to the query: words, words to leave out, an image."""
    query = current_query()
    if query is None or not (can_read_text(gallery) or can_read_images(gallery)):
        return
    with st.expander("Refine", icon=":material/tune:"):
        words, image = st.columns([3, 2], gap="medium")
        if can_read_text(gallery):
            with words, _form_in_a_row("refine form"):
                st.text_input("Add words", key="add", max_chars=MAX_TEXT_CHARACTERS, placeholder="at night")
                st.text_input("Leave out words", key="without", max_chars=MAX_TEXT_CHARACTERS, placeholder="people")
                st.form_submit_button("Apply", on_click=_refine)
        if can_read_images(gallery):
            with image if can_read_text(gallery) else words:
                _show_uploader(gallery, "Add an image", "add_upload")


def remove_refinements() -> None:
    """Search for the query without its refinements."""
    set_query(replace(current_query() or PageQuery(), add="", without="", add_upload=None))


def search_like(image_id: str) -> None:
    """Search for images like a gallery image."""
    set_query(PageQuery(like=image_id))


def search_example(text: str) -> None:
    """Search for a text."""
    set_query(PageQuery(text=text))


@contextmanager
def _form_in_a_row(key: str) -> Iterator[None]:
    """A form whose inputs and button stand side by side."""
    with st.form(key, border=False), st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        yield


def _show_uploader(gallery: SharedGallery, label: str, field: str) -> None:
    """Show an uploader of the image that is the query's `field`: upload or add_upload."""
    key = f"{field} {st.session_state.get('uploads', 0)}"
    st.file_uploader(
        label,
        type=[suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES],
        key=key,
        max_upload_size=MAX_UPLOAD_MB,
        on_change=_take_image,
        args=(gallery, key, field),
    )


def _search_text() -> None:
    if text := _words("text"):
        set_query(PageQuery(text=text))
    else:
        show_later(_NOTHING)


def _refine() -> None:
    set_query(replace(current_query() or PageQuery(), add=_words("add"), without=_words("without")))


def _words(key: str) -> str:
    return " ".join(st.session_state[key].split())


def _take_image(gallery: SharedGallery, key: str, field: str) -> None:
    file = st.session_state[key]
    data = take_upload(file)
    if data is None:
        return
    st.session_state["uploads"] = st.session_state.get("uploads", 0) + 1  # the next uploader has a new key: it is empty
    try:
        upload = Upload(gallery.pack_upload(data, file.name), file.name)
    except CbirError as error:
        show_later(str(error))
        return
    query = current_query()
    set_query(PageQuery(upload=upload) if field == "upload" or query is None else replace(query, add_upload=upload))
