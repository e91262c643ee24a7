"""The script that Streamlit runs, for each user and at each click: three pages over one gallery.  `cbir app` starts it."""

import streamlit as st

from cbir.app import map_page, report_page, search_page
from cbir.app.cards import STYLE, as_markdown
from cbir.app.state import GalleryView, Settings, fingerprint, open_gallery
from cbir.core.errors import CbirError
from cbir.search.searcher import pipeline_has_run

# An icon by name would be fetched from another host.
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="#c53b4c" stroke-width="3">'
    '<circle cx="10" cy="10" r="6"/><path d="m14.5 14.5 7 7"/></svg>'
)


def main() -> None:
    st.set_page_config(page_title="cbir", page_icon=_ICON, layout="wide")
    st.html(STYLE)
    settings = Settings.read()

    def show_search() -> None:
        if gallery := _gallery(settings):
            search_page.show(gallery, settings.urls)

    def show_report() -> None:
        st.session_state[search_page.AWAY] = True
        report_page.show(settings.reports)

    def show_map() -> None:
        st.session_state[search_page.AWAY] = True
        if gallery := _gallery(settings):
            map_page.show(gallery, settings.data, search)

    search = st.Page(show_search, title="Search", icon=":material/search:", url_path="search", default=True)
    pages = [
        search,
        st.Page(show_map, title="Map", icon=":material/scatter_plot:", url_path="map"),
        st.Page(show_report, title="Report", icon=":material/article:", url_path="report"),
    ]
    st.navigation(pages, position="top").run()


def _gallery(settings: Settings) -> GalleryView | None:
    """The gallery; None, and words on the page, where there is none."""
    if not pipeline_has_run(settings.data):
        _tell_first_steps()
        return None
    try:
        return open_gallery(settings.data, fingerprint(settings.data))
    except CbirError as error:
        st.error(as_markdown(str(error)), icon=":material/error:")
        return None


def _tell_first_steps() -> None:
    st.title("Nothing to search yet")
    st.markdown(
        "No pipeline has run in this folder, or one is running now and has not built its index. In the repository's root:"
    )
    st.code("make repro", language="bash")
    st.markdown("runs it on a drawn data set, without a network, in a few minutes. With images of your own:")
    st.code(
        "source .venv/bin/activate\n"
        "cbir compose dataset=image_folder dataset.url=/path/to/photos mobilenet=large clip=vit_b_32\n"
        "make repro",
        language="bash",
    )
    if st.button("Look again", icon=":material/refresh:"):
        st.rerun()


main()
