"""Thumbnails of every kind of picture, and files that are no picture or too much of one."""

import io
import random
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image, ImageChops, ImageStat, PngImagePlugin

from fixtures import pictures
from media.images import MAX_PIXELS, PICTURES, SIZES, Made, Refused, thumbnails

# Mean difference to the expected picture, of 255, that a thumbnail may have: JPEG at quality 80 alone makes
# 1.4, 2.0 and 3.5 of it, because the drawing is mostly edges.
TOLERANCE = {"large": 2.4, "medium": 2.8, "small": 4.0}
# 256 colours of their own besides.
OF_PALETTES = {"PNG, palette and alpha": 0.5}
# An edge that is mirrored, upside down or a few pixels off makes at least this.
WRONG = 10.0


sample = cache(pictures.sample)


@pytest.fixture
def made(tmp_path: Path) -> Callable[[bytes, str], Made]:
    """Makes the thumbnails of a file with this content."""

    def make(content: bytes, content_type: str = "image/jpeg") -> Made:
        path = tmp_path / "file"
        path.write_bytes(content)
        return thumbnails(str(path), content_type)

    return make


Make = Callable[[bytes, str], Made]


def opened(jpeg: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(jpeg), formats=["JPEG"])
    picture.load()
    return picture


def difference(picture: Image.Image, expected: Image.Image) -> float:
    wanted = expected.resize(picture.size, Image.Resampling.LANCZOS)
    means = ImageStat.Stat(ImageChops.difference(picture.convert("RGB"), wanted)).mean
    return sum(means) / len(means)


def saved(picture: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def test_there_is_a_sample_of_every_type_that_gets_thumbnails() -> None:
    assert {content_type for content_type, _, _ in pictures.SAMPLES.values()} == set(PICTURES)


@pytest.mark.parametrize("name", pictures.SAMPLES)
def test_the_three_thumbnails_look_like_the_picture(name: str, made: Make) -> None:
    content_type, content, expected = sample(name)
    result = made(content, content_type)
    original = (result.width, result.height)
    assert original in ((1600, 1200), (800, 600))
    assert list(result.jpegs) == ["large", "medium", "small"]
    for size, (jpeg, width, height) in result.jpegs.items():
        thumbnail = opened(jpeg)
        assert thumbnail.size == (width, height)
        assert max(width, height) == min(SIZES[size], max(original))
        assert width * 3 == height * 4
        assert thumbnail.mode in ("RGB", "L")
        allowed = TOLERANCE[size] + OF_PALETTES.get(name, 0)
        assert difference(thumbnail, expected) < allowed, size


def test_a_wrong_orientation_would_be_noticed() -> None:
    right = pictures.drawing().resize((240, 180), Image.Resampling.LANCZOS)
    for turn in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_90):
        assert difference(right.transpose(turn).resize(right.size), pictures.drawing()) > WRONG


@pytest.mark.parametrize("name", pictures.SAMPLES)
def test_thumbnails_carry_nothing_of_the_original_but_what_is_seen(name: str, made: Make) -> None:
    content_type, content, _ = sample(name)
    for jpeg, _, _ in made(content, content_type).jpegs.values():
        assert set(opened(jpeg).info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert not opened(jpeg).getexif()
        for mark in (b"Exif", b"ICC_PROFILE", b"http://ns.adobe.com", b"Fieldsync", b"Wide gamut"):
            assert mark not in jpeg


def test_a_comment_of_the_original_is_not_in_the_thumbnails(made: Make) -> None:
    for jpeg, _, _ in made(pictures.jpeg(comment=b"secret"), "image/jpeg").jpegs.values():
        assert b"secret" not in jpeg


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright(orientation: int, made: Make) -> None:
    result = made(pictures.jpeg(orientation=orientation), "image/jpeg")
    assert (result.width, result.height) == (1600, 1200)
    for size, (jpeg, width, height) in result.jpegs.items():
        assert width > height
        assert difference(opened(jpeg), pictures.drawing()) < TOLERANCE[size]


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_orientation_counts_in_every_format_that_has_it(orientation: int, format: str, made: Make) -> None:
    turn = pictures.STORED_AS[orientation]
    assert turn is not None
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = orientation
    content = saved(pictures.drawing().transpose(turn), format, exif=exif)
    result = made(content, f"image/{format.lower()}")
    assert (result.width, result.height) == (1600, 1200)
    assert difference(opened(result.jpegs["small"][0]), pictures.drawing()) < TOLERANCE["small"] * 1.2


def test_a_time_that_only_says_when_the_file_was_changed_is_not_when_the_photo_was_taken(made: Make) -> None:
    exif = Image.Exif()
    exif[0x0132] = "2026:05:04 10:11:12"
    assert made(saved(pictures.drawing(), "JPEG", exif=exif), "image/jpeg").taken_at is None


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_there_is_not_changes_nothing(orientation: int, made: Make) -> None:
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = orientation
    result = made(saved(pictures.drawing(), "JPEG", quality=92, exif=exif), "image/jpeg")
    assert (result.width, result.height) == (1600, 1200)
    assert difference(opened(result.jpegs["small"][0]), pictures.drawing()) < TOLERANCE["small"]


@pytest.mark.parametrize("size", [(1, 1), (1, 240), (239, 100), (240, 240), (3, 2)])
def test_a_small_picture_is_not_enlarged(size: tuple[int, int], made: Make) -> None:
    for format in ("JPEG", "PNG", "GIF"):
        content = saved(Image.new("RGB", size, "#ff0000"), format)
        result = made(content, f"image/{format.lower()}")
        assert (result.width, result.height) == size
        for jpeg, width, height in result.jpegs.values():
            assert (width, height) == opened(jpeg).size == size


@pytest.mark.parametrize(("size", "small"), [((5000, 3), (240, 1)), ((3, 5000), (1, 240))])
def test_the_short_side_of_a_very_long_picture_stays_one_pixel(
    size: tuple[int, int], small: tuple[int, int], made: Make
) -> None:
    for format in ("JPEG", "PNG", "WEBP"):
        content = saved(Image.new("RGB", size, "#0000ff"), format)
        result = made(content, f"image/{format.lower()}")
        assert (result.width, result.height) == size
        assert result.jpegs["small"][1:] == small
        assert max(result.jpegs["large"][1:]) == 1280


def test_sizes_that_do_not_divide_keep_the_shape(made: Make) -> None:
    result = made(saved(Image.new("RGB", (4031, 3023)), "JPEG"), "image/jpeg")
    sizes = [(width, height) for _, width, height in result.jpegs.values()]
    assert sizes == [(1280, 960), (640, 480), (240, 180)]


# Colours


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(format: str, made: Make) -> None:
    ramp = Image.frombytes("I;16", (256, 64), b"".join(struct.pack("<H", x * 257) for x in range(256)) * 64)
    thumbnail = opened(made(saved(ramp, format), f"image/{format.lower()}").jpegs["large"][0])
    shades = [int(thumbnail.convert("L").getpixel((x, 32))) for x in (0, 64, 128, 192, 255)]  # type: ignore[arg-type]
    assert shades == pytest.approx([0, 64, 128, 192, 255], abs=3)


def test_a_dark_picture_of_sixteen_bits_stays_dark(made: Make) -> None:
    dark = Image.frombytes("I;16", (64, 64), struct.pack("<H", 200) * 64 * 64)
    thumbnail = opened(made(saved(dark, "PNG"), "image/png").jpegs["large"][0])
    assert thumbnail.convert("L").getextrema()[1] <= 2


def test_numbers_beyond_sixteen_bits_are_spread_from_black_to_white(made: Make) -> None:
    for low, high in ((-1000.0, 1000.0), (0.0, 1e6), (0.0, 1.0)):
        values = [low + (high - low) * x / 255 for x in range(256)] * 4
        picture = Image.frombytes("F", (256, 4), struct.pack(f"<{len(values)}f", *values))
        low_shade, high_shade = (
            opened(made(saved(picture, "TIFF"), "image/tiff").jpegs["large"][0]).convert("L").getextrema()
        )
        assert float(low_shade) < 10  # type: ignore[arg-type]
        assert float(high_shade) > 245, (low, high)  # type: ignore[arg-type]


def test_numbers_that_are_none_are_read_or_refused(made: Make) -> None:
    for value in (float("nan"), float("inf"), -float("inf")):
        picture = Image.frombytes("F", (4, 4), struct.pack("<16f", *[0.0, value] * 8))
        with suppress(Refused):
            made(saved(picture, "TIFF"), "image/tiff")


def test_one_colour_of_a_png_may_be_transparent(made: Make) -> None:
    picture = Image.new("RGB", (64, 64), "#00ff00")
    picture.paste("#ff0000", (32, 0, 64, 64))
    content = saved(picture, "PNG", transparency=(0, 255, 0))
    thumbnail = opened(made(content, "image/png").jpegs["large"][0]).convert("RGB")
    assert thumbnail.getpixel((8, 32)) == pytest.approx((255, 255, 255), abs=3)
    assert thumbnail.getpixel((56, 32)) == pytest.approx((255, 0, 0), abs=6)


def test_a_broken_profile_does_not_lose_the_picture(made: Make) -> None:
    for profile in (b"x", pictures.adobe_rgb()[:200], b"\0" * 3000):
        result = made(saved(pictures.drawing(), "JPEG", quality=92, icc_profile=profile), "image/jpeg")
        assert difference(opened(result.jpegs["large"][0]), pictures.drawing()) < TOLERANCE["large"]


# Time and place


def exif_with(own: dict[int, Any] | None = None, place: dict[int, Any] | None = None) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif).update(own or {})
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(place or {})
    return saved(Image.new("RGB", (8, 8)), "JPEG", exif=exif)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WebP", "AVIF", "AVIF, turned", "HEIC", "HEIC, turned"])
def test_the_time_and_place_of_the_original_are_told(name: str, made: Make) -> None:
    content_type, content, _ = sample(name)
    result = made(content, content_type)
    assert result.taken_at == pictures.TAKEN_AT
    assert result.latitude == pytest.approx(pictures.LATITUDE, abs=1e-6)
    assert result.longitude == pytest.approx(pictures.LONGITUDE, abs=1e-6)


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({0x9003: "2026:05:04 10:11:12"}, "2026-05-04T10:11:12"),
        ({0x9003: "2026:05:04 10:11:12\0"}, "2026-05-04T10:11:12"),
        ({0x9003: "2026:05:04 10:11:12", 0x9011: "-03:30"}, "2026-05-04T10:11:12-03:30"),
        ({0x9003: "2026:05:04 10:11:12", 0x9011: "   :  "}, "2026-05-04T10:11:12"),
        ({0x9003: "0000:00:00 00:00:00"}, None),
        ({0x9003: "2026:13:45 99:99:99"}, None),
        ({0x9003: "    :  :     :  :  "}, None),
        ({0x9003: "yesterday"}, None),
        ({0x9003: 7}, None),
        ({}, None),
    ],
)
def test_a_time_is_told_as_the_camera_wrote_it_or_not_at_all(
    own: dict[int, Any], told: str | None, made: Make
) -> None:
    assert made(exif_with(own), "image/jpeg").taken_at == told


@pytest.mark.parametrize(
    "place",
    [
        {1: "N", 2: (91.0, 0.0, 0.0), 3: "E", 4: (8.0, 0.0, 0.0)},
        {1: "N", 2: (47.0, 0.0, 0.0), 3: "E", 4: (181.0, 0.0, 0.0)},
        {1: "N", 2: (47.0, 0.0, 0.0)},
        {1: "N", 2: (47.0,), 3: "E", 4: (8.0,)},
        {2: (47.0, 0.0, 0.0), 4: (8.0, 0.0, 0.0)},
        {},
    ],
)
def test_a_broken_place_is_no_place(place: dict[int, Any], made: Make) -> None:
    result = made(exif_with({0x9003: "2026:05:04 10:11:12"}, place), "image/jpeg")
    assert (result.latitude, result.longitude) == (None, None)
    assert result.taken_at == "2026-05-04T10:11:12"


@pytest.mark.parametrize("broken", [(47, 0), (0, 0), (0xFFFFFFFF, 1), (0xFFFFFFFF, 0)])
def test_a_place_with_an_impossible_fraction_is_no_place(broken: tuple[int, int], made: Make) -> None:
    whole = exif_with(place={1: "N", 2: (47.0, 30.0, 0.0), 3: "E", 4: (8.0, 0.0, 0.0)})
    assert made(whole, "image/jpeg").latitude == 47.5
    assert whole.count(struct.pack(">II", 47, 1)) == 1
    content = whole.replace(struct.pack(">II", 47, 1), struct.pack(">II", *broken))
    result = made(content, "image/jpeg")
    assert (result.latitude, result.longitude) == (None, None)


@pytest.mark.parametrize(
    ("sides", "told"),
    [("NE", (1.5, 2.25)), ("SE", (-1.5, 2.25)), ("NW", (1.5, -2.25)), ("SW", (-1.5, -2.25))],
)
def test_south_and_west_are_negative(sides: str, told: tuple[float, float], made: Make) -> None:
    place = {1: sides[0], 2: (1.0, 30.0, 0.0), 3: sides[1], 4: (2.0, 15.0, 0.0)}
    result = made(exif_with(place=place), "image/jpeg")
    assert (result.latitude, result.longitude) == told


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + b"\xff" * 500])
def test_broken_exif_does_not_lose_the_picture(exif: bytes, made: Make) -> None:
    result = made(saved(pictures.drawing(), "JPEG", quality=92, exif=exif), "image/jpeg")
    assert difference(opened(result.jpegs["large"][0]), pictures.drawing()) < TOLERANCE["large"]
    assert (result.taken_at, result.latitude) == (None, None)


# Hostile files


def refused(made: Make, content: bytes, content_type: str) -> str:
    """The reason: a sentence for people, in a moment."""
    began = time.process_time()
    with pytest.raises(Refused) as refusal:
        made(content, content_type)
    assert time.process_time() - began < 1.0
    reason = str(refusal.value)
    assert reason[0].isupper()
    assert len(reason) <= 300
    assert "Error" not in reason
    assert "/" not in reason.replace(content_type, ""), "no path of the server"
    return reason


@pytest.mark.parametrize("side", [12_000, 40_000])
def test_a_png_of_too_many_pixels_is_refused_before_it_is_unpacked(side: int, made: Make) -> None:
    bomb = pictures.png_bomb(side, side)
    assert len(bomb) < 300_000
    assert refused(made, bomb, "image/png") == f"The picture has more than {MAX_PIXELS:,} pixels."


def test_as_many_pixels_as_allowed_are_read(made: Make) -> None:
    result = made(pictures.png_bomb(10_000, 8_000), "image/png")
    assert (result.width, result.height) == (10_000, 8_000)
    assert result.jpegs["small"][1:] == (240, 192)


@pytest.mark.parametrize("content_type", PICTURES)
@pytest.mark.parametrize("make", [pictures.eps, pictures.svg, pictures.html, pictures.playlist, bytes])
def test_what_is_no_picture_is_refused_whatever_type_it_has(
    make: Callable[[], bytes], content_type: str, made: Make
) -> None:
    assert "cannot be read" in refused(made, make(), content_type)


@pytest.mark.parametrize(
    "content_type", ["image/svg+xml", "application/postscript", "text/html", "image/bmp", ""]
)
def test_a_type_without_thumbnails_is_refused(content_type: str, made: Make) -> None:
    assert "no thumbnails" in refused(made, pictures.jpeg(), content_type)


def test_a_picture_of_another_type_than_it_says_is_refused(made: Make) -> None:
    assert "cannot be read" in refused(made, saved(pictures.drawing(), "PNG"), "image/jpeg")
    assert "cannot be read" in refused(made, pictures.jpeg(), "image/png")


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WebP", "TIFF", "AVIF", "HEIC"])
@pytest.mark.parametrize("part", [0.001, 0.1, 0.5, 0.95])
def test_a_file_that_ends_too_early_is_refused(name: str, part: float, made: Make) -> None:
    content_type, content, _ = sample(name)
    assert "cannot be read" in refused(made, pictures.cut(content, part), content_type)


@pytest.mark.parametrize("name", pictures.SAMPLES)
def test_a_file_with_damaged_bytes_is_read_or_refused_and_nothing_else(name: str, made: Make) -> None:
    content_type, content, _ = sample(name)
    for seed in range(3):
        damaged, seeded = bytearray(content), random.Random(seed)
        for _ in range(20):
            damaged[seeded.randrange(12, min(len(damaged), 3000))] = seeded.randrange(256)
        with suppress(Refused):
            made(bytes(damaged), content_type)


def test_an_animation_of_1000_frames_takes_as_long_as_its_first(made: Make) -> None:
    frames = [Image.new("L", (64, 64), number % 256) for number in range(1000)]
    content = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], loop=0)
    began = time.process_time()
    result = made(content, "image/gif")
    assert time.process_time() - began < 0.5
    assert opened(result.jpegs["small"][0]).convert("L").getextrema()[1] <= 2  # the first is black


def test_a_text_that_unpacks_to_much_is_refused_or_skipped(made: Make) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "a" * 50_000_000, zip=True)
    content = saved(Image.new("RGB", (8, 8)), "PNG", pnginfo=text)
    assert len(content) < 100_000
    refused(made, content, "image/png")
