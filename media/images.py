"""Thumbnails of pictures. Pure: bytes of a file in, three JPEGs out; run in the limited pool (sandbox.py).

One decode for all three sizes: JPEGs are decoded at a fraction of their size where that is enough, the large
thumbnail is made first, and each smaller one from the one before.
"""

import io
import math
import warnings
from datetime import datetime
from typing import Any

import pi_heif  # type: ignore[import-untyped]
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from media.formats import MAX_PIXELS, PICTURES, SIZES, Made, Refused

__all__ = ["PICTURES", "SIZES", "Made", "Refused", "thumbnails", "thumbnails_of"]

pi_heif.register_heif_opener()

_QUALITY = 80

Image.MAX_IMAGE_PIXELS = MAX_PIXELS

_OPAQUE = {"RGB", "L", "CMYK", "YCbCr", "LAB", "HSV", "1", "I", "F"}


def thumbnails(path: str, content_type: str) -> Made:
    """Three thumbnails of the picture at ``path``.

    Raises:
        Refused: it is broken, too large, or not what its type says.
    """
    formats = PICTURES.get(content_type)
    if formats is None:
        raise Refused(f"There are no thumbnails of {content_type}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken EXIF; the picture may be whole
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=formats) as picture:
                return _made(picture)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise Refused(f"The picture has more than {MAX_PIXELS:,} pixels.") from None
    except Refused:
        raise
    except UnidentifiedImageError:  # whose text names the file
        raise Refused(f"The picture cannot be read: it is not {content_type}.") from None
    except (OSError, ValueError, SyntaxError, ArithmeticError, LookupError, TypeError, RuntimeError) as error:
        # What Pillow and its codecs raise at broken files is not narrower than this.
        raise Refused(f"The picture cannot be read: {error}"[:300]) from None


def _made(picture: Image.Image) -> Made:
    exif = _exif(picture)
    # Pillow turns a TIFF itself: its size is the upright one already.
    turned = picture.format != "TIFF" and exif.get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    width, height = picture.size[::-1] if turned else picture.size
    if picture.width * picture.height > MAX_PIXELS:
        raise Refused(f"The picture has more than {MAX_PIXELS:,} pixels.")
    profile = picture.info.get("icc_profile")
    if picture.format in ("JPEG", "MPO"):
        largest = SIZES["large"]
        scale = min(1.0, largest / max(picture.size))
        # The decoder halves as often as leaves at least this size.
        picture.draft(None, (math.ceil(picture.width * scale), math.ceil(picture.height * scale)))
    picture.load()
    large = _shrunk(_plain(picture), SIZES["large"])
    large = _upright(_in_srgb(large, profile), exif)
    latitude, longitude = _place(exif)
    return Made(_jpegs(large), width, height, _taken_at(exif), latitude, longitude)


def thumbnails_of(picture: Image.Image) -> dict[str, tuple[bytes, int, int]]:
    """The three JPEGs of a picture that is decoded and upright."""
    return _jpegs(picture.convert("RGB"))


def _jpegs(picture: Image.Image) -> dict[str, tuple[bytes, int, int]]:
    jpegs, latest = {}, picture
    for name, longest in SIZES.items():
        latest = _shrunk(latest, longest)
        jpegs[name] = (_jpeg(latest), *latest.size)
    return jpegs


def _shrunk(picture: Image.Image, longest: int) -> Image.Image:
    """``picture`` with no side longer than ``longest``; never enlarged."""
    actual = max(picture.size)
    if actual <= longest:
        return picture
    scale = longest / actual
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # Halving by the average of four pixels takes an eighth of the time; the difference cannot be seen.
    gap = 1.0 if actual == 2 * longest else 1.5
    return picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=gap)


def _plain(picture: Image.Image) -> Image.Image:
    """``picture`` with 8 bits a channel, no palette and no transparency."""
    mode = picture.mode
    if mode.startswith("I") or mode == "F":
        return _eight_bits(picture)
    transparent = "transparency" in picture.info
    if mode in _OPAQUE and not transparent:
        return picture.convert("L") if mode == "1" else picture
    if mode in ("P", "PA"):
        picture = picture.convert("RGBA" if transparent or mode == "PA" else "RGB")
    if "A" not in picture.getbands() and not transparent:
        return picture
    if picture.mode not in ("RGBA", "LA"):  # else it would be copied, and a large one would not fit
        picture = picture.convert("RGBA")
    # Shrunk before it is flattened: alpha is respected either way, and there is less to do.
    picture = _shrunk(picture, SIZES["large"])
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 or more bits scaled down; conversion alone would clip everything above 255 to white."""
    if picture.mode == "I;16":  # as numbers of 32 bits a large one would not fit
        return picture.point(lambda value: value * (1 / 257) + 0.5).convert("L")
    if picture.mode != "F":
        picture = picture.convert("I")
    low, high = (float(value) for value in picture.getextrema())  # type: ignore[arg-type]
    # What the numbers may mean; otherwise what is there, from black to white.
    usual = (1.0, 255.0, 65535.0) if picture.mode == "F" else (65535.0,)
    top = next((top for top in usual if low >= 0 and high <= top), None)
    black, span = (low, (high - low) or 1.0) if top is None else (0.0, top)
    return picture.point(lambda value: value * (255 / span) - black * 255 / span).convert("L")


def _in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        try:
            return _converted(picture, profile)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # a broken profile says nothing; the picture without it is the better answer
    return picture if picture.mode in ("RGB", "L") else picture.convert("RGB")


_SRGB = ImageCms.createProfile("sRGB")


def _converted(picture: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    mode = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}.get(space)
    if mode is None or picture.mode != mode:
        raise ValueError("a profile for another kind of picture")
    if mode == "L":
        return picture
    converted = ImageCms.profileToProfile(picture, source, _SRGB, outputMode="RGB")
    assert converted is not None
    return converted


def _upright(picture: Image.Image, exif: Image.Exif) -> Image.Image:
    orientation = exif.get(ExifTags.Base.Orientation, 1)
    if orientation == 1:
        return picture
    alone = Image.Exif()
    alone[ExifTags.Base.Orientation] = orientation
    picture = picture.copy()
    picture.info = {"exif": alone.tobytes()}
    picture._exif = None  # read anew
    turned: Image.Image = ImageOps.exif_transpose(picture)
    return turned


def _jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.info = {}  # no profile, no comment, no place
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


# What the original says of itself.


def _exif(picture: Image.Image) -> Image.Exif:
    try:
        exif: Image.Exif = picture.getexif()
    except Exception:
        # Broken EXIF comes out as anything from SyntaxError to struct.error; the picture may be whole.
        exif = Image.Exif()
    return exif


def _taken_at(exif: Image.Exif) -> str | None:
    try:
        own = exif.get_ifd(ExifTags.IFD.Exif)
        text = str(own.get(ExifTags.Base.DateTimeOriginal) or "")
        zone = str(own.get(ExifTags.Base.OffsetTimeOriginal) or "")
        moment = datetime.strptime(text.strip("\0 "), "%Y:%m:%d %H:%M:%S").isoformat()
    except Exception:
        return None
    try:
        return datetime.fromisoformat(moment + zone.strip("\0 ")).isoformat()
    except ValueError:
        return moment  # cameras that know no zone write blanks


def _place(exif: Image.Exif) -> tuple[float | None, float | None]:
    try:
        gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
        latitude = _degrees(gps[ExifTags.GPS.GPSLatitude], gps[ExifTags.GPS.GPSLatitudeRef], "S")
        longitude = _degrees(gps[ExifTags.GPS.GPSLongitude], gps[ExifTags.GPS.GPSLongitudeRef], "W")
    except Exception:
        return None, None
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):
        return None, None
    return latitude, longitude


def _degrees(parts: Any, side: Any, negative: str) -> float:
    degrees, minutes, seconds = (float(part) for part in parts)
    value = round(degrees + minutes / 60 + seconds / 3600, 6)
    return -value if str(side).strip("\0 ").upper() == negative else value
