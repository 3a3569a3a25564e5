"""Frames of video files, cameras and arrays, by presentation time."""

from keystep.extraction.video.files import VideoFile, VideoInfo, open_video

__all__ = ["VideoFile", "VideoInfo", "open_video"]
