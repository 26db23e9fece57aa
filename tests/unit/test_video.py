"""Poster frames, and files that only pose as videos."""

import io
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import av
import pytest
from PIL import Image, ImageChops, ImageStat

from fixtures import pictures
from media import video
from media.images import Made, Refused
from media.video import VIDEOS, poster

WIDTH, HEIGHT = 640, 480
# Mean difference of 255: the codec's losses and those of the thumbnail.
TOLERANCE = 6.0
WRONG = 15.0

#: ISO 14496-12: (p, q) goes to (a p + c q, b p + d q), q downwards. Degrees clockwise -> a, b, c, d.
MATRICES = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
#: How an upright picture lies in a recording that must be turned clockwise by so much.
RECORDED = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}

BLACK = Image.new("RGB", (WIDTH, HEIGHT))

Make = Callable[[bytes, str], Made]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """Makes the thumbnails of a video with this content."""

    def make(content: bytes, content_type: str) -> Made:
        path = tmp_path / "file"
        path.write_bytes(content)
        return poster(str(path), content_type)

    return make


def scene() -> Image.Image:
    return pictures.drawing().resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def recorded(frames: Sequence[Image.Image], format: str = "mp4", rate: int = 10) -> bytes:
    codec, options = ("libvpx-vp9", {"crf": "20", "cpu-used": "8"}) if format == "webm" else ("libx264", {})
    file = io.BytesIO()
    with av.open(file, "w", format=format) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))
    return file.getvalue()


def sound() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream: Any = container.add_stream("aac", rate=44100)
        stream.layout = "mono"
        frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        frame.sample_rate = 44100
        frame.planes[0].update(bytes(4096))
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def turned(mp4: bytes, degrees: int) -> bytes:
    """The same recording of which the container says that it is to be turned clockwise."""
    a, b, c, d = (value * 0x10000 for value in MATRICES[degrees])
    header = mp4.index(b"tkhd") + 4
    assert mp4[header] == 0, "the layout of version 0"
    matrix = header + 40
    assert struct.unpack(">9i", mp4[matrix : matrix + 36])[:5] == (0x10000, 0, 0, 0, 0x10000)
    return mp4[:matrix] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000) + mp4[matrix + 36 :]


def difference(result: Made, expected: Image.Image) -> float:
    jpeg, width, height = result.jpegs["medium"]
    thumbnail = Image.open(io.BytesIO(jpeg))
    assert thumbnail.size == (width, height)
    wanted = expected.resize(thumbnail.size, Image.Resampling.LANCZOS)
    means = ImageStat.Stat(ImageChops.difference(thumbnail.convert("RGB"), wanted)).mean
    return sum(means) / len(means)


@pytest.mark.parametrize(
    ("format", "content_type"), [("mp4", "video/mp4"), ("mov", "video/quicktime"), ("webm", "video/webm")]
)
def test_the_poster_is_a_frame_near_the_start(format: str, content_type: str, made: Make) -> None:
    result = made(recorded([scene()] * 10 + [BLACK] * 10, format), content_type)
    assert (result.width, result.height) == (WIDTH, HEIGHT)
    assert result.duration_seconds == pytest.approx(2.0, abs=0.2)
    assert {name: made[1:] for name, made in result.jpegs.items()} == {
        "large": (640, 480),
        "medium": (640, 480),
        "small": (240, 180),
    }
    assert difference(result, scene()) < TOLERANCE


@pytest.mark.parametrize(("format", "content_type"), [("mp4", "video/mp4"), ("webm", "video/webm")])
def test_black_frames_at_the_start_are_passed_over(format: str, content_type: str, made: Make) -> None:
    result = made(recorded([BLACK] * 5 + [scene()] * 5, format), content_type)
    assert difference(result, scene()) < TOLERANCE
    assert difference(result, BLACK) > WRONG


def test_a_video_that_is_black_for_long_gets_its_first_frame(made: Make) -> None:
    result = made(recorded([BLACK] * 40 + [scene()]), "video/mp4")
    assert difference(result, BLACK) < TOLERANCE


@pytest.mark.parametrize("degrees", MATRICES)
def test_a_recording_that_is_to_be_turned_comes_out_upright(degrees: int, made: Make) -> None:
    content = turned(recorded([scene().transpose(RECORDED[degrees])] * 3), degrees)
    result = made(content, "video/mp4")
    assert (result.width, result.height) == (WIDTH, HEIGHT)
    assert difference(result, scene()) < TOLERANCE


def test_a_turn_the_wrong_way_would_be_noticed(made: Make) -> None:
    result = made(turned(recorded([scene().transpose(RECORDED[90])] * 3), 270), "video/mp4")
    assert (result.width, result.height) == (WIDTH, HEIGHT)
    assert difference(result, scene()) > WRONG


# Hostile files


def refused(made: Make, content: bytes, content_type: str) -> str:
    with pytest.raises(Refused) as refusal:
        made(content, content_type)
    reason = str(refusal.value)
    assert reason[0].isupper()
    assert len(reason) <= 300
    assert "/file'" not in reason, "no path of the server"
    return reason


@pytest.mark.parametrize("content_type", VIDEOS)
@pytest.mark.parametrize(
    "make",
    [
        pictures.playlist,
        pictures.concat_list,
        pictures.html,
        pictures.svg,
        lambda: pictures.png_bomb(100, 100),
        bytes,
        lambda: b"\0" * 5000,
    ],
    ids=["m3u8", "concat", "html", "svg", "png", "empty", "zeros"],
)
def test_what_only_poses_as_a_video_is_refused_and_nothing_else_is_opened(
    make: Callable[[], bytes], content_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(make())
    sources = []
    real = av.open

    def open_noted(source: Any, *args: Any, **options: Any) -> Any:
        sources.append((source, args))
        return real(source, *args, **options)

    monkeypatch.setattr(video.av, "open", open_noted)
    with pytest.raises(Refused, match="cannot be read"):
        poster(str(path), content_type)
    # An open file and a named demuxer: FFmpeg has neither a name to follow nor a choice.
    [(source, (mode, demuxer))] = sources
    assert (source.name, mode, demuxer) == (str(path), "r", VIDEOS[content_type])


def test_a_video_without_pictures_is_refused(made: Make) -> None:
    assert refused(made, sound(), "video/mp4") == "There is no picture in this video."


@pytest.mark.parametrize("format", ["mp4", "webm"])
@pytest.mark.parametrize("part", [0.001, 0.05])
def test_a_video_that_ends_too_early_is_refused(format: str, part: float, made: Make) -> None:
    refused(made, pictures.cut(recorded([scene()] * 10, format), part), f"video/{format}")


def test_a_container_of_another_kind_is_refused(made: Make) -> None:
    refused(made, recorded([scene()] * 3, "webm"), "video/mp4")
    refused(made, recorded([scene()] * 3), "video/webm")


@pytest.mark.parametrize(
    "content_type", ["video/x-msvideo", "application/vnd.apple.mpegurl", "image/gif", ""]
)
def test_a_type_without_posters_is_refused(content_type: str, made: Make) -> None:
    assert "no thumbnails" in refused(made, recorded([scene()]), content_type)


def test_frames_of_too_many_pixels_are_refused_before_one_is_decoded(made: Make) -> None:
    class Stream:
        width, height = 10_000, 8_001

    class Container:
        class streams:
            video = (Stream(),)

        def decode(self, stream: Any) -> NoReturn:
            raise AssertionError("decoded")

    hostile: Any = Container()
    with pytest.raises(Refused, match="more than 80,000,000 pixels"):
        video._poster(hostile)
