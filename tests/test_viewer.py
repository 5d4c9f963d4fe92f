"""The viewer's files: what is read of runs, what is refused, how large a page becomes. The browser is elsewhere."""

import dataclasses
import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_callbacks import Coloured, classifier, trainer
from viewer_runs import SIDE, make_run

import camlab
from camlab import view
from camlab.errors import UserError
from camlab.runs import run_folder
from camlab.training.callbacks.heatmap_callback import HeatmapCallback
from camlab.training.callbacks.heatmap_logger import HeatmapLogger
from camlab.viewer import measures, renewal
from camlab.viewer.document import make_document
from camlab.viewer.html import SCRIPTS, render_page, write_into, write_page
from camlab.viewer.run_content import read_content
from camlab.viewer.sources import find_sources

PAGE = Path(view.__file__).parent / "viewer" / "page"


def run_view(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["camlab-view", *map(str, arguments)])
    monkeypatch.delenv("DISPLAY", raising=False)
    try:
        view.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def about_of(page: str) -> dict[str, object]:
    return json.loads(re.search(r'<script type="application/json" id="about">(.*?)</script>', page)[1])


def test_pages_of_several_labels_say_what_predicted_means(tmp_path):
    make_run(tmp_path / "a")
    run = read_content(tmp_path / "a")
    assert not run.has_several_labels
    several = dataclasses.replace(run, probabilities=np.full_like(run.probabilities, 0.9))
    assert any("several labels or none" in note for note in make_document([several], 16).about["notes"])
    assert not any("several labels" in note for note in make_document([run], 16).about["notes"])


def test_a_run_is_read_as_it_was_written(tmp_path):
    every = make_run(tmp_path / "run")
    content = read_content(tmp_path / "run")
    assert content.epochs == [0, 1, 2, 3]
    assert content.class_names == ["cat", "dog", "frog"]
    assert [picture.label for picture in content.pictures] == [0, 1, 2, 0, 1, 2]
    assert content.pictures[1].image.shape == (SIDE, SIDE, 3)
    assert content.pictures[1].mask.sum() == 5 * 6
    assert content.overrides == {"seed": "0", "optimizer.lr": "0.01"}
    assert content.curves["val/acc"] == [(1, 0.2), (2, 0.4), (3, pytest.approx(0.6))]
    cam, grad_cam = content.series
    assert (cam.is_complete, grad_cam.is_complete) == (True, False)
    for e, epoch in enumerate(content.epochs):
        for i, result in enumerate(every[epoch]):
            np.testing.assert_array_equal(cam.maps[e, i], result.cam_of_all_classes.numpy().astype(np.float16))
            np.testing.assert_array_equal(grad_cam.maps[e, i], result.maps["grad_cam"][0].numpy().astype(np.float16))


def test_measures_of_maps(tmp_path):
    make_run(tmp_path / "run", epochs=(0, 1), pictures=1)
    run = read_content(tmp_path / "run")
    maps = np.zeros((2, 1, 3, 1, 2), np.float16)
    maps[:, 0, 0] = [[[4, 0]], [[0, 1]]]  # of the true class: the heat moves from the left half to the right one
    maps[:, 0, 1] = [[[1, -3]], [[0, 5]]]
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:, : SIDE // 2] = True
    run = dataclasses.replace(
        run,
        pictures=[dataclasses.replace(run.pictures[0], mask=mask)],
        class_idx=np.array([[[0, 0]], [[1, 0]]]),
        probabilities=np.array([[[0.9, 0.1, 0.0]], [[0.3, 0.5, 0.2]]], np.float32),
    )
    cam = dataclasses.replace(run.series[0], maps=maps)
    assert measures.runners_up(run).tolist() == [[1], [1]]
    assert measures.peaks(cam, run) == [4, 5]
    assert measures.signed_peaks(cam, run) == [3, 4]
    assert measures.shift(cam, run) == [1]
    (first,), (second,) = measures.heat_on_object(cam, run)
    assert first == pytest.approx(1 - second) == pytest.approx(0.875)


def test_training_keeps_the_masks_of_its_pictures(tmp_path):
    data = Coloured(image_size=80, masks=True, n_train=32)
    trainer(tmp_path, callbacks=[HeatmapLogger(per_class=1)]).fit(classifier(keep_last_pool=False), datamodule=data)
    content = read_content(tmp_path)
    assert content.epochs == [0, 1]
    assert [picture.mask.sum() for picture in content.pictures] == [64] * 4
    assert content.pictures[0].mask[8:16, 8:16].all()
    assert {path.name for path in run_folder.output_files(tmp_path)} >= {"00.png", "maps.npz", "heatmaps.html"}


def test_no_text_from_users_can_leave_its_element(tmp_path):
    hostile = '</script><script>alert(1)</script><img src=x onerror="alert(2)">&lt;"\'{{blocks}}'
    make_run(tmp_path / "<b>run", class_names=(hostile, "dog", "frog"), names=[hostile] * 6)
    page = render_page(make_document([read_content(tmp_path / "<b>run")], 32))
    assert hostile not in page
    assert page.count("</script>") == page.count("<script")
    assert about_of(page)["classes"][0] == hostile
    assert "<title>&lt;b&gt;run · heatmaps</title>" in page


def test_page_names_no_other_host_and_uses_no_markup_from_texts():
    whole = "".join(path.read_text() for path in PAGE.iterdir())
    addresses = set(re.findall(r"https?://[^\s\"')]+", whole))
    assert addresses == {"http://www.w3.org/2000/svg", "https://www.w3.org/TR/png-3/#apng-frame-based-animation"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|fetch\(|import ", whole)
    assert {f"{name}.js" for name in SCRIPTS} == {path.name for path in PAGE.glob("*.js")}


def test_epochs_are_thinned_evenly_and_the_page_says_so(tmp_path):
    make_run(tmp_path / "run", epochs=tuple(range(0, 61)), pictures=3, grid=(14, 14), masks=False)
    content = read_content(tmp_path / "run")
    each = 3 * (3 + 2) * 196 * 2 * 4 / 3
    document = make_document([content], (200_000 + 6000 + 21 * each) / 1e6)
    epochs = document.about["epochs"]
    assert 18 <= len(epochs) <= 21
    assert (epochs[0], epochs[-1]) == (0, 60)
    assert set(np.diff(epochs)) <= {2, 3, 4}
    assert document.about["notes"] == [
        f"Of 61 epochs, {len(epochs)} are here, evenly chosen, to limit the size of this file."
    ]
    smaller = make_document([content], (200_000 + 6000 + 9 * each) / 1e6)
    assert "maps are those of the predicted and true classes only" in smaller.about["notes"][0]
    assert not smaller.about["runs"][0]["series"][0]["isComplete"]
    with pytest.raises(UserError, match=r"The page would be too large\. Allow more with max_mb=100"):
        make_document([content], 0.2)


def test_runs_with_other_pictures_show_what_they_share(tmp_path):
    make_run(tmp_path / "a", pictures=6)
    make_run(tmp_path / "b", pictures=4, seed=1, class_names=("cat", "cow", "frog"))
    document = make_document([read_content(tmp_path / "a"), read_content(tmp_path / "b")], 32)
    assert len(document.about["pictures"]) == 4
    assert document.about["classes"] == ["cat", "dog", "frog", "cow"]
    assert document.about["runs"][1]["classes"] == [0, 3, 2]
    assert document.about["notes"][0] == "4 of 6 pictures are in all runs and shown."
    assert "different classes" in document.about["notes"][1]


def test_each_run_is_judged_by_its_own_labels_and_equal_pictures_stay_two(tmp_path):
    make_run(tmp_path / "a", pictures=4)
    make_run(tmp_path / "b", pictures=4, class_names=("dog", "cat", "frog"))
    for name in "ab":
        place = tmp_path / name / "heatmaps" / "pictures"
        shutil.copy(place / "00.png", place / "03.png")
    about = make_document([read_content(tmp_path / "a"), read_content(tmp_path / "b")], 32).about
    assert [run["labels"] for run in about["runs"]] == [[0, 1, 2, 0], [1, 0, 2, 1]]
    assert len(about["pictures"]) == 4
    assert about["notes"] == [
        "The runs have different classes. A class that a run does not have has no map there.",
        "The runs have different true classes for 3 of these pictures; each is judged by its own.",
    ]


def test_runs_without_a_common_picture_are_refused(tmp_path):
    make_run(tmp_path / "a", pictures=2)
    make_run(tmp_path / "b", pictures=2)
    for i in range(2):
        name = f"heatmaps/pictures/{i:02d}.png"
        (tmp_path / "b" / name).write_bytes((tmp_path / "a" / f"heatmaps/masks/{i:02d}.png").read_bytes())
    with pytest.raises(UserError, match="explain different pictures"):
        write_page([tmp_path / "a", tmp_path / "b"], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_epochs_of_another_kind_are_left_out(tmp_path):
    make_run(tmp_path / "run", epochs=(1, 2, 3))
    make_run(tmp_path / "other", epochs=(0,), pictures=2)
    (tmp_path / "other" / "heatmaps" / "epoch_0000").rename(tmp_path / "run" / "heatmaps" / "epoch_0000")
    content = read_content(tmp_path / "run")
    assert content.epochs == [1, 2, 3]
    assert content.notes == ("Epochs with other pictures, classes or methods are left out: 0.",)


def test_folders_are_found(tmp_path):
    for name in ("sweep/a", "sweep/b"):
        make_run(tmp_path / name, epochs=(0,), pictures=1)
    assert find_sources(tmp_path) == [tmp_path / "sweep" / "a", tmp_path / "sweep" / "b"]
    assert find_sources(tmp_path / "sweep" / "a" / "heatmaps") == [tmp_path / "sweep" / "a"]


def test_command_writes_the_page(tmp_path, monkeypatch, capsys):
    make_run(tmp_path / "run", config="seed: 0\ncallbacks:\n  heatmaps:\n    alpha: 0.7\n    colormap: viridis\n")
    assert run_view(monkeypatch, tmp_path / "run") == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'run' / 'heatmaps.html'} (")
    style = about_of((tmp_path / "run" / "heatmaps.html").read_text())["style"]
    assert style == {"klass": "predicted", "box": False, "colours": "viridis", "scale": "per_image", "opacity": 0.7}
    assert run_view(monkeypatch, tmp_path / "run", f"out={tmp_path}", "open=false") == 0
    assert (tmp_path / "heatmaps.html").is_file()


@pytest.mark.parametrize("name", ["last.ckpt", "photo.png", "report.html"])
def test_files_of_others_are_not_replaced_by_a_page(tmp_path, monkeypatch, capsys, name):
    make_run(tmp_path / "run", epochs=(0,), pictures=1)
    (tmp_path / name).write_text("mine")
    assert run_view(monkeypatch, tmp_path / "run", f"out={tmp_path / name}") == 2
    told = "not written by camlab" if name.endswith(".html") else "a page's name ends in .html"
    assert told in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"


def damage(run: Path) -> None:
    file = run / "heatmaps" / "epoch_0002" / "maps.npz"
    file.write_bytes(file.read_bytes()[:700])


def age(run: Path) -> None:
    file = run / "heatmaps" / "epoch_0002" / "maps.npz"
    with np.load(file) as stored:
        arrays = {**stored, "format": "camlab-maps 0"}
    np.savez(file, **arrays)


def mismatch(run: Path) -> None:
    file = run / "heatmaps" / "epoch_0002" / "maps.npz"
    with np.load(file) as stored:
        arrays = {**stored, "class_idx": stored["class_idx"] + 7}
    np.savez(file, **arrays)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (damage, r"epoch_0002/maps\.npz is not a file of raw maps .*, or is damaged\. Remove .*epoch_0002 to see"),
        (age, r"has the format camlab-maps 0; this version of camlab reads camlab-maps 1"),
        (mismatch, r"maps\.npz is damaged: its arrays do not fit each other\. Remove .*epoch_0002 to see"),
        (lambda run: (run / "heatmaps" / "pictures" / "03.png").unlink(), r"03\.png is missing"),
        (lambda run: (run / "heatmaps" / "pictures" / "03.png").write_bytes(b"no"), "not a readable picture"),
        (
            lambda run: shutil.rmtree(run / "heatmaps"),
            r"no heatmaps there .* Give the folder of a run, camlab.explain or camlab.score",
        ),
        (lambda run: (run / "heatmaps.html").mkdir(), None),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(tmp_path, monkeypatch, capsys, spoil, told):
    make_run(tmp_path / "run")
    spoil(tmp_path / "run")
    code = run_view(monkeypatch, tmp_path / "run", "open=false")
    assert (code == 0) is (told is None)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == (0 if told is None else 1)
    if told:
        assert code == 2
        assert re.search(told, lines[0])
        assert not (tmp_path / "run" / "heatmaps.html").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], r"No run was given\. Usage: "),
        (["missing"], r"missing: no such folder\. Give the folder of a run, camlab\.explain or camlab\.score\."),
        (["run", "opne=false"], r"opne=false: unknown setting\. Did you mean open\? Usage"),
        (["run", "open=perhaps"], r"open=perhaps: must be true or false\."),
        (["run", "max_mb=-1"], r"max_mb=-1: must be a number from 1 to 500\."),
        (["run", "out=missing/page.html"], r"No such file or directory\. Give another file with out=FILE\.html\."),
        (["run"] * 7, r"7 runs were found, and a page shows at most 6\. Give some of them\."),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, monkeypatch, capsys, arguments, told):
    make_run(tmp_path / "run", epochs=(0,), pictures=1)
    monkeypatch.chdir(tmp_path)
    assert run_view(monkeypatch, *arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(told, line)


def test_a_page_that_fails_does_not_fail_the_run(tmp_path, caplog):
    assert write_into(tmp_path) is None
    assert not caplog.records, "a run without heatmaps has nothing to tell"
    make_run(tmp_path / "run")
    assert write_into(tmp_path / "run") == tmp_path / "run" / "heatmaps.html"
    damage(tmp_path / "run")
    before = (tmp_path / "run" / "heatmaps.html").read_bytes()
    assert write_into(tmp_path / "run") is None
    assert "heatmaps.html was not written: " in caplog.text
    assert (tmp_path / "run" / "heatmaps.html").read_bytes() == before


def test_page_is_renewed_for_two_hundredths_of_the_time(tmp_path, monkeypatch):
    clock = [0.0]

    def write(folder: Path) -> None:
        clock[0] += 0.5

    monkeypatch.setattr(renewal, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(renewal, "write_into", write)
    page, renewed = renewal.PageRenewal(tmp_path), []
    for _ in range(100):
        clock[0] += 1
        renewed.append(page.renew())
    assert [i + 1 for i, one in enumerate(renewed) if one] == [5, 50, 74, 99], (
        "half a second each; the clock counts them, too"
    )
    assert 0.5 * sum(renewed) <= 0.02 * clock[0] + 0.5


def test_callback_in_any_trainer_writes_the_page(tmp_path):
    callback = HeatmapCallback(folder=tmp_path / "maps", num_images=2)
    trainer(tmp_path, callbacks=[callback]).fit(classifier(keep_last_pool=False), datamodule=Coloured(image_size=80))
    assert about_of((tmp_path / "maps" / "heatmaps.html").read_text())["epochs"] == [1]


def test_command_does_not_import_torch():
    code = "import sys, camlab.view; sys.exit(bool({'torch', 'lightning', 'matplotlib', 'wandb'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_frame_for_notebooks_holds_the_page(tmp_path):
    make_run(tmp_path / "run", class_names=('"><script>', "dog", "frog"))
    frame = camlab.browse(tmp_path / "run", height=500)
    text = frame._repr_html_()
    assert text.startswith('<iframe title="Heatmaps" sandbox="allow-scripts allow-downloads allow-modals"')
    assert 'height="500"' in text
    inside = re.search(r'srcdoc="([^"]*)"></iframe>$', text)[1]
    assert html.unescape(inside) == frame.page
    assert about_of(frame.page)["classes"] == ['"><script>', "dog", "frog"]
    for wrong, told in (({"height": 0}, "200 to 4000"), ({"max_mb": 0}, "1 to 500")):
        with pytest.raises(UserError, match=told):
            camlab.browse(tmp_path / "run", **wrong)
