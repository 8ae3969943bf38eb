"""Scores of predictions."""

from .metrics import *  # noqa: F403  (registers the metrics)
