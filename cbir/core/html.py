"""Parts of HTML pages that need no other file."""

from base64 import b64encode


def data_uri(data: bytes, mime: str) -> str:
    """Return a `data:` URI that holds `data`, for the `src` of an image.

    >>> data_uri(b"GIF89a", "image/gif")
    'data:image/gif;base64,R0lGODlh'
    """
    return f"data:{mime};base64,{b64encode(data).decode()}"
