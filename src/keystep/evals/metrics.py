"""Public name of the metrics in `keystep.metrics`, which heads use too."""

from keystep.metrics import (
    PROTOCOLS,
    Protocol,
    edit_score,
    segment_matches,
    segmentation_scores,
    segments,
)

__all__ = ["PROTOCOLS", "Protocol", "edit_score", "segment_matches", "segmentation_scores", "segments"]
