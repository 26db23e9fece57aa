"""Poster frames of videos. Run in the limited pool, like images.py; FFmpeg is given an open file, never a name."""

import av
import av.error
from PIL import Image

from media.formats import MAX_PIXELS, VIDEOS, Made, Refused
from media.images import thumbnails_of

__all__ = ["VIDEOS", "poster"]

#: Many recordings begin with a black frame.
_FRAMES_LOOKED_AT = 30
#: Differences of grey below this are nothing to see.
_DARK = 12


def poster(path: str, content_type: str) -> Made:
    """Three thumbnails of a frame near the start.

    Raises:
        Refused: it cannot be read, or has no pictures.
    """
    demuxer = VIDEOS.get(content_type)
    if demuxer is None:
        raise Refused(f"There are no thumbnails of {content_type}.")
    try:
        with open(path, "rb") as file, av.open(file, "r", demuxer, metadata_errors="replace") as container:
            return _poster(container)
    except Refused:
        raise
    except (av.error.FFmpegError, OSError, ValueError, IndexError, MemoryError) as error:
        # Not the whole text of the error: it names the file.
        reason = getattr(error, "strerror", None) or error
        raise Refused(f"The video cannot be read: {reason}"[:300]) from None


def _poster(container: "av.container.InputContainer") -> Made:
    if not container.streams.video:
        raise Refused("There is no picture in this video.")
    stream = container.streams.video[0]
    if stream.width * stream.height > MAX_PIXELS:
        raise Refused(f"Its pictures have more than {MAX_PIXELS:,} pixels.")
    # One thread: others would need address space of their own, and the frame wanted is near the start.
    stream.thread_count = 1
    first = None
    for number, frame in enumerate(container.decode(stream)):
        if first is None:
            first = frame
        if _shows_something(frame):
            first = frame
            break
        if number >= _FRAMES_LOOKED_AT:
            break
    if first is None:
        raise Refused("There is no picture in this video.")
    picture = _picture(first)
    if first.rotation:
        picture = picture.rotate(first.rotation, expand=True)
    seconds = None
    if container.duration is not None:
        seconds = round(container.duration / av.time_base, 3)
    width, height = picture.size
    return Made(thumbnails_of(picture), width, height, duration_seconds=seconds)


def _shows_something(frame: "av.VideoFrame") -> bool:
    low, high = _picture(frame.reformat(width=32, height=32, format="gray")).convert("L").getextrema()
    return float(high) - float(low) > _DARK  # type: ignore[arg-type]


def _picture(frame: "av.VideoFrame") -> Image.Image:
    picture: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
    return picture
