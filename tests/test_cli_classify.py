"""`multilevel classify train` and `predict`: what they print and write, and mistakes told in one line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import Run
from command_line import run as run
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import StandardScaler
from taxonomy_samples import articles

import multilevel as ml
from multilevel.taxonomy.fitting import hold_out
from multilevel.taxonomy.tree import distinct_labels

TRAIN = (
    "classify", "train", "train.csv", "--text", "title", "--levels", "kind,group,sort", "--out", "m.zip", "--threads", "1",
)  # fmt: skip
FAST = ("--scales", "4,3,2")


def titles(test: bool = False) -> pd.DataFrame:
    """The made articles as texts of words, their labels in three columns with blanks."""
    made = articles()
    x, y = (made.test_x, made.test_y) if test else (made.x, made.y)
    counts = np.rint(x.toarray() / np.where(x.toarray() > 0, x.toarray(), np.inf).min(axis=1, keepdims=True)).astype(int)
    texts = [" ".join(f"word{j}" for j in np.flatnonzero(row) for _ in range(row[j])) for row in counts]
    frame = pd.DataFrame(y, columns=["kind", "group", "sort"]).replace("", None)
    return pd.concat([pd.Series(texts, name="title"), frame], axis=1)


@pytest.fixture
def files(run: Run, tmp_path: Path) -> Run:
    titles().to_csv(tmp_path / "train.csv", index=False)
    titles(test=True).to_csv(tmp_path / "new.csv", index=False)
    return run


def mistake(result: tuple[int, str, str], *words: str) -> None:
    status, out, err = result
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("multilevel: ")
    for word in words:
        assert word in err


def in_python(**options: object) -> tuple[TfidfVectorizer, ml.TaxonomyClassifier]:
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    x = vectorizer.fit_transform(titles()["title"])
    levels = ["kind", "group", "sort"]
    chosen = {"scales": "fixed", "prior_scale": [4.0, 3.0, 2.0], **options}
    return vectorizer, ml.TaxonomyClassifier(levels=levels, n_jobs=1, **chosen).fit(x, titles()[levels])


# -- what works -----------------------------------------------------------------------------------------------


def test_a_classifier_is_trained_as_in_python(files: Run) -> None:
    status, out, err = files(*TRAIN, *FAST, "--test", "0")
    assert (status, err) == (0, "")
    assert out.startswith("Taxonomy of 9 leaves: 3 at 'kind', 6 at 'group', 4 at 'sort'\nTrained on 400 rows of ")
    assert "Scales of the deviations: kind 4, group 3, sort 2" in out and out.endswith("Wrote m.zip\n")
    assert "Held out" not in out
    counts = titles()["kind"].value_counts()
    for name, leaves in (("animals", 5), ("tools", 3), ("music", 1)):
        assert re.search(rf"^{name} +{leaves} +{counts[name]}$", out, re.M)
    vectorizer, model = in_python()
    pipe = ml.read("m.zip")
    new = titles(test=True)["title"]
    np.testing.assert_array_equal(pipe.predict_proba(new), model.predict_proba(vectorizer.transform(new)))


def test_scores_of_held_out_rows(files: Run) -> None:
    """Fitted on the same rows in Python, the scores are the same."""
    status, out, err = files(*TRAIN, *FAST, "--test", "0.3", "--seed", "5")
    assert status == 0, err
    frame = titles()
    labels = distinct_labels(frame[["kind", "group", "sort"]])[0]
    alike = pd.factorize(frame["title"])[0]
    fit, held = hold_out(labels.astype(np.int32), alike, 0.3, np.random.default_rng(5))
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    x = vectorizer.fit_transform(frame["title"].iloc[fit])
    levels = ["kind", "group", "sort"]
    model = ml.TaxonomyClassifier(levels=levels, scales="fixed", prior_scale=[4, 3, 2], n_jobs=1)
    model.fit(x, frame[levels].iloc[fit])
    p = model.predict_proba(vectorizer.transform(frame["title"].iloc[held]), level="kind")
    truth = np.searchsorted(model.classes_at("kind"), frame["kind"].iloc[held])
    loss, right = -np.log(p[np.arange(len(held)), truth]).mean(), (p.argmax(axis=1) == truth).mean()
    assert f"Held out: {len(held)} rows, fitted on {len(fit)}" in out
    assert re.search(rf"^kind +3 +{len(held)} +{right:.3f} +{loss:.4f}$", out, re.M), out
    leaf_loss = re.search(r"^sort +9 +\d+ +[0-9.]+ +([0-9.]+)$", out, re.M)
    assert leaf_loss is not None and f"hold-out log-loss {leaf_loss[1]}" in out


def test_scales_are_found_and_the_same_seed_gives_the_same_file(files: Run, tmp_path: Path) -> None:
    first = files(*TRAIN, "--seed", "3")
    content = (tmp_path / "m.zip").read_bytes()
    assert first[0] == 0 and files(*TRAIN, "--seed", "3") == first
    assert (tmp_path / "m.zip").read_bytes() == content
    model = ml.TaxonomyClassifier.load("m.zip")
    told = ", ".join(f"{name} {value:.4g}" for name, value in model.scales_.items())
    assert f"Scales of the deviations: {told}" in first[1] and "kind" in told
    assert files(*TRAIN, "--seed", "4")[1] != first[1]


def test_predictions(files: Run) -> None:
    assert files(*TRAIN, *FAST, "--test", "0")[0] == 0
    status, out, err = files("classify", "predict", "m.zip", "new.csv", "--out", "p.csv")
    assert (status, out, err) == (0, "Wrote p.csv (400 rows)\n", "")
    found, new = pd.read_csv("p.csv"), titles(test=True)
    assert list(found) == [*new, "label", "path", "probability kind", "probability group", "probability sort"]
    vectorizer, model = in_python()
    x = vectorizer.transform(new["title"])
    assert found["label"].tolist() == model.predict(x).tolist()
    assert found["path"][0].endswith(found["label"][0])
    for depth, level in enumerate(("kind", "group", "sort"), 1):
        names = [path.split("/")[depth - 1] if len(path.split("/")) >= depth else None for path in found["path"]]
        p, at = model.predict_proba(x, level=level), model.classes_at(level).tolist()
        truth = [np.nan if name is None else p[row, at.index(name)] for row, name in enumerate(names)]
        np.testing.assert_allclose(found[f"probability {level}"], truth, atol=1e-12)
    printed = files("classify", "predict", "m.zip", "new.csv")[1]
    assert printed == Path("p.csv").read_text()


def test_predictions_at_a_level_with_another_prior_and_with_a_rule(files: Run) -> None:
    assert files(*TRAIN, *FAST, "--test", "0")[0] == 0
    vectorizer, model = in_python()
    x = vectorizer.transform(titles(test=True)["title"])
    cases = {
        ("--level", "group"): {"level": "group"},
        ("--level", "1"): {"level": 1},
        ("--prior", "uniform"): {"prior": "uniform"},
        ("--prior", "0.5", "--stop", "0.7"): {"prior": 0.5, "stop": 0.7},
    }
    for given, options in cases.items():
        assert files("classify", "predict", "m.zip", "new.csv", "--out", "p.csv", *given)[0] == 0
        found = pd.read_csv("p.csv")
        truth = [None if label is None else str(label) for label in model.predict(x, **options).tolist()]
        assert found["label"].astype(object).where(found["label"].notna(), None).tolist() == truth
        deepest = {"group": "group", 1: "kind"}.get(options.get("level"), "sort")
        assert list(found)[-1] == f"probability {deepest}"
    mistake(files("classify", "predict", "m.zip", "new.csv", "--prior", "even"), "--prior 'even' is not known: give")
    mistake(files("classify", "predict", "m.zip", "new.csv", "--level", "genus"), "level='genus'", "'group'")


def test_a_classifier_saved_in_python(files: Run) -> None:
    vectorizer, model = in_python()
    model.save("own.zip", inputs=vectorizer)
    predict = ("classify", "predict", "own.zip", "new.csv", "--out", "p.csv")
    mistake(files(*predict), "'own.zip' was saved in Python and names no column of texts: give --text COLUMN")
    mistake(files(*predict, "--text", "titel"), "--text names 'titel'", "did you mean 'title'?")
    assert files(*predict, "--text", "title") == (0, "Wrote p.csv (400 rows)\n", "")
    new = titles(test=True)
    assert pd.read_csv("p.csv")["label"].tolist() == model.predict(vectorizer.transform(new["title"])).tolist()
    assert files(*TRAIN, *FAST, "--test", "0")[0] == 0
    new.rename(columns={"title": "Titel"}).to_csv("renamed.csv", index=False)
    assert files("classify", "predict", "m.zip", "renamed.csv", "--text", "Titel", "--out", "q.csv")[0] == 0
    assert pd.read_csv("q.csv")["label"].tolist() == pd.read_csv("p.csv")["label"].tolist()


def test_a_classifier_calibrated_in_python(files: Run) -> None:
    vectorizer, model = in_python()
    new = titles(test=True)
    x = vectorizer.transform(new["title"])
    predict = ("classify", "predict", "own.zip", "new.csv", "--text", "title", "--prior", "calibrated", "--out", "p.csv")
    model.save("own.zip", inputs=vectorizer)
    mistake(files(*predict), "--prior calibrated needs a classifier that was calibrated in Python", "'own.zip'")
    model.calibrate(x, new[["kind", "group", "sort"]], tau=0.5).save("own.zip", inputs=vectorizer)
    assert files(*predict)[0] == 0
    assert pd.read_csv("p.csv")["label"].tolist() == model.predict(x, prior="calibrated").tolist()


def test_answers_are_checked_in_the_words_of_the_command_line(files: Run) -> None:
    for given, words in {
        ("--stop", "2"): "--stop 2 must be a probability from 0 to 1",
        ("--stop", "nan"): "--stop nan must be a probability from 0 to 1",
        ("--stop=-0.5",): "--stop -0.5 must be a probability from 0 to 1",
        ("--prior", "7"): "--prior 7 must be 'uniform' or a power from 0 to 1",
        ("--prior", "nan"): "--prior nan must be 'uniform' or a power from 0 to 1",
    }.items():
        mistake(files("classify", "predict", "m.zip", "new.csv", *given), words)


def test_equal_words_are_held_out_together_and_not_warned_of(files: Run) -> None:
    """Each title three times in other writing: every held-out title is held out in all three."""
    frame = titles()[:100]
    with pytest.warns(ml.MultilevelWarning, match="rows are copies"):
        ml.TaxonomyClassifier(scales="fixed", n_jobs=1).fit(
            TfidfVectorizer().fit_transform([*frame["title"]] * 2), [*frame["kind"]] * 2
        )
    copies = [frame, frame.assign(title=frame["title"].str.upper()), frame.assign(title=frame["title"] + " !")]
    pd.concat(copies).to_csv("train.csv", index=False)
    status, out, err = files(*TRAIN, *FAST)
    assert (status, err) == (0, "")
    held = re.search(r"Held out: (\d+) rows, fitted on (\d+)", out)
    assert held is not None and int(held[1]) % 3 == 0 == int(held[2]) % 3 and int(held[1]) > 30


def test_parquet_nested_and_paths_in_one_column(files: Run) -> None:
    frame = titles()
    labels = frame[["kind", "group", "sort"]].to_numpy()
    frame["path"] = [" > ".join(part for part in row if isinstance(part, str)) for row in labels]
    frame[["title", "path"]].to_parquet("train.parquet")
    frame[["title"]].to_parquet("new.parquet")
    options = ("--text", "title", "--levels", "path", "--separator", " > ", "--likelihood", "nested", "--out", "n.zip")
    status, out, err = files("classify", "train", "train.parquet", *options, "--scales", "3", "--threads", "1")
    assert status == 0 and out.startswith("Taxonomy of 9 leaves"), err
    assert files("classify", "predict", "n.zip", "new.parquet", "--out", "p.parquet")[0] == 0
    found, model = pd.read_parquet("p.parquet"), ml.read("n.zip")
    assert (found["path"].str.replace("/", " > ") == frame["path"]).mean() > 0.8
    assert found["label"].tolist() == model.predict(frame["title"]).tolist()
    assert model[-1].fitted_.likelihood == "nested"
    mistake(files("classify", "predict", "n.zip", "train.parquet"), "has a column 'path'", "rename it")


def test_columns_of_numbers(files: Run) -> None:
    generator = np.random.default_rng(2)
    frame = pd.DataFrame({"u": generator.normal(100, 20, 80), "v": generator.normal(0, 0.01, 80)})
    frame["group"] = np.where(frame["u"] > 100, "large", "little")
    frame["part"] = frame["group"] + np.where(frame["v"] > 0, " up", " down")
    frame.to_csv("numbers.csv", index=False)
    options = ("--features", "u,v", "--levels", "group,part", "--out", "n.zip", "--threads", "1")
    options += ("--scales", "3,3", "--test", "0")
    status, _, err = files("classify", "train", "numbers.csv", *options)
    assert (status, err) == (0, "")
    x = frame[["u", "v"]].to_numpy()
    model = ml.TaxonomyClassifier(levels=["group", "part"], scales="fixed", prior_scale=3, n_jobs=1)
    model.fit(StandardScaler().fit_transform(x), frame[["group", "part"]])
    np.testing.assert_array_equal(ml.read("n.zip").predict_proba(x), model.predict_proba(StandardScaler().fit_transform(x)))
    frame.loc[3, "v"] = np.nan
    frame.to_csv("holes.csv", index=False)
    told = files("classify", "predict", "n.zip", "numbers.csv", "--text", "u")
    mistake(told, "--text: 'n.zip' was trained on columns of numbers", "'u'")
    mistake(files("classify", "predict", "n.zip", "holes.csv"), "'v' is missing in row 4 (1 such row); fill it")
    frame["v"] = frame["v"].astype(object)
    frame.loc[3, "v"] = "much"
    frame.to_csv("words.csv", index=False)
    mistake(files("classify", "train", "words.csv", *options), "'v' is 'much', which is no number in row 4")


def test_help_has_examples(run: Run) -> None:
    for words in (("classify",), ("classify", "train"), ("classify", "predict")):
        status, out, _ = run(*words, "--help")
        assert status == 0 and "multilevel classify train titles.csv --text title" in out
    assert "classify" in run("--help")[1]


# -- mistakes --------------------------------------------------------------------------------------------------


def changed(options: tuple[str, ...], **other: str) -> list[str]:
    """TRAIN with the values of some options changed."""
    out = list(options)
    for name, value in other.items():
        out[out.index(f"--{name}") + 1] = value
    return out


def test_columns_that_are_not_there(files: Run) -> None:
    mistake(files(*changed(TRAIN, text="tittle")), "--text names 'tittle'", "'train.csv'", "did you mean 'title'?")
    mistake(files(*changed(TRAIN, levels="kind,groop")), "--levels names 'groop'", "did you mean 'group'?")
    mistake(files(*changed(TRAIN, levels="kind,,group")), "--levels 'kind,,group' must name different columns")
    mistake(files(*changed(TRAIN, levels="kind,kind")), "must name different columns")
    assert files(*TRAIN, *FAST, "--test", "0")[0] == 0
    titles(test=True).rename(columns={"title": "Titel"}).to_csv("renamed.csv", index=False)
    told = files("classify", "predict", "m.zip", "renamed.csv")
    mistake(told, "the classifier names 'title', which is no column of 'renamed.csv'", "'Titel'")
    titles(test=True).assign(label=1).to_csv("taken.csv", index=False)
    mistake(files("classify", "predict", "m.zip", "taken.csv"), "'taken.csv' has a column 'label'", "rename it")


def test_empty_texts_and_unknown_words(files: Run) -> None:
    frame = titles()
    frame.loc[[4, 9], "title"] = [None, "  "]
    frame.to_csv("holes.csv", index=False)
    told = files(*TRAIN[:2], "holes.csv", *TRAIN[3:])
    mistake(told, "row 5 has no text in 'title' (2 such rows of 400); leave these rows out")
    assert files(*TRAIN, *FAST, "--test", "0")[0] == 0
    mistake(files("classify", "predict", "m.zip", "holes.csv"), "row 5 has no text")
    titles().assign(title=["unheard", *titles()["title"][1:]]).to_csv("odd.csv", index=False)
    status, out, err = files("classify", "predict", "m.zip", "odd.csv", "--out", "p.csv")
    assert status == 0 and out == "Wrote p.csv (400 rows)\n"
    assert "warning: 1 text of 'odd.csv' without any word that the classifier knows (the first in row 1)" in err
    mistake(files(*TRAIN, "--min-count", "1000"), "no word occurs in at least 1000 of the", "lower --min-count")


def test_files(files: Run, tmp_path: Path) -> None:
    mistake(files(*TRAIN[:2], "none.csv", *TRAIN[3:]), "no file 'none.csv'")
    mistake(files(*TRAIN[:2], "train.txt", *TRAIN[3:]), "'train.txt'", ".csv")
    mistake(files(*changed(TRAIN, out="train.csv")), "cannot write 'train.csv': it is read by this command")
    mistake(files(*changed(TRAIN, out="none/m.zip")), "there is no directory 'none'")
    (tmp_path / "empty.csv").write_text("title,kind,group,sort\n")
    mistake(files(*TRAIN[:2], "empty.csv", *TRAIN[3:]), "'empty.csv' has no rows")
    mistake(files("classify", "predict", "train.csv", "new.csv"), "'train.csv' is no classifier saved by multilevel")
    mistake(files("classify", "predict", "m.zip", "new.csv"), "no file 'm.zip'")
    assert files(*TRAIN, *FAST, "--test", "0")[0] == 0
    mistake(files("predict", "m.zip", "new.csv"), "'m.zip' holds a classifier", "multilevel classify predict m.zip NEW")
    for command in (("summary",), ("check",), ("profile",)):
        mistake(files(*command, "m.zip"), "holds a classifier")
    mistake(files("classify", "predict", "m.zip", "new.csv", "--out", "p.doc"), "'p.doc'")
    content = bytearray((tmp_path / "m.zip").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "m.zip").write_bytes(content)
    mistake(files("classify", "predict", "m.zip", "new.csv"), "'m.zip' is damaged or incomplete")
    in_python()[1].save("own.zip")
    mistake(files("classify", "predict", "own.zip", "new.csv"), "saved in Python", "save(path, inputs=vectorizer)")


def test_options(files: Run) -> None:
    mistake(files(*TRAIN, "--scales", "best"), "--scales 'best' is not known: take holdout, cv")
    mistake(files(*TRAIN, "--scales", "1,-2,3"), "prior_scale=[1.0, -2.0, 3.0]", "positive")
    mistake(files(*TRAIN, "--test", "1"), "--test 1 must be at least 0 and less than 1")
    mistake(files(*TRAIN, "--ngrams", "0"), "--ngrams 0 must be a whole number of at least 1")
    mistake(files(*TRAIN, "--min-count", "0"), "--min-count 0")
    mistake(files(*TRAIN, "--seed", "-1"), "--seed -1")
    mistake(files(*TRAIN, "--features", "a"), "--features")
    mistake(files(*TRAIN, "--sede", "1"), "multilevel classify train has no option '--sede'; did you mean '--seed'?")
    mistake(files("classify", "predict", "a", "b", "--pirior", "1"), "multilevel classify predict has no option", "'--prior'")
    mistake(files("classify", "train", "train.csv", "--levels", "kind", "--out", "m.zip"), "--text --features")
    mistake(files("classify", "learn"), "learn")
    few = ("classify", "train", "train.csv", "--features", "title", "--levels", "kind", "--out", "m.zip", "--ngrams", "2")
    mistake(files(*few), "--ngrams belongs to --text")
    titles().assign(kind="animals")[:20].to_csv("one.csv", index=False)
    mistake(files("classify", "train", "one.csv", "--text", "title", "--levels", "kind", "--out", "m.zip"), "one class")
