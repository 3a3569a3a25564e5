"""Evaluation of representations: metrics, probes, controls, comparisons and the report."""

from keystep.evals import metrics

__all__ = ["metrics"]
