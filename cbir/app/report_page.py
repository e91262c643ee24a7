"""The Report page: the report of the last pipeline run."""

from pathlib import Path

import streamlit as st

from cbir.artifacts.paths import ReportPaths

_HEIGHT_PX = 800  # where a browser does not know the units of STYLE; the report admits no script that would measure it


def show(reports: Path) -> None:
    """Show the report in the folder `reports`, as HTML if there is one, else as Markdown."""
    paths = ReportPaths(reports)
    if paths.html.is_file():
        st.iframe(paths.html, height=_HEIGHT_PX, alt="The report of the last pipeline run")
    elif paths.markdown.is_file():
        st.markdown(paths.markdown.read_text(encoding="utf-8"))  # HTML in it is shown as text
    else:
        st.title("No report yet", anchor=False)
        st.markdown("The last stage of the pipeline writes the report. Run the pipeline in the root of the repository:")
        st.code("make repro", language="bash")
