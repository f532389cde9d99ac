"""What may be the id of a session: the same over HTTP and in a program, and in every store."""

import re
from typing import Final

SESSION_ID_PATTERN: Final = r"^[^\x00-\x1f\x7f-\x9f]*$"
"""What its 1 to 256 characters may be."""

_SESSION_ID = re.compile(SESSION_ID_PATTERN)


def check_session_id(session_id: object) -> None:
    """Raise ``ValueError`` for what is no session id, ``TypeError`` for what is no text."""
    if not isinstance(session_id, str):
        raise TypeError(f"a session id is a text, not a {type(session_id).__name__}")
    if not 1 <= len(session_id) <= 256 or not _SESSION_ID.fullmatch(session_id) or not is_unicode(session_id):
        raise ValueError(
            f"{session_id[:80]!a} is no session id: it must be 1 to 256 characters, none of them a control character"
        )


def is_unicode(text: str) -> bool:
    """Whether it can be encoded: a lone surrogate can't."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
