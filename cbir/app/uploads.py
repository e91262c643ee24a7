"""Uploaded files, which Streamlit stores until the session ends, long after the browser was closed."""

from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile


def take_upload(file: object) -> bytes | None:
    """The bytes of the file that an uploader holds, which the server forgets; None if it holds none.

    The page must draw the uploader again under another key, because this one still names the file.
    """
    if not isinstance(file, UploadedFile):  # None, or a file that was taken
        return None
    data = file.getvalue()
    context = get_script_run_ctx()
    if context is not None and isinstance(context.uploaded_file_mgr, MemoryUploadedFileManager):
        context.uploaded_file_mgr.remove_file(context.session_id, file.file_id)
    return data
