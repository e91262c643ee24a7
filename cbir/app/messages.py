"""Messages on the page."""

import os

import streamlit as st

from cbir.app.cards import as_markdown
from cbir.app.settings import Settings
from cbir.core.errors import CbirError

_KEY = "messages"  # of the session state


def show_later(message: str) -> None:
    """Show a message once, the next time the page is drawn."""
    st.session_state.setdefault(_KEY, []).append(message)


def show_postponed() -> None:
    """Show the messages of `show_later`."""
    if messages := st.session_state.pop(_KEY, []):
        warn(*messages)


def warn(*messages: str) -> None:
    """Show messages as sentences."""
    sentences = [as_markdown(message[:1].upper() + message[1:].rstrip(".") + ".") for message in messages]
    st.warning("\n\n".join(sentences), icon=":material/info:")


def error_text(error: CbirError | OSError) -> str:
    """The message of an error, with paths below the root of the repository: users need not know where the server has it."""
    text = str(error)
    if isinstance(error, OSError):
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or text
    root = Settings.read().data.parent
    for folder in (root, root.resolve()):
        text = text.replace(f"{folder}{os.sep}", "")
    return text
