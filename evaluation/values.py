"""Conversion of what a notebook has (lists, arrays, tensors, columns of tables) to plain texts and numpy arrays.

All functions raise ValueError with a message that states what must hold and what was found.
"""

import math
import sys
from collections.abc import Collection, KeysView, Mapping, Set
from typing import Any

import numpy as np

from evaluation.text import cut


def describe(value: object) -> str:
    """Describe a value of a wrong type for a message.

    >>> describe(float("nan")), describe("a.wav"), describe(3), describe([1, 2])
    ('NaN, a missing value', "the text 'a.wav'", 'the number 3', 'a list')
    """
    if value is None:
        return "None"
    if is_missing(value):
        return "NaN, a missing value"
    if isinstance(value, str):
        return f"the text {cut(str(value), 60)!r}"
    if isinstance(value, bool | int | float | np.number):
        return f"the number {value}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    name = type(value).__name__
    article = "an" if name[0] in "aeiouAEIOU" else "a"
    return f"{article} {name}"


def is_missing(value: object) -> bool:
    """Return True for NaN, and for NA and NaT of pandas."""
    if isinstance(value, float):
        return math.isnan(value)
    return type(value).__name__ in ("NAType", "NaTType")


def is_table(value: object, kind: str) -> bool:
    """Return True if a value is a pandas object of a kind, `DataFrame` or `Series`; this does not import pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, getattr(pandas, kind))


def elements(values: object) -> list[Any] | None:
    """Return the elements of a list, tuple, one-dimensional array or column in their order.

    Returns:
        The elements; None if the value is not such a collection, for example a text, a dict, a generator, a table, or a
        set, which does not have an order.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Collection):
        return None
    if isinstance(values, Set) and not isinstance(values, KeysView):
        return None
    if getattr(values, "ndim", 1) != 1:
        return None
    return list(values)


def texts(values: object, what: str) -> tuple[str, ...]:
    """Return texts as a tuple of Python's own strings.

    Args:
        values: A list, tuple, array or column of texts.
        what: The plural noun for the values in messages.

    Raises:
        ValueError: The value is not such a collection, or an element is not a text.
    """
    listed = elements(values)
    if listed is None:
        raise ValueError(f"{what} must be a list of texts; found {describe(values)}{advice_for(values)}")
    for index, element in enumerate(listed):
        if not isinstance(element, str):
            raise ValueError(f"{what} must be texts; found {describe(element)} at index {index}{advice_for(element)}")
    return tuple(map(str, listed))


def advice_for(value: object) -> str:
    """Return the end of a message: how to turn some common values into texts or lists. It is empty for other values."""
    if hasattr(value, "__next__"):
        return ": pass list(…)"
    if isinstance(value, str):
        return ": put it into a list"
    if hasattr(value, "__fspath__"):
        return ": pass path.name or str(path)"
    if isinstance(value, Set):
        return ", which does not have an order: pass a list"
    return ""


def require_dict(value: object, what: str, form: str) -> Mapping[Any, Any]:
    """Return a value that must be a dict.

    Args:
        value: The value.
        what: The plural noun for the value in messages.
        form: What the dict maps, such as "from ids to answers", and what else can be given.

    Raises:
        ValueError: It is not a dict.
    """
    if isinstance(value, Mapping):
        return value
    raise ValueError(f"{what} must be a dict {form}; found {describe(value)}")


def numbers(values: object, what: str, dimensions: int | None = None) -> np.ndarray:
    """Return numbers as an array of floats; NaN and infinity are accepted.

    Args:
        values: Nested lists, an array, a tensor of torch, or a column or table of pandas.
        what: The plural noun for the values in messages.
        dimensions: The number of dimensions that the array must have, 1 or 2 (default: any number).

    Returns:
        The array. Floats keep their type. Whole numbers and booleans become float64.

    Raises:
        ValueError: The values are not numbers, or do not form an array with this number of dimensions.
    """
    array = _array(values, what)
    if array.dtype.kind == "O":
        array = _floats_of_objects(array, values, what)
    elif array.dtype.kind in "biu":
        array = array.astype(np.float64)
    elif array.dtype.kind != "f":
        found = "texts" if array.dtype.kind in "US" else f"an array of type {array.dtype}"
        raise ValueError(f"{what} must be numbers; found {found}")
    if dimensions and array.ndim != dimensions:
        kind = "a list or an array with one dimension" if dimensions == 1 else "an array with two dimensions"
        raise ValueError(f"{what} must be {kind}; found the shape {array.shape}")
    return array


def _array(values: object, what: str) -> np.ndarray:
    given: Any = values
    if hasattr(given, "detach"):  # a tensor, which may need a gradient and may be on a GPU
        given = given.detach().cpu()
        if str(given.dtype) == "torch.bfloat16":  # numpy does not have this type
            given = given.float()
    if isinstance(given, np.ma.MaskedArray):
        given = np.ma.filled(given.astype(np.float64), np.nan)
    try:
        return np.asarray(given)
    except (ValueError, TypeError):
        message = f"{what} must be numbers, and all rows must have the same length; found {describe(values)}"
        raise ValueError(f"{message} that does not have this form") from None


def _floats_of_objects(array: np.ndarray, values: object, what: str) -> np.ndarray:
    """Convert an array of Python objects, in which pandas keeps None and NA."""
    if not array.ndim:
        raise ValueError(f"{what} must be a list or an array of numbers; found {describe(values)}{advice_for(values)}")
    converted = np.empty(array.shape)
    for place, value in np.ndenumerate(array):
        if value is None or is_missing(value):
            converted[place] = np.nan
        elif isinstance(value, bool | int | float | np.number):
            converted[place] = value
        else:
            raise ValueError(f"{what} must be numbers; found {describe(value)}")
    return converted
