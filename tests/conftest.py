"""Fixtures that several test files share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # workers side by side; before NumPy is imported

import pytest  # noqa: E402
from command_line import run  # noqa: E402

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
