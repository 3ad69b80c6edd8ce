"""Text from users, in a form that can be encoded."""

from __future__ import annotations


def encodable(text: str) -> str:
    r"""``text`` in characters that every reader of UTF-8 accepts: lone surrogates and NUL, which
    are refused or cut lines short, become escapes such as ``\udc80``. Different texts stay
    different, except where one contains such an escape already.
    """
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
