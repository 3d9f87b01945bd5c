"""JSON as files of users have it, without what Python takes for numbers and no other reader does."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

__all__ = ["parsed"]


def parsed(data: bytes) -> Any:
    """Return what the JSON says.

    Raises:
        JSONDecodeError, UnicodeError, RecursionError: it is no JSON.
        ValueError: a number in it is NaN, infinite, or too large; the message says which.
    """
    return json.loads(data, parse_constant=_refuse, parse_float=_finite)


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"it holds {text[:20]}, which is no finite number")
