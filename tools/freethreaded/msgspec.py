"""Lets fastsinks be imported where msgspec is not to be had; nothing of it can be used.

msgspec does not compile for a free-threaded Python before 3.14.
"""

from typing import Any
from unittest.mock import MagicMock


class Struct:
    def __init_subclass__(cls, **options: Any) -> None:
        pass


class Meta:
    def __init__(self, **options: Any) -> None:
        pass


DecodeError = ValidationError = ValueError
json = structs = MagicMock()
field = MagicMock()
