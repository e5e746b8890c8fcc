"""The command line as a fixture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from multilevel import cli

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in an empty directory: status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def command(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = cli.main([str(one) for one in argv])
        out, err = capsys.readouterr()
        return status, out, err

    return command
