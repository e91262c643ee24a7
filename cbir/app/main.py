"""The script that Streamlit runs for each user at each interaction: three pages over one gallery.  `cbir app` starts it."""

from collections.abc import Callable

import streamlit as st

from cbir.app import map_page, report_page, search_page
from cbir.app.cards import STYLE, as_markdown
from cbir.app.messages import error_text
from cbir.app.settings import Settings
from cbir.app.state import SharedGallery, files_fingerprint, open_shared_gallery
from cbir.core.errors import CbirError
from cbir.search.searcher import pipeline_has_run

# inline, because Streamlit would fetch a named icon from another host
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="#c53b4c" stroke-width="3">'
    '<circle cx="10" cy="10" r="6"/><path d="m14.5 14.5 7 7"/></svg>'
)


def main() -> None:
    st.set_page_config(page_title="cbir", page_icon=_ICON, layout="wide")
    st.html(STYLE)
    settings = Settings.read()

    @_showing_errors
    def show_search() -> None:
        if gallery := _open_gallery(settings):
            search_page.show(gallery)

    @_showing_errors
    def show_map() -> None:
        st.session_state[search_page.LEFT] = True
        if gallery := _open_gallery(settings):
            map_page.show(gallery, settings.data, search)

    @_showing_errors
    def show_report() -> None:
        st.session_state[search_page.LEFT] = True
        report_page.show(settings.reports)

    search = st.Page(show_search, title="Search", icon=":material/search:", url_path="search", default=True)
    pages = [
        search,
        st.Page(show_map, title="Map", icon=":material/scatter_plot:", url_path="map"),
        st.Page(show_report, title="Report", icon=":material/article:", url_path="report"),
    ]
    page = st.navigation(pages, position="hidden")  # Streamlit's own menu covers a narrow page, until it is closed
    with st.container(horizontal=True, gap="small"):
        for each in pages:
            st.page_link(each, width="content")
    page.run()


def _showing_errors(show: Callable[[], None]) -> Callable[[], None]:
    """A function that shows a page, or the error that keeps it from being shown."""

    def show_or_explain() -> None:
        try:
            show()
        except (CbirError, OSError) as error:
            st.error(as_markdown(error_text(error)), icon=":material/error:")
            st.markdown("If the pipeline is running, try again when it has finished.")
            _show_retry("Try again")

    return show_or_explain


def _open_gallery(settings: Settings) -> SharedGallery | None:
    """Open the gallery; before the first run of the pipeline, show the first steps and return None."""
    if not pipeline_has_run(settings.data):
        _show_first_steps()
        return None
    return open_shared_gallery(settings.data, files_fingerprint(settings.data))


def _show_first_steps() -> None:
    st.title("Nothing to search yet", anchor=False)
    st.markdown("The pipeline has not built an index yet. Run it in the root of the repository:")
    st.code("make repro", language="bash")
    st.markdown("With the default data set this takes a few minutes and needs no network. To search your own images:")
    st.code(
        "source .venv/bin/activate\n"
        "cbir compose dataset=image_folder dataset.url=/path/to/photos 'encoders=[mobilenet_v3_large,clip_vit_b_32]'\n"
        "make repro",
        language="bash",
    )
    _show_retry("Check again")


def _show_retry(label: str) -> None:
    if st.button(label, icon=":material/refresh:"):
        st.rerun()


main()
