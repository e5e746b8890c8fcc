"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from command_line import run

__all__ = ["no_figures_left", "run"]


@pytest.fixture
def no_figures_left() -> Iterator[None]:
    """Plots leave Matplotlib's settings as they were; figures are closed after each test."""
    import matplotlib
    import matplotlib.pyplot as plt

    settings = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == settings
    plt.close("all")
