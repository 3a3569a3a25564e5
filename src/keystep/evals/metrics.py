"""The metrics under their public name; `keystep.metrics` defines them, where heads can use them too."""

from keystep.metrics import (
    PROTOCOLS,
    Protocol,
    edit_score,
    segment_matches,
    segmentation_scores,
    segments,
)

__all__ = ["PROTOCOLS", "Protocol", "edit_score", "segment_matches", "segmentation_scores", "segments"]
