"""A stand-in, with which fastsinks can be imported where there is no msgspec. It does nothing.

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
