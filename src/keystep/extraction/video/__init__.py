"""Frames of video files, cameras and arrays, with exact presentation times."""

from keystep.extraction.video.files import VideoFile, VideoInfo, open_video

__all__ = ["VideoFile", "VideoInfo", "open_video"]
