"""A classifier in one file, and back; a plain logistic regression of it.

The file is that of a fit (`archive`) with a format of its own: options and labels as JSON, numbers as arrays, no pickle.
What is read is held against the rest of the file before it is used.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from .. import archive
from ..archive import need
from ..errors import DataError, FileError, OptionError
from .checks import dtype_name
from .fitting import FittedTree
from .online import Seen
from .packing import Packer, Unpacker
from .tree import Taxonomy

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

    from .estimator import TaxonomyClassifier
    from .inputs import Numbers, Texts

__all__ = ["StorageVerbs", "read_parts", "restore", "write"]

Array = npt.NDArray[Any]

OF_ROWS = ("seen_", "row_hashes_")  # attributes that tell of the training rows, and are not needed to predict


class StorageVerbs:
    """Inherited by TaxonomyClassifier."""

    if TYPE_CHECKING:
        tree_: Taxonomy
        fitted_: FittedTree
        classes_: npt.NDArray[Any]
        n_features_in_: int
        max_iter: int

        def get_params(self, deep: bool = True) -> dict[str, Any]: ...

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        seen: bool = True,
        dtype: str | None = None,
        drop_below: float = 0.0,
        inputs: Any = None,
    ) -> None:
        """Write the classifier to one file that `multilevel.read` and `load` open; no pickle.

        Parameters
        ----------
        path : str or path
            Replaced only once the new file is complete.
        seen : bool
            Keep what the model keeps of the rows it has seen: sums of them, and the curvature of their likelihood. Without it
            the file is smaller and predicts the same, but cannot learn on (`partial_fit`, `add_class`) nor tell the standard
            deviations of `explain` and the pooling of `shrinkage_`.
        dtype : {None, "float16"}
            Store the coefficients as they are, or in half precision (three digits; predictions change a little).
        drop_below : float
            Features' deviations smaller than this become zero, which takes hardly any room; 0 keeps all.
        inputs : sklearn.feature_extraction.text.TfidfVectorizer, optional
            The fitted vectoriser that made the rows of X. The file keeps it too: `multilevel.read` then gives a Pipeline that
            takes texts, and ``multilevel classify predict`` a table. A pipeline that was read is saved again by
            ``pipe[-1].save(path, inputs=pipe[0])``.

        Raises
        ------
        FileError
            When the file cannot be written.
        DataError
            Labels or options of a type that the file cannot hold.
        OptionError
            Another dtype, coefficients too large for it, a negative `drop_below`; `inputs` of another kind, not fitted, with
            functions as options, or making another number of features.
        """
        from sklearn.utils.validation import check_is_fitted

        from ..model import check_flag
        from .inputs import Texts

        check_is_fitted(self)
        check_flag("seen", seen)
        texts = None if inputs is None else Texts.of(inputs, self.n_features_in_)
        write(path, self, texts, bool(seen), dtype, drop_below)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Open a classifier written by `save`, or by ``multilevel classify train``.

        Parameters
        ----------
        path : str or path
            Where the file has a vectoriser too, `multilevel.read` gives both as a Pipeline; this is the classifier alone.

        Raises
        ------
        FileError
            When there is no such file, or it is damaged, foreign, or of a newer version.
        """
        found = read_parts(path)[0]
        if not isinstance(found, cls):
            raise FileError(f"{archive.path_text(path)!r} holds a {type(found).__name__}, no {cls.__name__}")
        return found

    def to_sklearn(self) -> LogisticRegression:
        """A scikit-learn LogisticRegression with the coefficients of the leaves and the same probabilities.

        Returns
        -------
        sklearn.linear_model.LogisticRegression
            Its `coef_` are (leaves, features), of two leaves (1, features). The tree is not in it.

        Raises
        ------
        OptionError
            For likelihood="nested", which is no single softmax.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        if self.fitted_.likelihood == "nested":
            raise OptionError(
                "likelihood='nested' is a softmax at each node, which no logistic regression is: fit with likelihood='flat'"
            )
        coefficients = self.fitted_.leaf_coefficients().astype(np.float64).T
        if self.fitted_.offset is not None:
            coefficients[:, -1] += self.fitted_.offset
        if len(coefficients) == 2:
            coefficients = coefficients[1:] - coefficients[:1]
        out = LogisticRegression(max_iter=self.max_iter)
        out.classes_ = self.classes_
        out.coef_, out.intercept_ = np.ascontiguousarray(coefficients[:, :-1]), coefficients[:, -1].copy()
        out.n_features_in_ = self.n_features_in_
        out.n_iter_ = np.array([self.fitted_.evaluations], dtype=np.int32)
        if hasattr(self, "feature_names_in_"):
            out.feature_names_in_ = self.feature_names_in_
        return out


# -- writing --------------------------------------------------------------------------------------------------


def write(
    path: str | os.PathLike[str],
    classifier: Any,
    inputs: Texts | Numbers | None = None,
    seen: bool = True,
    dtype: str | None = None,
    drop_below: float = 0.0,
) -> None:
    """Write a classifier, and how rows of a table become its features; see `StorageVerbs.save`."""
    if dtype is not None and (not isinstance(dtype, str) or dtype != "float16"):
        raise OptionError(
            f"dtype={dtype!r} is not known: take None, which stores coefficients as they are, or 'float16'"
        )
    if (
        isinstance(drop_below, bool)
        or not isinstance(drop_below, (int, float, np.number))
        or not 0 <= drop_below < np.inf
    ):
        raise OptionError(f"drop_below={drop_below!r} must be a number that is not negative")
    state = {name: value for name, value in vars(classifier).items() if name.endswith("_") and not name.startswith("_")}
    if not seen:
        state = {name: value for name, value in state.items() if name not in OF_ROWS}
    narrow: list[Array] = []
    state = {name: _thinned(value, float(drop_below), dtype, narrow) for name, value in state.items()}
    packer = Packer(narrow)
    header = {
        "format": archive.CLASSIFIER,
        "class": "TaxonomyClassifier",
        "state": {name: packer.pack(value, name) for name, value in state.items()},
        "options": _options(classifier, packer),
        "inputs": None if inputs is None else inputs.pack(packer),
        "trees": packer.trees,
    }
    archive.write(path, header, packer.arrays)


def _options(classifier: Any, packer: Packer) -> dict[str, Any]:
    """The constructor's options; a tree given as a graph or a data frame is stored as the Taxonomy it was read as."""
    out = {}
    for name, value in classifier.get_params(deep=False).items():
        try:
            value = value.to_numpy() if hasattr(value, "to_numpy") and name != "tree" else value
            out[name] = packer.pack(value, f"the option {name}")
        except DataError:
            if name != "tree":
                raise
            out[name] = packer.pack(classifier.tree_, "the option tree")
    return out


def _thinned(value: Any, drop_below: float, dtype: str | None, narrow: list[Array]) -> Any:
    """Fitted trees with small deviations dropped; arrays to be stored with 16 bits are added to `narrow`."""
    if isinstance(value, list) and value and all(isinstance(one, FittedTree) for one in value):
        return [_thinned(one, drop_below, dtype, narrow) for one in value]
    if not isinstance(value, FittedTree):
        return value
    u = value.deviations
    if drop_below > 0:
        u = u.copy()
        last = u[[-1]]
        numbers = u.data if hasattr(u, "indptr") else u
        numbers[np.abs(numbers) < drop_below] = 0
        if hasattr(u, "indptr"):
            u = _with_last_row(u, last)
        else:
            u[[-1]] = last
    if dtype is not None:
        numbers = u.data if hasattr(u, "indptr") else u
        if numbers.size and np.abs(numbers).max() > np.finfo(np.float16).max:
            raise OptionError(
                f"a coefficient is {np.abs(numbers).max():.3g}, too large for dtype='float16' (65504 at most)"
            )
        narrow.append(numbers)
    return dataclasses.replace(value, deviations=u)


def _with_last_row(u: Any, last: Any) -> Any:
    import scipy.sparse as sp

    u.eliminate_zeros()
    return sp.csr_array(sp.vstack([u[:-1], last]))


# -- reading --------------------------------------------------------------------------------------------------


def restore(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> Any:
    """What `multilevel.read` gives: the classifier, or a pipeline of inputs and classifier."""
    classifier, inputs = parts(header, arrays)
    if inputs is None:
        return classifier
    from sklearn.pipeline import Pipeline

    return Pipeline(
        [("tfidf" if type(inputs).__name__ == "Texts" else "scale", inputs.step), ("classifier", classifier)]
    )


def read_parts(path: str | os.PathLike[str]) -> tuple[Any, Texts | Numbers | None]:
    """A saved classifier, and how rows of a table become its features, where the file says so.

    Raises
    ------
    FileError
        When there is no such file, or it is no classifier, damaged, or of a newer version.
    """
    name = archive.path_text(path)
    with archive.open_regular(name) as file:
        ours = archive.is_ours(file)
        if not ours:
            what = "is empty" if ours is None else "is no classifier saved by multilevel"
            raise FileError(
                f"{name!r} {what}; one is saved with save(path), or by multilevel classify train --out FILE"
            )
        found = archive.restored(
            file, name, lambda header, arrays: parts(header, arrays) if header["format"] == archive.CLASSIFIER else None
        )
    if found is not None:
        return found
    raise FileError(f"{name!r} holds a fit or a posterior, no classifier; open it with multilevel.read(path)")


def parts(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> tuple[TaxonomyClassifier, Texts | Numbers | None]:
    """Classifier and inputs of a file that was read."""
    try:
        from . import inputs
        from .estimator import TaxonomyClassifier
    except ImportError as missing:
        raise archive.NewerError(f"holds a classifier, and {missing}") from None
    need(header["class"] == "TaxonomyClassifier", "the kind of classifier is unknown")
    unpacker = Unpacker(arrays, header["trees"])
    options = {name: unpacker.unpack(value) for name, value in header["options"].items()}
    known = set(TaxonomyClassifier().get_params())
    need(options.keys() <= known, "an option is unknown")
    need(dtype_name(options["dtype"]) in ("float32", "float64"), "the option dtype is unknown")
    out = TaxonomyClassifier(**options)
    for name, value in header["state"].items():
        state = name.endswith("_") and not name.startswith("_") and name.isidentifier()
        # an attribute must not hide a verb
        need(state and not callable(getattr(TaxonomyClassifier, name, None)), f"it has an unknown part {name!r}")
        need(not isinstance(getattr(TaxonomyClassifier, name, None), property), f"it has an unknown part {name!r}")
        out.__dict__[name] = unpacker.unpack(value)
    _check(out)
    step = inputs.restore(header["inputs"], unpacker)
    need(step is None or step.features == out.n_features_in_, "the inputs do not fit the classifier")
    return out, step


def _check(classifier: Any) -> None:
    """Whether the parts fit each other."""
    tree, fitted = classifier.tree_, classifier.fitted_
    need(isinstance(tree, Taxonomy) and len(tree.leaves) >= 2, "the tree is missing")
    features = classifier.n_features_in_
    need(type(features) is int and features >= 0, "the number of features is missing")
    _check_fitted(fitted, tree, features)
    for draw in getattr(classifier, "draws_", None) or ():
        _check_fitted(draw, tree, features)
    leaves = len(tree.leaves)
    for name, size in (("node_weight_", len(tree)), ("class_shares_", leaves)):
        value = getattr(classifier, name)
        need(_numbers(value, (size,)) and bool((value >= 0).all()), f"{name} has a wrong shape")
    need(isinstance(classifier.classes_, np.ndarray), "the classes are missing")
    need(
        classifier.classes_.tolist() == [_plain(tree.labels[k]) for k in tree.leaves], "the classes are not the tree's"
    )
    names = getattr(classifier, "feature_names_in_", None)
    need(
        names is None or (isinstance(names, np.ndarray) and names.shape == (features,)),
        "the names of features are missing",
    )
    seen = getattr(classifier, "seen_", None)
    if seen is not None:
        _check_seen(seen, fitted, features)


def _check_fitted(fitted: Any, tree: Taxonomy, features: int) -> None:
    need(isinstance(fitted, FittedTree) and fitted.tree == tree, "the coefficients are of another tree")
    need(fitted.likelihood in ("flat", "nested"), "the likelihood is unknown")
    u, shape = fitted.deviations, fitted.shape
    sparse = hasattr(u, "indptr")
    need(
        (sparse or isinstance(u, np.ndarray)) and sparse == (fitted.likelihood == "nested"),
        "the coefficients are missing",
    )
    need(
        u.dtype in (np.float32, np.float64) and u.shape == (features + 1, len(tree)),
        "the coefficients have a wrong shape",
    )
    need(bool(np.isfinite(u.data if sparse else u).all()), "a coefficient is no number")
    cells = shape.cell
    need(
        _numbers(fitted.scales, (len(shape.names),)) and bool((fitted.scales > 0).all()),
        "the scales have a wrong shape",
    )
    groups = cells.ndim == 2 and cells.shape[1] == len(tree) and len(cells) > 0
    need(groups and cells.dtype.kind == "i", "the scales are of other nodes")
    need(bool(((cells >= -1) & (cells < len(shape.names))).all()), "a scale is out of range")
    need(isinstance(shape.intercept, float) and shape.intercept > 0, "the scale of the intercepts is missing")
    need(fitted.offset is None or _numbers(fitted.offset, (len(tree.leaves),)), "the offset has a wrong shape")


def _check_seen(seen: Any, fitted: FittedTree, features: int) -> None:
    tree = fitted.tree
    nested = fitted.likelihood == "nested"
    need(isinstance(seen, Seen) and hasattr(seen.curvature, "indptr") == nested, "what is kept of the rows is missing")
    width = len(tree) if nested else len(tree.leaves)
    sizes = (seen.curvature.shape, seen.sums.shape, seen.squares.shape)
    need(
        sizes == ((features + 1, width), (len(tree), features), (len(tree), features)), "what is kept has a wrong shape"
    )
    for one in (seen.curvature, seen.sums, seen.squares):
        values = one.data if hasattr(one, "indptr") else one
        need(values.dtype.kind == "f" and bool(np.isfinite(values).all()), "what is kept of the rows is no number")


def _numbers(value: Any, shape: tuple[int, ...]) -> bool:
    fits = isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.shape == shape
    return fits and bool(np.isfinite(value).all())


def _plain(label: Any) -> Any:
    return label.item() if isinstance(label, np.generic) else label
