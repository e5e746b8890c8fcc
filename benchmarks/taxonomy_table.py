"""Writes results/taxonomy_*.json into README.md."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent
TITLES = {
    "taxonomy_amazon": "titles, 6/64",
    "taxonomy_amazon_three": "titles, 6/64/360",
    "taxonomy_wordnet": "glosses, 19/170",
}
ENGINES = {
    "multilevel": "multilevel",
    "characters": "multilevel, words and characters",
    "flat": "flat logistic",
    "hiclass": "HiClass per parent",
}
COLUMNS = [
    "log-loss", "small log-loss", "parent log-loss", "accuracy", "parent accuracy", "macro F1", "macro F1, prior 0.75",
    "small recall, prior 1", "seconds",
]  # fmt: skip


def scores() -> list[str]:
    lines = ["| data | engine | splits | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 3) + "|"]
    for name, title in TITLES.items():
        path = HERE / "results" / f"{name}.json"
        if not path.exists():
            continue
        table = pd.DataFrame(json.loads(path.read_text()))
        for engine in (name for name in ENGINES if name in set(table["engine"])):
            rows = table[table["engine"] == engine]
            cells = [f"{rows[c].mean():.1f}" if c == "seconds" else f"{rows[c].mean():.3f}" for c in COLUMNS]
            lines.append(f"| {title} | {ENGINES[engine]} | {len(rows)} | " + " | ".join(cells) + " |")
    return lines


def speed() -> list[str]:
    lines = ["", "| what | value |", "|---|---|"]
    for name, title in (("speed", ""), ("deep", "WordNet to depth 12, nested: ")):
        path = HERE / "results" / f"taxonomy_{name}.json"
        if path.exists():
            lines += [f"| {title}{what} | {value:.4g} |" for what, value in json.loads(path.read_text()).items()]
    return lines


def main() -> None:
    page = HERE / "README.md"
    text = page.read_text()
    begin, end = "<!-- taxonomy:begin -->", "<!-- taxonomy:end -->"
    head, tail = text.split(begin)[0], text.split(end)[1]
    page.write_text(head + begin + "\n" + "\n".join([*scores(), *speed()]) + "\n" + end + tail)


if __name__ == "__main__":
    main()
