"""Verbs of a Posterior about checks, residuals, new rows and files."""

from __future__ import annotations


class PosteriorCheckVerbs:
    """Inherited by Posterior."""
