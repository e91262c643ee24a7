"""The page Report: the report of the last run, as the pipeline wrote it."""

from pathlib import Path

import streamlit as st


def show(reports: Path) -> None:
    """reports : the folder of report.html or report.md."""
    html, markdown = reports / "report.html", reports / "report.md"
    if html.is_file():
        st.iframe(html, alt="The report of the last run")
    elif markdown.is_file():
        st.markdown(markdown.read_text(encoding="utf-8"))  # HTML in it is shown as text
    else:
        st.title("No report yet")
        st.markdown("The pipeline's last stage writes it. In the repository's root:")
        st.code("make repro", language="bash")
