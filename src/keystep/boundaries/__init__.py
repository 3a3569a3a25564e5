"""Where one step of a procedure ends and the next begins, found without labels, offline or on a stream."""

from keystep.boundaries.config import SegmenterConfig
from keystep.boundaries.segmenter import Segmenter, SegmenterState

__all__ = ["Segmenter", "SegmenterConfig", "SegmenterState"]
