"""Addresses without the passwords and signatures that they may carry, for files and messages."""

import re
from urllib.parse import unquote

HIDDEN = "***"
ENVIRONMENT = re.compile(r"\$([A-Z_][A-Z0-9_]*)")  # the name of an environment variable, which is no secret
# up to white space, or to the next address of a chain, as in zip://a.jpg::https://host/a.zip
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://((?:(?!::[a-z][a-z0-9+.-]*://)\S)*)", re.IGNORECASE)
_END_OF_SENTENCE = re.compile(r"[\"')\],.:;]*$")
_SECRET_NAME = re.compile(
    r"token|secret|signature|credential|pass(w|code|phrase)|^(pass|pw|pwd)$|(^|[^a-z])sig($|[^a-z])|key(?!w)|jwt|session"
    r"|auth(?!ors?(?![a-z]))",
    re.IGNORECASE,
)
_LONG = re.compile(r"[A-Za-z0-9+=]{16,}")


def without_secrets(text: str) -> str:
    """Return a text in whose addresses user names, passwords and values that may be secret are `***`.

    In the query and the fragment, a value may be secret if its name says so, or if it has 16 letters and digits in a row.
    The name of an environment variable, as in `?token=$TOKEN`, stays.

    >>> without_secrets("fetch https://me:pw@host/a.zip?download=1&X-Amz-Signature=1f, then run again")
    'fetch https://***@host/a.zip?download=1&X-Amz-Signature=***, then run again'
    """
    return _ADDRESS.sub(lambda match: f"{match[1]}://{_without_secrets(match[1].lower(), match[2])}", text)


def _without_secrets(scheme: str, address: str) -> str:
    """scheme : before ://.  address : what follows."""
    sentence = _END_OF_SENTENCE.search(address)
    end = sentence[0] if sentence else ""
    address = address.removesuffix(end)
    authority = re.split("[/?#]", address, maxsplit=1)[0]
    host, _, port = authority.rpartition("@")[2].partition(":")
    has_path_in_password = (
        "@" in address[len(authority) :] and port and not port.isdecimal() and not host.startswith("[")
    )
    user, at, place = (address if has_path_in_password else authority).rpartition("@")
    place = place if has_path_in_password else address[len(user) + len(at) :]
    path, *query = re.split(r"([?&;#])", place)
    query = [part if part in "?&;#" else _value_without_secret(part) for part in query]
    before_host = f"{_user_without_secret(scheme, user)}@" if at else ""
    return before_host + path + "".join(query) + end


def _user_without_secret(scheme: str, user: str) -> str:
    """Of https a name alone may be a token; of others it is a name, as in sftp://me@host."""
    name, _, password = user.partition(":")
    is_public = (_is_public(name) or bool(password) or not scheme.startswith("http")) and _is_public(password)
    return user if is_public else HIDDEN


def _value_without_secret(part: str) -> str:
    name, equals, value = part.partition("=") if "=" in part else ("", "", part)
    if _is_public(value):
        return part
    is_random = any(re.search("[0-9]", run) and re.search("[A-Za-z]", run) for run in _LONG.findall(unquote(value)))
    return f"{name}{equals}{HIDDEN}" if is_random or _SECRET_NAME.search(unquote(name)) else part


def _is_public(value: str) -> bool:
    return value in ("", HIDDEN) or ENVIRONMENT.fullmatch(value) is not None
