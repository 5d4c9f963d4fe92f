"""Two hundred broken, odd and hostile picture files: each is read or refused clearly, in seconds and bounded memory."""

import io
import os
import random
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF", "gif": "GIF"}
GIGABYTES = 3 * 2**30


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (60, 40), **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, FORMATS[kind], **options)  # type: ignore[arg-type]
    return file.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims to be that large but contains almost no data."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bmp_of(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def gif_of(width: int, height: int) -> bytes:
    small = bytearray(encoded("gif"))
    small[6:10] = struct.pack("<HH", width, height)
    return bytes(small)


def bomb() -> bytes:
    """A valid picture of 14,000 × 14,000 pixels in 600 kB."""
    file = io.BytesIO()
    Image.new("1", (14_000, 14_000)).save(file, "PNG")
    return file.getvalue()


def animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (60, 40), colour) for colour in ("red", "green", "blue")]
    file = io.BytesIO()
    frames[0].save(file, FORMATS[kind], save_all=True, append_images=frames[1:])
    return file.getvalue()


def odd_files() -> Iterator[tuple[str, bytes]]:
    chance = random.Random(0)
    for kind in FORMATS:
        whole = encoded(kind)
        for share in (0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
            yield f"cut{share}.{kind}", whole[: int(share * len(whole))]
        for k in range(20):
            broken = bytearray(whole)
            for _ in range(chance.choice([1, 3, 30])):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            yield f"flip{k}.{kind}", bytes(broken)
        for other in FORMATS:
            if other != kind:
                yield f"{other}_as.{kind}", encoded(other)
    for width, height in ((60_000, 60_000), (2**31 - 1, 2**31 - 1), (65_535, 1), (1, 65_535), (0, 0)):
        yield f"huge{width}x{height}.png", png_of(width, height)
        yield f"huge{width}x{height}.bmp", bmp_of(width % 2**31, height % 2**31)
        yield f"huge{width}x{height}.gif", gif_of(min(width, 65_535), min(height, 65_535))
    yield "bomb.png", bomb()
    for kind in ("gif", "png", "webp", "tif"):
        yield f"animated.{kind}", animated(kind)
    yield "cmyk.jpg", encoded("jpg", "CMYK")
    yield "cmyk.tif", encoded("tif", "CMYK")
    yield "palette.png", encoded("png", "P", transparency=3)
    yield "one pixel.png", encoded("png", size=(1, 1))
    yield "thin.png", encoded("png", size=(1, 5000))
    yield "wide.jpg", encoded("jpg", size=(5000, 1))
    yield "text.jpg", b"no picture at all"
    yield "script.svg.png", b"<svg onload='alert(1)'/>"


def write_odd_files(folder: Path) -> int:
    files = dict(odd_files())
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    return len(files) + 4


READ = """
import sys, time, warnings
from pathlib import Path
from camlab.errors import UserError
from camlab.storage.pictures import read_picture
warnings.simplefilter("ignore")
for path in sorted(Path(sys.argv[1]).iterdir()):
    began = time.monotonic()
    try:
        picture = read_picture(path)
        told = f"{picture.mode} {picture.size}"
        assert picture.mode == "RGB"
    except UserError as error:
        told = str(error)
        assert path.name in told and len(told.splitlines()) == 1, told
    print(f"{time.monotonic() - began:.1f} {path.name}: {told}", flush=True)
"""


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES, GIGABYTES))


def test_every_file_gets_an_answer(tmp_path):
    count = write_odd_files(tmp_path)
    assert count >= 200
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, timeout=120, preexec_fn=limited
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]
    answers = done.stdout.splitlines()
    assert len(answers) == count
    assert max(float(line.split()[0]) for line in answers) < 5
    print(f"{count} picture files, {sum(': RGB' in line for line in answers)} readable")
    for name in ("animated.gif", "cmyk.jpg", "png_as.jpg", "one pixel.png", "thin.png"):
        assert any(f" {name}: RGB" in line for line in answers), name
    for name in ("huge60000x60000.png", "text.jpg", "pipe.jpg", "loop.jpg", "device.jpg", "folder.jpg", "cut0.png"):
        assert any(f" {name}: /" in line for line in answers), name


# The largest memory as the process itself sees it: what the system tells of a child includes the process that forked it.
EXPLAIN = """
import atexit
from pathlib import Path

from camlab.explain import main

lines = lambda: Path("/proc/self/status").read_text().splitlines()
atexit.register(lambda: Path("peak").write_text(next(line for line in lines() if line.startswith("VmHWM"))))
main()
"""


@pytest.mark.slow
def test_explain_does_the_readable_ones_and_names_the_others(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    write_odd_files(photos)
    line = [sys.executable, "-c", EXPLAIN, f"images={photos}", "network=alexnet", "network.weights=null"]
    began = time.monotonic()
    done = subprocess.run(
        [*line, f"out={tmp_path / 'out'}", "device=cpu"], capture_output=True, text=True, timeout=300, cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    assert done.returncode in (1, 2), "some pictures cannot be read"
    assert (tmp_path / "out" / "sheet.png").is_file()
    assert time.monotonic() - began < 200
    peak = int((tmp_path / "peak").read_text().split()[1])
    assert peak < 4 * 2**20, f"{peak} kB"
