"""Make the bundled set `wordnet` from the WordNet 3.0 database: ``python tests/make_wordnet.py``.

Reads the file data.noun of the Debian package wordnet-base (1:3.0-37, `apt-get install wordnet-base`), found in
/usr/share/wordnet or in the folder that WNSEARCHDIR names, and nothing else. Format of the file: wndb(5WN).

The rule:

- The classes. The upper level is the lexicographer file of a synset (animal, plant, ...; all but Tops). The lower level
  is the highest of its hypernyms in the same file with at most 700 synsets below it, if there are at least 120; only
  the first hypernym of each synset counts. Of the files those with two lower classes or more are kept, and of each its
  six largest.
- The texts. Definitions without their examples; of equal ones only the first.
- The slice. Which synsets, and how many of a class, is settled by SHA-256, so by no generator of random numbers: 10 of
  each class to test, and from 3 to 100 to train, spread evenly on the logarithmic scale over the classes.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).resolve().parents[1] / "src" / "multilevel" / "data" / "wordnet.csv.gz"
COLUMNS = ("synset", "lemma", "gloss", "domain", "kind", "part")

MOST, LEAST = 700, 120  # synsets below the node that is a class
CHILDREN = 6
TEST = 10
TRAIN = (3, 100)

DOMAINS = {
    "04": "act",
    "05": "animal",
    "06": "artifact",
    "07": "attribute",
    "08": "body",
    "09": "cognition",
    "10": "communication",
    "11": "event",
    "12": "feeling",
    "13": "food",
    "14": "group",
    "15": "location",
    "16": "motive",
    "17": "object",
    "18": "person",
    "19": "phenomenon",
    "20": "plant",
    "21": "possession",
    "22": "process",
    "23": "quantity",
    "24": "relation",
    "25": "shape",
    "26": "state",
    "27": "substance",
    "28": "time",
}  # lexnames(5WN), without 03, Tops


class Synset(NamedTuple):
    """One line of data.noun: its lexicographer file, first word, definition, first hypernym."""

    file: str
    lemma: str
    gloss: str
    hypernym: str | None


def database() -> Path:
    """Where data.noun should be."""
    return Path(os.environ.get("WNSEARCHDIR", "/usr/share/wordnet")) / "data.noun"


def read(path: Path) -> dict[str, Synset]:
    """The noun synsets by their offset."""
    synsets = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):  # the licence
            continue
        head, text = line.split(" | ", 1)
        fields = head.split()
        words = int(fields[3], 16)
        first = 5 + 2 * words
        pointers = fields[first : first + 4 * int(fields[first - 1])]
        # four fields each: sign, offset, part of speech, words; "@" and "@i" point to a hypernym
        above = [at for sign, at in zip(pointers[0::4], pointers[1::4], strict=False) if sign in ("@", "@i")]
        gloss = text.split('; "')[0].strip()
        synsets[fields[0]] = Synset(fields[1], fields[4].replace("_", " "), gloss, above[0] if above else None)
    return synsets


def classes(synsets: dict[str, Synset]) -> dict[str, list[str]]:
    """Synsets of each class, which is given by its own offset."""
    lines = {}
    for offset, synset in synsets.items():
        if synset.file not in DOMAINS:
            continue
        line, at = [offset], synset.hypernym
        while at is not None and at not in line:
            line.append(at)
            at = synsets[at].hypernym
        lines[offset] = [one for one in reversed(line) if synsets[one].file == synset.file]
    size = Counter(one for line in lines.values() for one in line)
    found = defaultdict(list)
    for offset, line in lines.items():
        top = next((one for one in line if size[one] <= MOST), None)
        if top is not None and size[top] >= LEAST:
            found[top].append(offset)
    in_file = defaultdict(list)
    for top in sorted(found, key=lambda top: (-size[top], top)):
        in_file[synsets[top].file].append(top)
    return {top: found[top] for tops in in_file.values() if len(tops) >= 2 for top in tops[:CHILDREN]}


def scrambled(offsets: list[str]) -> list[str]:
    """In an order that has nothing to do with the database's."""
    return sorted(offsets, key=lambda offset: hashlib.sha256(offset.encode()).digest())


def rows(synsets: dict[str, Synset]) -> list[tuple[str, ...]]:
    """The rows of the slice, in the order of the database."""
    found = classes(synsets)
    first = {synset.gloss.lower(): offset for offset, synset in reversed(synsets.items())}
    kept = []
    for rank, top in enumerate(scrambled(list(found))):
        wanted = round(TRAIN[0] * (TRAIN[1] / TRAIN[0]) ** (rank / (len(found) - 1)))
        distinct = [offset for offset in found[top] if first[synsets[offset].gloss.lower()] == offset]
        for k, offset in enumerate(scrambled(distinct)[: TEST + wanted]):
            one, part = synsets[offset], "test" if k < TEST else "train"
            kept.append((offset, one.lemma, one.gloss, DOMAINS[one.file], synsets[top].lemma, part))
    return sorted(kept)


def packed(table: list[tuple[str, ...]]) -> bytes:
    """The table as gzipped CSV; the same rows give the same bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(table)
    return gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0)


if __name__ == "__main__":
    FILE.write_bytes(packed(rows(read(database()))))
    print(FILE)
