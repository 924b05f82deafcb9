"""Conversion of lists, arrays, tensors and columns to texts and arrays of numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from evaluation.values import numbers, texts

NAN = float("nan")


@pytest.mark.parametrize(
    "values",
    [
        ["a", "b"],
        ("a", "b"),
        np.array(["a", "b"]),
        np.array(["a", "b"], dtype=object),
        pd.Series(["a", "b"]),
        pd.Index(["a", "b"]),
        {"a": 1, "b": 2}.keys(),
        [np.str_("a"), "b"],
    ],
    ids=lambda values: type(values).__name__,
)
def test_texts_become_python_s_own(values):
    converted = texts(values, "names")
    assert converted == ("a", "b")
    assert {type(text) for text in converted} == {str}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("a", "names must be a list of texts; found the text 'a': put it into a list"),
        (b"a", "names must be a list of texts; found a bytes"),
        (iter(["a"]), "names must be a list of texts; found a list_iterator: pass list(…)"),
        ({"a"}, "names must be a list of texts; found a set, which does not have an order: pass a list"),
        ({"a": 1}, "names must be a list of texts; found a dict"),
        (None, "names must be a list of texts; found None"),
        (np.array([["a"]]), "names must be a list of texts; found an array of shape (1, 1)"),
        (["a", 1], "names must be texts; found the number 1 at index 1"),
        (["a", NAN], "names must be texts; found NaN, a missing value at index 1"),
        (pd.Series(["a", None]), "names must be texts; found NaN, a missing value at index 1"),
        (pd.Series(["a", pd.NA], dtype="string"), "names must be texts; found NaN, a missing value at index 1"),
        ([Path("a")], "names must be texts; found a PosixPath at index 0: pass path.name or str(path)"),
        ([["a"]], "names must be texts; found a list at index 0"),
    ],
)
def test_refused_texts(values, message):
    with pytest.raises(ValueError) as refusal:
        texts(values, "names")
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    "values",
    [
        [[1, 2], [3, 4]],
        np.array([[1, 2], [3, 4]]),
        np.array([[1, 2], [3, 4]], dtype=object),
        pd.DataFrame([[1, 2], [3, 4]]),
        torch.tensor([[1.0, 2], [3, 4]], requires_grad=True),
        torch.tensor([[1, 2], [3, 4]], dtype=torch.bfloat16),
        np.ma.array([[1, 2], [3, 4]]),
    ],
    ids=lambda values: type(values).__name__,
)
def test_numbers_become_floats(values):
    array = numbers(values, "scores", 2)
    assert type(array) is np.ndarray
    assert array.dtype.kind == "f"
    assert array.tolist() == [[1, 2], [3, 4]]


def test_floats_keep_their_type():
    assert numbers(np.float32([1]), "scores").dtype == np.float32
    assert numbers([True, False], "scores").tolist() == [1, 0]


@pytest.mark.parametrize(
    "values",
    [[1, None], pd.Series([1, None]), pd.Series([1, pd.NA], dtype="Int64"), np.ma.array([1, 2], mask=[False, True])],
    ids=str,
)
def test_missing_numbers_become_nan(values):
    assert np.isnan(numbers(values, "scores", 1)).tolist() == [False, True]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([["1", "2"]], "scores must be numbers; found texts"),
        (pd.DataFrame({"a": [1], "b": ["x"]}), "scores must be numbers; found the text 'x'"),
        ([1j], "scores must be numbers; found an array of type complex128"),
        ([[1, 2], [3]], "scores must be numbers, and all rows must have the same length; found a list that does not"),
        ([1, 2], "scores must be an array with two dimensions; found the shape (2,)"),
        (iter([1]), "scores must be a list or an array of numbers; found a list_iterator: pass list(…)"),
        ({"a": 1}, "scores must be a list or an array of numbers; found a dict"),
        (None, "scores must be a list or an array of numbers; found None"),
    ],
)
def test_refused_numbers(values, message):
    with pytest.raises(ValueError) as refusal:
        numbers(values, "scores", 2)
    assert str(refusal.value).startswith(message)
