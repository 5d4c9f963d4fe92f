"""The viewer's page in a real browser: Debian's chromium, headless, driven by Playwright. Skipped where one is missing."""

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from viewer_runs import SIDE, make_explained, make_run, make_scored

from camlab.drawing import render
from camlab.drawing.scaling import scale
from camlab.viewer.html import write_page
from camlab.viewer.sources import read_source

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHECKOUT = Path(__file__).resolve().parent.parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]

BASE64 = "(bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''))"
HOSTILE = '<img src=x onerror="window.attacked=1">'


def bytes_of(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.uint8)


class View:
    """A page that is open: what it shows, and how a user acts on it."""

    def __init__(self, page: Any, path: Path) -> None:
        self.page, self.path = page, path
        page.set_default_timeout(10_000)
        self.troubles: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, address: str = "") -> "View":
        self.page.bring_to_front()  # a page in the background is drawn once a second
        self.page.goto("about:blank")
        self.page.goto(f"{self.path.as_uri()}#{address}")
        self.page.wait_for_selector("body.is-ready")
        return self.settled()

    def settled(self) -> "View":
        """Wait until what was asked for is drawn."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return self

    def press(self, *keys: str) -> "View":
        for key in keys:
            self.page.keyboard.press(key)
        return self.settled()

    def choose(self, control: str, value: str) -> "View":
        self.page.select_option(f"#{control}", value)
        return self.settled()

    def slide(self, control: str, value: int) -> "View":
        self.page.locator(f"#{control}").fill(str(value))
        return self.settled()

    def state(self, key: str) -> Any:
        return self.page.evaluate(f"state.{key}")

    def pixels(self, selector: str) -> np.ndarray:
        """The pixels of a canvas, uint8 RGB."""
        code = "(c, f) => [c.width, c.height, eval(f)(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)]"
        width, height, text = self.page.locator(selector).first.evaluate(code, BASE64)
        return bytes_of(text).reshape(height, width, 4)[..., :3]

    def bytes(self, code: str) -> np.ndarray:
        """The bytes of an array that an expression gives."""
        return bytes_of(self.page.evaluate(f"({BASE64})({code})"))

    def tile(self, picture: int, tile: int = 0) -> np.ndarray:
        self.page.locator(f'[data-picture="{picture}"]').scroll_into_view_if_needed()
        self.settled()
        return self.pixels(f'[data-picture="{picture}"] .tile canvas >> nth={tile}')

    def order(self) -> list[int]:
        self.page.wait_for_timeout(300)  # pictures move only when the epoch has stayed the same for a while
        return [
            int(n) for n in self.page.locator("#grid > li").evaluate_all("(all) => all.map((e) => e.dataset.picture)")
        ]

    def text(self, selector: str) -> str:
        return self.page.locator(selector).first.inner_text()

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[int, Any]:
    """The results of run `a` by epoch; its page is a.html, ab.html has two runs, photos.html and scores.html none."""
    results = make_run(folder / "a", pictures=9, names=["x.png", HOSTILE, *["y.png"] * 7])
    make_run(folder / "b", epochs=(0, 2), pictures=9, seed=1, names=["x.png", HOSTILE, *["y.png"] * 7])
    make_explained(folder / "photos", folder / "files", size=(400, 300), top_k=1)
    make_scored(folder / "scores")
    for name in ("photos", "scores"):
        write_page([folder / name], folder / f"{name}.html")
    write_page([folder / "a"], folder / "a.html")
    write_page([folder / "a", folder / "b"], folder / "ab.html")
    return results


@pytest.fixture(scope="module")
def views(browser: Any, folder: Path, results: dict[int, Any]) -> Iterator[dict[str, View]]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    yield {name: View(context.new_page(), folder / f"{name}.html") for name in ("a", "ab", "photos", "scores")}
    context.close()


@pytest.fixture
def view(views: dict[str, View]) -> View:
    return views["a"].open()


@pytest.fixture
def pair(views: dict[str, View]) -> View:
    return views["ab"].open()


# ---- pixels


@pytest.mark.parametrize(
    ("mode", "colormap", "alpha", "method"),
    [("per_image", "jet", 0.5, "cam"), ("shared", "viridis", 0.7, "grad_cam"), ("raw", "cividis", 0.35, "cam")],
)
def test_page_draws_what_render_draws(views, results, folder, mode, colormap, alpha, method):
    title = {"cam": "CAM", "grad_cam": "Grad-CAM"}[method]
    address = f"epoch=2&class=true&scale={mode}&colours={colormap}&opacity={alpha}&mask=false&method={title}"
    view = views["a"].open(address)
    heat = scale(results[2], mode).heat
    if mode == "raw":  # the page keeps one maximum for all epochs
        peaks = {epoch: scale(own, mode).peaks[method] for epoch, own in results.items()}
        heat = [{method: own[method] * (peaks[2] / max(peaks.values()))} for own in heat]
    different, total = 0, 0
    for i in range(9):
        drawn = view.tile(i)
        picture = render.enlarge(cv2.imread(str(folder / f"a/heatmaps/pictures/{i:02d}.png"))[..., ::-1], 160)
        large = render.resize(heat[i][method][1], picture.shape[:2])
        levels = view.bytes(f"({LEVELS})({i}, {picture.shape[0]}, {picture.shape[1]})").astype(float)
        expected = np.rint(large * 255).ravel()
        assert np.abs(levels - expected).max() <= 1
        same = levels == expected
        different, total = different + np.sum(~same), total + same.size
        overlay = render.overlay(picture, large, alpha, colormap).astype(int)
        assert np.abs(overlay - drawn)[same.reshape(large.shape)].max() <= 1
        assert np.abs(overlay - drawn).max() > 0 or mode == "per_image"
    assert different < 0.01 * total
    view.open("epoch=2&opacity=0&mask=false")
    np.testing.assert_array_equal(
        view.tile(4), render.enlarge(cv2.imread(str(folder / "a/heatmaps/pictures/04.png"))[..., ::-1], 160)
    )


LEVELS = """(picture, height, width) => {
  const { values, grid } = heatOf(slots()[0], picture, state.epoch);
  const large = new Float32Array(height * width);
  enlarge(values, grid, height, width, large);
  return Uint8ClampedArray.from(large, (value) => value * 255);
}"""


def test_boxes_are_those_of_render(view, results):
    heat = scale(results[3], "per_image").heat
    for i in range(9):
        large = render.resize(heat[i]["cam"][0], (48, 64))
        found = view.page.evaluate(
            "([heat, share]) => largestBox(Float32Array.from(heat), 48, 64, share)", [large.ravel().tolist(), 0.2]
        )
        assert tuple(found) == render.largest_box(large, 0.2)
    assert view.page.evaluate("largestBox(new Float32Array(12), 3, 4, 0.2)") is None


def test_every_half_precision_number_is_decoded(view):
    bits = np.arange(65536, dtype=np.uint16)
    expected = bits.view(np.float16).astype(np.float32)
    numbers = view.page.evaluate("Array.from(HALVES, (value) => Number.isFinite(value) ? value : String(value))")
    finite = np.isfinite(expected)
    assert np.array_equal(np.array(numbers, object)[finite].astype(np.float32), expected[finite])
    assert {str(numbers[0x7C00]), str(numbers[0xFC00]), str(numbers[0x7E00])} == {"Infinity", "-Infinity", "NaN"}


# ---- choosing


def on_object(map_1hw: Any, picture: int) -> float:
    """Share of a map's heat on the object of a picture of `make_run`, as `render` enlarges it; 2, which sorts last, without heat."""
    large = render.resize(map_1hw.squeeze().clamp(min=0).numpy(), (SIDE, SIDE))
    inside = large[4:9, 4 : 9 + picture % 3].sum()
    return float(inside / large.sum()) if large.any() else 2.0


def test_one_scrubber_moves_all_pictures(view):
    assert view.text("#epoch-label") == "Epoch 3 of 3"
    assert set(view.page.evaluate("[...decoded.keys()]")) == {"probabilities-0", "maps-0-0-3"}, "decoded when drawn"
    before = [view.tile(i) for i in range(3)]
    view.slide("epoch", 1)
    assert view.text("#epoch-label") == "Epoch 1 of 3"
    assert all((view.tile(i) != before[i]).any() for i in range(3))
    view.press("ArrowLeft")
    view.page.evaluate("document.activeElement.blur()")
    view.press("End", "ArrowLeft", "ArrowLeft")
    assert view.state("epoch") == 1
    view.press("Home", "ArrowLeft")
    assert view.text("#epoch-label") == "Before training"


def test_playing_ends_at_the_last_epoch(view):
    view.choose("speed", "2").page.evaluate("document.activeElement.blur()")
    view.press(" ")
    assert view.page.get_attribute("#play", "aria-label") == "Pause"
    view.page.wait_for_selector('#play[aria-label="Play"]')
    assert view.state("epoch") == 3
    view.press(" ", " ")
    assert view.page.get_attribute("#play", "aria-label") == "Play"


def test_any_class_can_be_chosen(view, results):
    for key, klass in (("p", "predicted"), ("t", "true"), ("d", "difference"), ("2", "name:dog")):
        assert view.press(key).state("klass") == klass
    assert view.page.input_value("#class") == "name:dog"
    shown = view.page.evaluate("heatOf(slots()[0], 0, 3)")
    map_of_dog = results[3][0].cam_of_all_classes[1].clamp(min=0)
    np.testing.assert_allclose(shown["values"], (map_of_dog / map_of_dog.max()).ravel(), atol=1e-6)
    view.press("d")
    shown = view.page.evaluate("heatOf(slots()[0], 0, 3)")
    probabilities = results[3][0].probabilities.clone()
    probabilities[0] = -1
    difference = results[3][0].cam_of_all_classes[0] - results[3][0].cam_of_all_classes[int(probabilities.argmax())]
    np.testing.assert_allclose(shown["values"], (difference / difference.abs().max()).ravel(), atol=1e-6)
    assert "runner-up" in view.text("#colour-ticks")
    classes = ("cat", "dog", "frog")
    assert view.text('[data-picture="0"] .of-map') == f"cat − {classes[int(probabilities.argmax())]}"
    assert view.page.locator("#colours").is_disabled(), "differences have colours of their own"
    assert view.press("p").page.locator("#colours").is_enabled()


def test_share_on_the_object_is_that_of_the_map_that_is_drawn(view, results):
    for method, key in (("cam", "p"), ("grad_cam", "t"), ("cam", "2"), ("grad_cam", "2")):
        view.choose("method", {"cam": "CAM", "grad_cam": "Grad-CAM"}[method])
        view.page.evaluate("document.activeElement.blur()")
        view.press(key)
        for i, result in enumerate(results[3]):
            wanted = {"p": result.class_idx[0], "t": result.label, "2": 1}[key]
            share = None
            if method == "cam":
                share = on_object(result.cam_of_all_classes[wanted], i)
            elif wanted in result.class_idx:
                share = on_object(result.maps[method][0][result.class_idx.index(wanted)], i)
            told = view.page.evaluate(f"onObject(heatOf(slots()[0], {i}, 3), {i})")
            assert told == (share if share is None else pytest.approx(share, abs=1e-3))
    shown = view.texts('[data-picture="0"] .of-map, [data-picture="1"] .of-map')
    captions = [text.replace("\xa0", " ") for text in shown]
    assert captions[0] == "" or "% on object (10 % of the area)" in captions[0]
    assert "% on object (12 % of the area)" in captions[1]
    nothing = view.page.evaluate("textOfMap(0, { ...heatOf(slots()[0], 1, 3), values: new Float32Array(12) }, 1)")
    assert nothing == "", "no evidence has no share"


def test_a_map_that_is_not_stored_is_not_invented(view, results):
    view.choose("method", "Grad-CAM").press("2")
    missing = [i for i, result in enumerate(results[3]) if 1 not in result.class_idx]
    assert missing
    notes = view.texts(".tile-note")
    assert [i for i, note in enumerate(notes) if note == "map not stored"] == missing


def test_methods_side_by_side(view):
    view.choose("method", "all")
    assert view.texts('[data-picture="0"] .tile-label') == ["CAM", "Grad-CAM"]
    assert (view.tile(0, 0) != view.tile(0, 1)).any()


def test_opacity_threshold_and_lines(view):
    view.slide("opacity", 100).slide("threshold", 50)
    whole = view.tile(0)
    bare = view.bytes("enlargedPicture(0, 160).pixels").reshape(*whole.shape[:2], 4)[..., :3]
    kept = (whole == bare).all(axis=-1)
    assert 0.1 < kept.mean() < 0.95, "the picture shows where heat is below the threshold"
    view.page.locator("#mask").uncheck()
    without = view.settled().tile(0)
    assert (without != whole).any(), "the outline of the object"
    view.page.locator("#box").check()
    assert (view.settled().tile(0) != without).any(), "the box"
    view.page.evaluate("document.activeElement.blur()")
    assert view.press("h").state("opacity") == 0
    assert view.press("h").state("opacity") == 1
    assert view.press("o", "b").state("mask") is True


def test_colour_bar_tells_the_scale(view, results):
    jet = render.colorize(np.arange(256, dtype=np.float32)[None] / 255, "jet")[0]
    np.testing.assert_array_equal(view.pixels("#colour-bar")[0], jet)
    assert view.text("#colour-ticks").split("\n")[-1] == "maximum of each picture"
    peak = scale(results[3], "shared").peaks["cam"]
    assert f"{peak:.3g}, the maximum of this epoch" in view.choose("scale", "shared").text("#colour-ticks")
    peak = max(scale(own, "raw").peaks["cam"] for own in results.values())
    assert f"{peak:.3g}, the maximum of all epochs" in view.choose("scale", "raw").text("#colour-ticks")


def test_value_under_the_pointer(view, results):
    canvas = view.page.locator('[data-picture="0"] canvas')
    box = canvas.bounding_box()
    view.page.mouse.move(box["x"] + 2, box["y"] + 2)
    heat = results[3][0].maps["cam"][0][0].clamp(min=0)
    raw = float(heat[0, 0])
    assert view.text("#hint") == f"heat {raw / heat.max():.2f}  ·  raw {float(f'{raw:.3g}'):g}"
    view.page.mouse.move(5, 5)
    assert view.page.locator("#hint").is_hidden()


def test_curves_follow_the_scrubber_and_lead_it(view):
    assert view.texts(".chart-title") == [
        "Accuracy", "Loss", "Pixels of the object rank first (AUROC)", "Heat on the object (CAM, true class)",
        "Learning rate", "Removing hot pixels first",
    ]  # fmt: skip
    assert "val 0.6" in view.text(".chart .values")
    assert view.texts(".chart .values")[2] == "val 0.8   chance 0.5"
    gain = view.page.locator(".chart").nth(5)
    assert gain.locator(".zero").count() == 1, "the gain falls from 0 to -0.6"
    assert gain.locator(".number").all_text_contents() == ["−0.6", "0"]
    for chart in view.page.locator(".chart").all():
        points = chart.locator("polyline").evaluate_all("(all) => all.flatMap((e) => [...e.points].map(({ y }) => y))")
        assert points
        assert 0 < min(points) <= max(points) < 80, "curves stay within their chart"
    area = np.mean([5 * (5 + i % 3) / SIDE**2 for i in range(9)])
    assert f"chance {area:.3f}" in view.texts(".chart .values")[3]
    chart = view.page.locator(".chart svg").first
    box = chart.bounding_box()
    view.page.mouse.click(box["x"] + box["width"] * 0.36, box["y"] + 10)
    assert view.settled().state("epoch") == 1
    assert view.text(".chart .values") == "val 0.2"
    x = float(view.page.locator(".cursor").first.get_attribute("x1"))
    assert x == pytest.approx(44 + 214 / 3, abs=0.1)


def test_pictures_are_sorted_and_filtered(view, results):
    last = results[3]
    wrong = [i for i, result in enumerate(last) if result.class_idx[0] != result.label]
    right = [i for i in range(9) if i not in wrong]
    assert view.order() == list(range(9))
    assert view.choose("sort", "wrong").order() == wrong + right
    unsure = sorted(range(9), key=lambda i: float(last[i].probabilities.max()))
    assert view.choose("sort", "unsure").order() == unsure
    shift = view.page.evaluate("about.runs[0].shift")
    assert view.choose("sort", "shift").order() == sorted(range(9), key=lambda i: (-shift[i], i))
    inside = [on_object(result.maps["cam"][0][:1], i) for i, result in enumerate(last)]
    assert view.choose("sort", "object").order() == sorted(range(9), key=lambda i: (inside[i], i))
    assert view.text("#sort option:checked") == "least heat on the object first (CAM, predicted class)"
    view.choose("sort", "stored")
    assert view.choose("filter", "wrong").order() == wrong
    assert view.text("#count") == f"{len(wrong)} picture{'' if len(wrong) == 1 else 's'}, {len(wrong)} wrong"
    view.choose("filter", "all").page.evaluate("document.activeElement.blur()")
    view.press("/", *"y.png: frog")
    assert view.order() == [2, 5, 8]


def test_a_view_can_be_sent_as_a_link(view, views):
    view.choose("colours", "cividis").choose("method", "Grad-CAM").press("2")
    view.page.evaluate("document.activeElement.blur()")
    view.press("Home", "2").page.wait_for_timeout(300)
    address = view.page.evaluate("location.hash").removeprefix("#")
    view.open(address)
    assert [view.state(key) for key in ("epoch", "klass", "colours", "method")] == [
        0,
        "name:dog",
        "cividis",
        "Grad-CAM",
    ]
    view.open("epoch=nonsense&class=name:nobody&opacity=7&scale=x&method=constructor&picture=99&run=-1")
    assert view.page.evaluate("JSON.stringify(state) === JSON.stringify(DEFAULTS)")
    assert not view.troubles


# ---- one picture, saving


def test_one_picture_by_itself(view, results):
    view.page.locator('[data-picture="1"] button').click()
    view.settled()
    assert view.text("#detail-title") == f"{HOSTILE}: dog"
    assert view.page.locator("#film button").count() == 4
    shares = [float(value) for value in results[3][1].probabilities]
    assert view.texts(".class-row .percent") == [f"{100 * share:.0f} %" for share in shares]
    view.page.locator(".class-row").nth(2).click()
    assert view.settled().state("klass") == "name:frog"
    view.page.locator("#film button").nth(1).click()
    assert view.settled().state("epoch") == 1
    earlier = results[1][1].probabilities
    assert view.texts(".class-row .percent") == [f"{100 * float(value):.0f} %" for value in earlier]
    guess = ("cat", "dog", "frog")[int(earlier.argmax())]
    assert view.text("#detail-tiles .guess") == guess
    view.press("ArrowRight")
    assert view.state("epoch") == 2
    view.press("Escape")
    assert view.state("picture") == -1


def test_the_view_is_saved_as_png(view):
    with view.page.expect_download() as download:
        view.page.click("#save-png")
    assert download.value.suggested_filename == "heatmaps-epoch-3.png"
    saved = np.asarray(Image.open(download.value.path()).convert("RGB"))
    tile = view.tile(0)
    assert (saved[52 : 52 + tile.shape[0], 16 : 16 + tile.shape[1]] == tile).mean() > 0.99


def test_all_epochs_are_saved_as_an_animated_picture(view):
    view.page.locator('[data-picture="0"] button').click()
    with view.page.expect_download() as download:
        view.page.click("#save-animation")
    with Image.open(io.BytesIO(Path(download.value.path()).read_bytes())) as saved:
        assert saved.n_frames == 4
        frames = []
        for i in range(4):
            saved.seek(i)
            frames.append(np.asarray(saved.convert("RGB")))
            assert saved.info["duration"] == 250
    assert all((frames[i] != frames[i + 1]).any() for i in range(3))
    assert view.state("epoch") == 3
    with view.page.expect_download() as download:
        view.page.evaluate("byId('save-animation').click(); show({ epoch: 1, method: ALL_METHODS, picture: -1 })")
    with Image.open(io.BytesIO(Path(download.value.path()).read_bytes())) as saved:
        for i in range(4):
            saved.seek(i)
            np.testing.assert_array_equal(np.asarray(saved.convert("RGB")), frames[i])
    assert (view.state("epoch"), view.state("method")) == (1, "all"), "what is chosen meanwhile stays"


# ---- two runs


def test_two_runs_are_aligned_by_epoch(pair):
    assert pair.texts('[data-picture="0"] .tile-label') == ["A", "B · nearest earlier: 2"]
    pair.press("ArrowLeft")
    assert pair.texts('[data-picture="0"] .tile-label') == ["A", "B"]
    assert [text[0] for text in pair.texts("#settings .run")] == ["A", "B"]
    first, second = pair.tile(0, 0), pair.tile(0, 1)
    pair.press("f")
    np.testing.assert_array_equal(pair.tile(0), first)
    pair.press("f")
    np.testing.assert_array_equal(pair.tile(0), second)
    dot = pair.page.locator(".chart").first.locator(".dot")
    assert dot.get_attribute("class") == "dot run-1", "run B has one point"


def test_three_runs_are_flipped_in_turn(browser, folder, tmp_path):
    write_page([folder / "a", folder / "b", folder / "a"], tmp_path / "page.html")
    view = View(browser.new_page(viewport={"width": 1280, "height": 800}), tmp_path / "page.html").open("epoch=2")
    assert view.texts('[data-picture="0"] .tile-label') == ["A", "B", "C"]
    np.testing.assert_array_equal(view.tile(0, 0), view.tile(0, 2))
    seen = [view.press("f").texts('[data-picture="0"] .tile-label') for _ in range(4)]
    assert seen == [["A"], ["B"], ["C"], ["A"]]
    assert not view.troubles
    view.page.close()


def test_difference_of_two_runs(pair, results):
    pair.page.locator('input[name="compare"][value="difference"]').check()
    predicted = pair.page.evaluate("about.runs.map((run, i) => run.predicted[ownEpoch(i, 3)])")
    other = [i for i, (a, b) in enumerate(zip(*predicted, strict=True)) if a != b]
    notes = pair.settled().texts(".tile-note")
    assert [i for i, note in enumerate(notes) if note == "different classes predicted"] == other
    pair.press("t")
    assert pair.texts('[data-picture="0"] .tile-label') == ["B − A · nearest earlier: 2"]
    both = [pair.page.evaluate(f"heatOfRun({run}, 'CAM', 0, 3).values") for run in (0, 1)]
    difference = pair.page.evaluate("heatOf(slots()[0], 0, 3).values")
    expected = np.array(both[1]) - np.array(both[0])
    np.testing.assert_allclose(difference, expected, atol=1e-6)
    assert pair.text("#colour-ticks").split("\n")[0] == "A has more"


# ---- photographs


def test_a_page_of_photographs_has_no_epochs(views):
    view = views["photos"].open()
    for selector in (".scrubber", "#film", "#save-animation", "#true-class", "#filter", "#curves"):
        assert view.page.locator(selector).is_hidden()
    assert view.text('[data-picture="0"] .heading') == "00.png"
    assert view.text("#settings").startswith("network=vgg16")
    assert view.page.locator("#box").is_checked()
    assert view.page.locator('input[value="difference"]').first.is_disabled(), "one map of each picture is stored"
    assert "top_k=2" in view.page.locator('label:has(> input[value="difference"])').first.get_attribute("title")
    view.page.evaluate("Object.assign(drawn = { ...heatOf(slots()[0], 0, 0) }, { values: drawn.values.map(() => 1) })")
    code = "(c) => (drawTile(c, 0, drawn, 160), [...c.getContext('2d').getImageData(2, 60, 1, 1).data].slice(0, 3))"
    assert view.page.locator("canvas").last.evaluate(code) != [255] * 3, "no box around the whole picture, as on sheets"
    assert view.choose("scale", "shared").text("#colour-ticks").endswith("the maximum of all pictures")
    assert view.choose("method", "all").texts('[data-picture="0"] .tile-label') == ["Grad-CAM", "LayerCAM"]
    view.press("ArrowLeft", " ", "End", "1", "p")
    view.page.locator('[data-picture="1"] button').click()
    assert view.settled().text("#detail-caption").startswith("Hottest")
    view.press("Escape")
    with view.page.expect_download() as download:
        view.page.click("#save-png")
    assert download.value.suggested_filename == "heatmaps.png"
    assert not view.troubles


# ---- scores


def test_scores_of_each_picture_are_shown_and_sort_them(views, folder):
    view = views["scores"].open()
    assert "Of 6 pictures that were scored, 4 are here" in view.text("#notes")
    content = read_source(folder / "scores")
    assert view.texts("#method option")[:2] == ["CAM", "Grad-CAM"]
    assert view.page.locator("#curves").is_hidden(), "one point is no curve"
    for measure, sign in zip(content.measures, (1, -1, 1), strict=True):
        for place, title in ((0, "CAM"), (2, "random")):
            values = [sign * round(float(value), 3) for value in measure.values[place]]
            expected = sorted(range(4), key=values.__getitem__)
            assert view.choose("method", title).choose("sort", f"score:{measure.name}").order() == expected
        assert view.page.locator("#sort-scores").get_attribute("label") == "Scores of random"
    assert view.texts("#sort-scores option") == [
        "lowest auroc first",
        "highest deletion first",
        "lowest effective area first",
    ]
    shown = float(content.measures[2].values[2, 0])
    assert view.text('[data-picture="0"] .of-map').split("\n")[-1] == f"effective area {shown:.2f}"
    view.page.locator('[data-picture="0"] button').click()
    rows = [row.split("\t") for row in view.settled().text("#detail-scores").splitlines()]
    assert rows[0][1:] == ["map of the true class", "map of the predicted class"]
    assert rows[1][1:] == ["auroc", "effective area", "deletion"]
    assert rows[4] == ["random", *(f"{content.measures[i].values[2, 0]:.2f}" for i in (0, 2, 1))]
    assert view.texts("#detail-scores .is-shown th") == ["random"]
    view.press("Escape", "d").choose("method", "CAM")
    assert not any(view.texts(".tile-note")), "the runner-up's map is stored for every picture"
    address = view.page.evaluate("address()")
    assert view.open(address).state("sort") == "score:effective_area"
    assert not view.troubles


# ---- for everybody, everywhere


def test_nothing_is_loaded_and_nothing_goes_wrong(views):
    for view in views.values():
        view.requests.clear()
        view.open("class=difference&method=all&box=true").press("Home", "t", "?", "Escape")
        assert not view.troubles
        loaded = [url for url in view.requests if not url.startswith(("data:", "about:"))]
        assert loaded == [loaded[0]]
        assert loaded[0].startswith("file://")


def test_hostile_names_are_text(view):
    view.press("/", *HOSTILE[:9])
    assert view.order() == [1]
    heading = view.page.locator('[data-picture="1"] .heading')
    assert heading.text_content() == heading.get_attribute("title") == f"{HOSTILE}: dog"
    assert view.page.evaluate("window.attacked") is None
    assert view.page.locator("img").count() == 0


@pytest.mark.parametrize(
    "kind",
    [
        {"epochs": (0,), "pictures": 1, "masks": False},
        {"size": (20, 200), "grid": (14, 1)},
        {"size": (300, 180), "labelled": False, "masks": False},
        {"class_names": ("yes",), "grid": (1, 1), "epochs": (0, 1)},
    ],
    ids=["one epoch, one picture", "tall", "large, classes not known", "one class"],
)
def test_odd_runs(browser, tmp_path, kind):
    make_run(tmp_path / "run", **kind)
    write_page([tmp_path / "run"], tmp_path / "page.html")
    view = View(browser.new_page(viewport={"width": 1280, "height": 800}), tmp_path / "page.html").open()
    width, height = kind.get("size", (SIDE, SIDE))
    shape = view.tile(0).shape
    assert min(shape[:2]) >= 160
    assert shape[1] * height == shape[0] * width
    if len(kind.get("epochs", ())) == 2:
        accuracy = view.page.locator(".chart").first
        assert (accuracy.locator(".dot").count(), accuracy.locator(".number").last.text_content()) == (1, "0.2")
    for key in ("t", "d", "1", "p", "ArrowLeft", "b", " ", "f"):
        view.press(key)
    view.choose("method", "all").choose("sort", "object").choose("scale", "raw")
    view.page.locator(".card button").first.click()
    view.settled().press("Escape")
    assert view.page.evaluate("document.documentElement.scrollWidth") <= 1280
    is_labelled = kind.get("labelled", True)
    for selector in ("#true-class", "#filter"):
        assert view.page.locator(selector).is_visible() is is_labelled
    assert view.page.evaluate("byId('panel').scrollWidth <= byId('panel').clientWidth")
    assert ("wrong" in view.text("#count")) is is_labelled
    assert not view.troubles
    view.page.close()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["a", "ab", "photos", "scores"])
def test_page_fits_the_screen(views, name, width):
    page = views[name].page
    page.set_viewport_size({"width": width, "height": 800})
    view = views[name].open()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#panel > summary").is_visible() is (width == 390)
    scrubber = ("#play", "#epoch", "#epoch-label") if name in ("a", "ab") else ()
    for selector in (*scrubber, '[data-picture="0"] canvas'):
        assert page.locator(selector).first.bounding_box()["width"] > 30
    sizes = page.locator("body *").evaluate_all("(all) => all.map((e) => parseFloat(getComputedStyle(e).fontSize))")
    assert min(sizes) >= 11
    assert not view.troubles
    page.set_viewport_size({"width": 1280, "height": 800})


def test_everything_can_be_reached_by_keyboard(view):
    reached = []
    for _ in range(40):
        view.page.keyboard.press("Tab")
        reached.append(view.page.evaluate("document.activeElement.id || document.activeElement.className"))
    wanted = ["save-png", "play", "epoch", "class", "method", "scale", "opacity", "threshold", "box", "search", "sort"]
    assert [name for name in reached if name in wanted][: len(wanted)] == wanted  # then it begins again
    view.page.locator('[data-picture="2"] button').focus()
    view.press("Enter")
    assert view.state("picture") == 2
    view.press("Escape")
    assert view.page.evaluate("document.activeElement.closest('li').dataset.picture") == "2", "the focus comes back"
    assert view.page.locator('[data-picture="2"] canvas').first.get_attribute("aria-label").startswith("Hottest ")


def test_light_and_dark(view):
    light = view.page.evaluate("getComputedStyle(document.body).backgroundColor")
    view.page.emulate_media(color_scheme="dark")
    dark = view.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light != dark
    view.page.click("#theme")
    assert view.settled().page.evaluate("getComputedStyle(document.body).backgroundColor") == light
    transition = "getComputedStyle(byId('theme')).transitionDuration"
    assert view.page.evaluate(transition) != "0s"
    view.page.emulate_media(color_scheme="light", reduced_motion="reduce")
    assert view.page.evaluate(transition) == "0s"
    view.page.emulate_media(color_scheme="light", reduced_motion="no-preference")


def axe() -> str:
    if not (script := CHECKOUT / "node_modules" / "axe-core" / "axe.min.js").is_file():
        pytest.skip("axe-core is not installed (npm ci)")
    return script.read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("name", "address"),
    [("a", ""), ("a", "picture=1"), ("ab", "method=all"), ("photos", "picture=1"), ("scores", "picture=1")],
)
def test_axe_finds_no_violation(views, name, address, scheme):
    script = axe()
    view = views[name]
    view.page.emulate_media(color_scheme=scheme)
    view.open(address)
    view.page.evaluate(script)
    found = view.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    assert not [(one["id"], [node["target"] for node in one["nodes"]][:4]) for one in found]
    view.page.emulate_media(color_scheme="light")
