"""How good are the representations? Metrics, probes, controls, and the report."""

from keystep.evals import metrics

__all__ = ["metrics"]
