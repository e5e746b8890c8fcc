"""docs/command-line.md says what is so: its commands run, in its order, and print what stands below them.

A ``sh`` block holds one command. A ``text`` block after it is what the command prints (what it says on standard error, where
the block names an exit status); a line ``...`` stands for any lines. A ``text`` block after "`new.csv`:" is that file.
"""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest
from command_line import Run
from test_readme import same_output

from multilevel import cli

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "command-line.md").read_text(encoding="utf-8")
PART = re.compile(
    r"`(?P<file>[\w.]+)`:\n\n```text\n(?P<rows>.*?)```|```sh\n(?P<command>.*?)```(?:\n\n```text\n(?P<output>.*?)```)?",
    re.DOTALL,
)
STATUS = re.compile(r"# exit status (\d+)")


def words(command: str) -> list[str]:
    """Arguments after `multilevel`, as a shell would split them."""
    name, *arguments = shlex.split(command, comments=True)
    assert name == "multilevel", command
    return arguments


def shows(printed: str, expected: str) -> bool:
    """Whether lines stand in an output in this order, without gaps but at ``...``."""
    lines, at, gap = printed.rstrip("\n").split("\n"), 0, False
    for part in re.split(r"^(\.\.\.)\n", expected, flags=re.MULTILINE):
        if part == "...":
            gap = True
        elif part:
            wanted = part.rstrip("\n").split("\n")
            places = range(at, len(lines) - len(wanted) + 1 if gap else at + 1)
            found = next((i for i in places if same_output("\n".join(lines[i : i + len(wanted)]), part)), None)
            if found is None:
                return False
            at, gap = found + len(wanted), False
    return gap or at == len(lines)


def test_commands_of_the_page_print_what_stands_below_them(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    pytest.importorskip("sklearn")
    outputs = 0
    for part in PART.finditer(PAGE):
        if part["file"]:
            (tmp_path / part["file"]).write_text(part["rows"], encoding="utf-8")
            continue
        status, out, err = run(*words(part["command"]))
        told = STATUS.search(part["command"])
        assert status == (int(told[1]) if told else 0), part["command"] + err
        if part["output"] is not None:
            outputs += 1
            printed = err if status else out
            assert shows(printed, part["output"]), f"{part['command']} printed\n{printed}"
    assert outputs > 15


def verbs(parser: argparse.ArgumentParser) -> list[str]:
    """Commands of a parser, with those below them: `fit`, ..., `classify train`."""
    named = next((a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)), {})
    return [" ".join([name, below]).strip() for name, one in named.items() for below in verbs(one) or [""]]


def test_the_page_has_every_command() -> None:
    commands = [part["command"] for part in PART.finditer(PAGE) if part["command"]]
    run_there = [" ".join(words(one)) for one in commands]
    lacking = [verb for verb in verbs(cli._parser()) if not any(one.startswith(verb) for one in run_there)]
    assert not lacking, f"docs/command-line.md has no example of {', '.join(lacking)}"


def test_shows_is_strict() -> None:
    printed = "a 1\nb 2\nc 3\n"
    assert shows(printed, "a 1\nb 2\nc 3\n") and shows(printed, "a 1\n...\nc 3\n") and shows(printed, "...\nb 2\n...\n")
    assert not shows(printed, "a 1\nb 2\n") and not shows(printed, "b 2\n...\n") and not shows(printed, "a 1\nc 3\n")
    assert not shows(printed, "...\nb 3\n...\n") and not shows(printed, "...\nc 3\n...\na 1\n")
