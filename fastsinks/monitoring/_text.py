"""Text from users, made fit to be encoded."""

from __future__ import annotations


def encodable(text: str) -> str:
    r"""``text`` as characters that every UTF-8 reader takes: lone surrogates and NUL, which
    cut lines short or are refused, become escapes such as ``\udc80``. Different texts stay
    different, except where one contains such an escape already.
    """
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
