"""Fixtures that several test files share."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from command_line import run

__all__ = ["figures_closed", "settings_kept", "run"]


@pytest.fixture(autouse=True)
def figures_closed() -> Iterator[None]:
    """No test leaves figures behind."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def settings_kept() -> Iterator[None]:
    """Plots leave Matplotlib's settings as they were."""
    import matplotlib

    settings = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == settings
