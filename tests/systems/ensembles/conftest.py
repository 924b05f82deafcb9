"""A small data folder, for ensembles."""

import pytest

from evaluation.data.dataset import read_dataset


@pytest.fixture
def data(clotho_like):
    """A data folder with three clips and fifteen queries in each split."""
    return read_dataset(clotho_like(), "validation", "evaluation", sound=False)
