"""The feature cache, which changes nothing but the time, and the store of arrays, which are whole or absent."""

import logging
import multiprocessing
import os
import resource
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from conftest import Coloured
from test_entries import command
from test_training import classifier, trainer, weights
from torch.nn import functional as F

from camlab import cache
from camlab.data.augmentation import shift
from camlab.errors import UserError
from camlab.models.cam_net import window_means
from camlab.storage.array_store import ArrayStore, feature_store
from camlab.storage.cache_folder import TAG
from camlab.training.callbacks import feature_cache
from camlab.training.callbacks.checkpoints import checkpoints
from camlab.training.callbacks.feature_cache import FeatureCache
from camlab.training.callbacks.heatmap_logger import HeatmapLogger
from camlab.training.callbacks.pointing_game import PointingGame
from camlab.training.checkpoint import load_network
from camlab.training.run import Run


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


# ---- the kept features suffice


@pytest.mark.parametrize("size", [(6, 6), (13, 13), (7, 7), (14, 14), (2, 5), (1, 1)])
def test_window_means_carry_the_mean_of_a_convolution(size):
    maps, kernel = torch.randn(3, 5, *size, dtype=torch.float64), torch.randn(4, 5, 3, 3, dtype=torch.float64)
    expected = F.conv2d(maps, kernel, padding=1).mean(dim=(2, 3))
    torch.testing.assert_close(window_means(maps) @ kernel.flatten(1).T, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("cam_relu", [False, True])
@pytest.mark.parametrize("keep_last_pool", [False, True])
def test_logits_from_a_head_statistic_are_the_logits(cam_relu, keep_last_pool):
    network = classifier(cam_relu=cam_relu, keep_last_pool=keep_last_pool).network.eval().double()
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    statistic = network.head_statistic(network.forward_backbone(images))
    assert statistic.shape == ((4, 256, 1, 1) if keep_last_pool else (4, 256, 3, 3)) if cam_relu else (4, 256 * 9)
    torch.testing.assert_close(network.forward_head_statistic(statistic), network(images), atol=1e-12, rtol=0)


# ---- a run with the cache and a run without it


class Recorder(L.Callback):
    """Records the images that each step saw."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, list[int]]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.steps.append((trainer.current_epoch, batch.image_idx.tolist()))


def assert_same_training(folder: Path, backbone: str, steps: int, atol: float = 1e-5, **options) -> None:
    ended = []
    for name in ("plain", "cached"):
        module, recorded = classifier(backbone, "frozen", **options), Recorder()
        data = Coloured(image_size=112, n_train=48, batch_size=8, val_size=8)
        callbacks = [recorded, *([FeatureCache(str(folder))] if name == "cached" else [])]
        run = trainer(folder, max_epochs=-1, max_steps=steps, callbacks=callbacks, enable_checkpointing=False)
        run.fit(module, datamodule=data)
        metrics = {key: float(value) for key, value in run.callback_metrics.items()}
        run.test(module, datamodule=data, verbose=False)
        metrics |= {key: float(value) for key, value in run.callback_metrics.items() if key.startswith("test")}
        metrics.pop("train/images_per_second")
        logits = module.network.eval()(data.preprocess(data.splits["test"].images))
        ended.append((weights(module.network), logits, recorded.steps, metrics, data))
    (plain, plain_logits, plain_steps, plain_metrics, _), (cached, logits, seen, metrics, data) = ended
    assert data.head_statistics, "the cache was used"
    assert seen == plain_steps
    assert metrics == pytest.approx(plain_metrics, abs=1e-4)
    torch.testing.assert_close(logits, plain_logits, atol=1e-4, rtol=0)
    for name, tensor in cached.items():
        torch.testing.assert_close(tensor, plain[name], atol=atol, rtol=0, msg=name)
        assert not name.startswith("network.backbone") or torch.equal(tensor, plain[name])


@pytest.mark.slow
@pytest.mark.parametrize("cam_relu", [False, True])
@pytest.mark.parametrize("keep_last_pool", [False, True])
def test_cached_and_uncached_training_agree(tmp_path, cam_relu, keep_last_pool):
    assert_same_training(tmp_path, "alexnet", 40, cam_relu=cam_relu, keep_last_pool=keep_last_pool)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["alexnet", "vgg11"])
@pytest.mark.parametrize("cam_relu", [False, True])
@pytest.mark.parametrize("keep_last_pool", [False, True])
def test_cached_and_uncached_training_agree_over_300_steps(tmp_path, backbone, cam_relu, keep_last_pool):
    assert_same_training(tmp_path, backbone, 300, cam_relu=cam_relu, keep_last_pool=keep_last_pool)


@pytest.mark.slow
def test_a_cached_batch_norm_backbone_stays_as_it_is(tmp_path):
    module = classifier("vgg11_bn", "frozen")
    before = weights(module.network.backbone)
    trainer(tmp_path, callbacks=[FeatureCache(str(tmp_path / "cache"))]).fit(module, datamodule=Coloured())
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(module.network.backbone).items())


def test_checkpoints_and_heatmaps_are_ordinary(tmp_path):
    module, data = classifier("alexnet", "frozen"), Coloured()
    callbacks = [FeatureCache(str(tmp_path / "cache")), HeatmapLogger(per_class=1), *checkpoints(Run(tmp_path), True)]
    trainer(tmp_path, max_epochs=2, callbacks=callbacks).fit(module, datamodule=data)
    assert data.head_statistics
    loaded = load_network(tmp_path).network.eval()
    images = data.preprocess(data.splits["test"].images)
    torch.testing.assert_close(loaded(images), module.network.eval()(images))
    assert (tmp_path / "heatmaps/epoch_0002/sheet.png").is_file()


def test_masks_are_scored_on_the_images_themselves(tmp_path):
    module, data = classifier("alexnet", "frozen", keep_last_pool=False), Coloured(masks=True)
    run = trainer(tmp_path, max_epochs=2, callbacks=[FeatureCache(str(tmp_path / "cache")), PointingGame()])
    run.fit(module, datamodule=data)
    run.test(module, datamodule=data, verbose=False)
    assert set(data.head_statistics) == {"train", "val"}
    assert "test/pointing_game" in run.callback_metrics


def test_without_masks_the_test_reads_the_cached_features(tmp_path):
    module, data = classifier("alexnet", "frozen", keep_last_pool=False), Coloured()
    callbacks = [FeatureCache(str(tmp_path / "cache")), PointingGame()]
    run = trainer(tmp_path, max_epochs=2, callbacks=callbacks)
    run.fit(module, datamodule=data)
    run.test(module, datamodule=data, verbose=False)
    assert set(data.head_statistics) == {"train", "val", "test"}
    assert "test/acc" in run.callback_metrics
    assert "test/pointing_game" not in run.callback_metrics


# ---- when the cache is not used


def fitted(folder: Path, mode: str = "frozen", max_epochs: int = 2, cache: Path | None = None, **options) -> Coloured:
    data = Coloured(n_train=32, **options)
    callbacks = [FeatureCache(str(cache or folder / "cache"))]
    run = trainer(folder, max_epochs=max_epochs, limit_val_batches=0, callbacks=callbacks, enable_checkpointing=False)
    run.fit(classifier("alexnet", mode), datamodule=data)
    return data


def said(caplog) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def test_finetuning_has_nothing_to_keep(tmp_path, caplog):
    assert not fitted(tmp_path, "finetune").head_statistics
    assert "Features" not in said(caplog)


def test_shifts_turn_the_cache_off_with_one_line(tmp_path, caplog):
    assert not fitted(tmp_path, max_shift=2).head_statistics
    assert said(caplog).count("Features are not cached: data.max_shift=2 changes every picture in every epoch") == 1


def test_for_one_epoch_features_are_used_only_if_they_are_there(tmp_path, caplog):
    assert not fitted(tmp_path, max_epochs=1).head_statistics
    assert "takes longer than training with trainer.max_epochs=1" in said(caplog)
    fitted(tmp_path)
    assert fitted(tmp_path, max_epochs=1).head_statistics


def test_too_little_disk_is_said(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    assert not fitted(tmp_path).head_statistics
    assert "more than half of the free disk space" in said(caplog)


def test_a_second_run_computes_nothing(tmp_path, caplog):
    fitted(tmp_path)
    assert (
        said(caplog).count("Frozen backbone: 56 images and 16 mirror images pass it once") == 1
    )  # 16 images twice (16 others are held out), and 24 for the test
    first = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache" / "features").glob("*.npy")}
    fitted(tmp_path)
    assert said(caplog).count("Frozen backbone") == 1
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "cache" / "features").glob("*.npy")} == first


@pytest.mark.parametrize("change", [{"image_size": 96}, {"std": (0.2, 0.2, 0.2)}, {"n_test": 20}, {"flip": 0.0}])
def test_other_pictures_have_other_features(tmp_path, change):
    fitted(tmp_path)
    before = set((tmp_path / "cache" / "features").glob("*.npy"))
    fitted(tmp_path, **change)
    assert set((tmp_path / "cache" / "features").glob("*.npy")) > before


def test_a_cache_folder_that_is_a_file_is_the_users_mistake(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"paths\.cache=FOLDER, or cache=false"):
        fitted(tmp_path, cache=tmp_path / "file")


def test_fixed_views_are_kept_and_each_epoch_reads_another(tmp_path, caplog):
    """A run of four epochs on three views, and the same run that is resumed after its second epoch."""

    class Seen(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.setdefault(trainer.current_epoch, {}).update(
                zip(batch.image_idx.tolist(), batch.head_statistic, strict=True)
            )

    ended = []
    for stops in ((4,), (2, 4)):
        folder, seen = tmp_path / str(stops), {}
        for epochs in stops:
            data = Coloured(20, val_size=4, n_test=4, augment="standard", augment_views=3)
            callbacks = [FeatureCache(str(tmp_path / "cache")), Seen(), *checkpoints(Run(folder), True)]
            run, last = trainer(folder, max_epochs=epochs, callbacks=callbacks), folder / "checkpoints" / "last.ckpt"
            path = str(last) if last.is_file() else None
            run.fit(classifier("alexnet", "frozen", keep_last_pool=False), data, ckpt_path=path, weights_only=True)
            assert data.head_statistics["train"].shape[:2] == (16, 3)
        ended.append(torch.load(last, weights_only=True)["state_dict"])
        for i, own in seen[0].items():
            assert torch.equal(own, seen[3][i])
            assert not torch.equal(own, seen[1][i])
    assert all(torch.equal(value, ended[1][name]) for name, value in ended[0].items())
    assert said(caplog).count("data.augment_views=3: the training images take 3 times the first pass") == 1
    view = data.training_views.augmentation(data.splits["train"].images, None, torch.arange(16), 16, epoch=1)[0]
    network = classifier("alexnet", "frozen", keep_last_pool=False).network.eval()
    with torch.no_grad():
        statistic = network.head_statistic(network.forward_backbone(data.preprocess(view)))
    torch.testing.assert_close(data.head_statistics["train"][:, 1], statistic, atol=1e-4, rtol=1e-4)


def test_augmentation_turns_the_cache_off_unless_its_views_are_fixed(tmp_path, caplog):
    assert not fitted(tmp_path, augment=["standard", "mixup"]).head_statistics
    assert "Features are not cached: data.augment changes every picture in every epoch" in said(caplog)


# ---- resumed runs


def go_on(folder: Path, cache: str = "cache", **options) -> Coloured:
    """Train for two epochs, of which the second resumes from the checkpoint of the first."""
    data = Coloured(n_train=32)
    path = folder / "checkpoints" / "last.ckpt"
    callbacks = [FeatureCache(str(folder / cache)), *checkpoints(Run(folder), True)]
    run = trainer(folder, max_epochs=2 + path.is_file(), callbacks=callbacks, **options)
    run.fit(classifier("alexnet", "frozen"), datamodule=data, ckpt_path=str(path) if path.is_file() else None)
    return data


def little_memory(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(feature_cache, "_free_memory", lambda device: free)


def little_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(feature_cache, "free_disk", lambda folder: free)


def test_features_larger_than_memory_are_read_from_disk_and_give_the_same_run(tmp_path, monkeypatch, caplog):
    ended = []
    for free in (10**12, 1000):
        little_memory(monkeypatch, free)
        folder = tmp_path / str(free)
        data = go_on(folder, cache="../cache")
        assert all(isinstance(kept, torch.Tensor) == (free > 1000) for kept in data.head_statistics.values())
        go_on(folder, cache="../cache")
        ended.append(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    assert said(caplog).count("more than half of the free memory: they are read from disk") == 2
    assert all(torch.equal(value, ended[1][name]) for name, value in ended[0].items())


def test_a_run_that_goes_on_is_refused_where_the_cache_does_not_fit(tmp_path, monkeypatch):
    assert go_on(tmp_path).head_statistics
    shutil.rmtree(tmp_path / "cache")
    little_disk(monkeypatch, 1000)
    with pytest.raises(UserError, match=r"began with cached features, but now .* more than the free disk space"):
        go_on(tmp_path)


def test_a_run_that_began_without_the_cache_goes_on_without_it(tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        little_disk(patch, 1000)
        assert not go_on(tmp_path).head_statistics
    assert not go_on(tmp_path).head_statistics
    assert "Features are not cached, as when this run began." in said(caplog)


# ---- the store


KEY = "0123456789abcdef" * 2
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


def compute_slowly(counter: Path):
    with open(counter, "a") as file:
        file.write("computed\n")
    for row in ROWS:
        time.sleep(0.1)
        yield row[None]


def get(folder: Path, counter: Path) -> np.ndarray:
    return ArrayStore(folder).get(KEY, ROWS.shape, lambda: compute_slowly(counter), "rows")


def times_computed(counter: Path) -> int:
    return len(counter.read_text().splitlines())


def test_one_computes_and_the_others_wait(tmp_path):
    processes = [
        multiprocessing.get_context("fork").Process(target=get, args=(tmp_path, tmp_path / "n")) for _ in "abc"
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert times_computed(tmp_path / "n") == 1
    np.testing.assert_array_equal(get(tmp_path, tmp_path / "n"), ROWS)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_killed_while_writing_leaves_no_wrong_array(tmp_path, number):
    process = multiprocessing.get_context("fork").Process(target=get, args=(tmp_path, tmp_path / "n"))
    process.start()
    while not (tmp_path / "n").exists():
        time.sleep(0.01)
    time.sleep(0.15)
    os.kill(process.pid, number)
    process.join()
    assert KEY not in ArrayStore(tmp_path)
    np.testing.assert_array_equal(get(tmp_path, tmp_path / "n"), ROWS)
    assert times_computed(tmp_path / "n") == 2


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "no marker", "a marker of nonsense"])
def test_damage_is_noticed_and_mended(tmp_path, caplog, damage):
    get(tmp_path, tmp_path / "n")
    array, marker = tmp_path / f"{KEY}.npy", tmp_path / f"{KEY}.json"
    if damage == "a flipped bit":
        content = bytearray(array.read_bytes())
        content[-2] ^= 1
        array.write_bytes(content)
    elif damage == "cut short":
        array.write_bytes(array.read_bytes()[:-1])
    elif damage == "no marker":
        marker.unlink()
    else:
        marker.write_text("{]")
    np.testing.assert_array_equal(get(tmp_path, tmp_path / "n"), ROWS)
    assert times_computed(tmp_path / "n") == 2
    assert "is damaged: computing it again" in caplog.text


def test_a_disk_that_fills_up_is_told_and_leaves_nothing(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, hard))
        with pytest.raises(UserError, match=r"paths\.cache=FOLDER"):
            get(tmp_path, tmp_path / "n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert not list(tmp_path.glob(f"*{KEY}.[njp]*"))


def test_a_file_cut_short_under_a_run_does_not_end_it(tmp_path, caplog):
    rows, store = np.arange(200_000, dtype=np.float32).reshape(-1, 4), ArrayStore(tmp_path)
    first = store.get("key", rows.shape, lambda: [rows], "rows")
    second = store.get("key", rows.shape, lambda: [rows], "rows")
    os.truncate(tmp_path / "key.npy", 100)
    if (child := os.fork()) == 0:  # a map of the file would end the process that reads it
        os._exit(0 if np.array_equal(first, rows) and np.array_equal(second, rows) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(store.get("key", rows.shape, lambda: [rows], "rows"), rows)
    assert "is damaged: computing it again" in caplog.text, "the next run notices it"


def test_a_shape_that_the_file_does_not_have_is_damage(tmp_path, caplog):
    rows, store = np.zeros((4, 3), np.float32), ArrayStore(tmp_path)
    store.get("key", rows.shape, lambda: [rows], "rows")
    assert store.get("key", (3, 4), lambda: [rows.reshape(3, 4)], "rows").shape == (3, 4)
    assert "is damaged" in caplog.text
    with pytest.raises(UserError, match="was damaged while being written"):
        store.get("other", (5, 3), lambda: [rows], "rows")


def test_list_and_clear(tmp_path):
    store = ArrayStore(tmp_path)
    get(tmp_path, tmp_path / "n")
    assert [(entry.key, entry.about) for entry in store.entries()] == [(KEY, "rows")]
    (tmp_path / f".{KEY}.npy.0123456789abcdef.partial").write_bytes(b"x" * 100)
    assert store.clear() >= ROWS.nbytes + 100
    assert not list(tmp_path.glob("*.[njl]*")), "no file of the store may be left"
    assert not list(tmp_path.glob(".*"))
    assert not store.entries()
    assert KEY not in store


def test_files_of_others_are_neither_counted_nor_removed(tmp_path):
    store = ArrayStore(tmp_path)
    get(tmp_path, tmp_path / "n")
    names = ["results.npy", "results.json", "results.tex", f"{KEY}.tex", f"{KEY}.npy.bak", ".vim.partial", "uv.lock"]
    for name in names:
        (tmp_path / name).write_text("{}")
    (tmp_path / f"{'f' * 32}.npy").mkdir()
    assert [entry.key for entry in store.entries()] == [KEY]
    assert store.clear() > ROWS.nbytes
    assert {path.name for path in tmp_path.iterdir()} == {*names, "n", TAG, f"{'f' * 32}.npy"}


@pytest.mark.parametrize("tag", [None, "", "Signature: 8a477f597d28d172789f06886806bc55\n# Another program's."])
def test_a_folder_of_others_is_neither_cleared_nor_used(tmp_path, tag):
    files = {"results.npy": "numbers", f"{KEY}.npy": "numbers", f"{KEY}.json": "{}", f"{KEY}.lock": ""}
    for name, text in {**files, **({} if tag is None else {TAG: tag})}.items():
        (tmp_path / name).write_text(text)
    before = {path: path.read_text() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=r"not a cache of camlab .*nothing was removed"):
        ArrayStore(tmp_path).clear()
    with pytest.raises(UserError, match=r"holds files that are not camlab's.*paths\.cache=FOLDER"):
        ArrayStore(tmp_path).get(KEY, ROWS.shape, lambda: [ROWS], "rows")
    assert ArrayStore(tmp_path).entries() == []
    assert {path: path.read_text() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("content", [{}, {"paper.npy": "1", "paper.tex": "2"}])
def test_the_command_clears_a_cache_and_nothing_else(tmp_path, monkeypatch, capsys, content):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    for action in ("list", "clear"):
        code = command(monkeypatch, cache.main, f"action={action}", f"paths.cache={tmp_path}")
        assert code == (2 if content and action == "clear" else 0)
    assert {path.name for path in tmp_path.iterdir()} == set(content)
    ArrayStore(tmp_path / "features").get(KEY, ROWS.shape, lambda: [ROWS], "rows")
    assert command(monkeypatch, cache.main, "action=clear", f"paths.cache={tmp_path}") == 0
    assert {path.name for path in tmp_path.iterdir()} == {*content, "features"}
    assert [path.name for path in (tmp_path / "features").iterdir()] == [TAG]


def test_what_a_cache_says_of_itself_cannot_colour_the_terminal(tmp_path, monkeypatch, capsys):
    store = feature_store(str(tmp_path))
    store.get(KEY, (2, 3), lambda: [np.zeros((2, 3), np.float32)], "rows\x1b[2J\nmore\x9b")
    assert command(monkeypatch, cache.main, f"paths.cache={tmp_path}") == 0
    said = capsys.readouterr().out
    assert r"rows\x1b[2J\nmore\x9b" in said
    assert not set("\x1b\x9b") & set(said)


def test_links_in_the_places_of_a_caches_files_are_replaced(tmp_path):
    folder, precious = tmp_path / "cache", tmp_path / "precious"
    ArrayStore(folder).get(KEY, ROWS.shape, lambda: [ROWS], "rows")
    for path in [*folder.glob(f"{KEY}.*"), folder / f"{KEY}.lock"]:
        path.unlink(missing_ok=True)
        path.symlink_to(precious)
    precious.write_text("precious")
    np.testing.assert_array_equal(ArrayStore(folder).get(KEY, ROWS.shape, lambda: [ROWS], "rows"), ROWS)
    assert precious.read_text() == "precious"
    assert not [path for path in folder.iterdir() if path.is_symlink()]


def test_rows_are_read_from_disk_until_the_file_is_cut(tmp_path):
    shape = (len(ROWS), 1, *ROWS.shape[1:])
    rows = ArrayStore(tmp_path).rows(KEY, shape, lambda: [ROWS], "rows")
    np.testing.assert_array_equal(rows.read(np.array([2, 0])), ROWS[[2, 0]])
    assert rows.read(np.array([], np.int64)).shape == (0, *shape[2:])
    os.truncate(tmp_path / f"{KEY}.npy", 140)
    with pytest.raises(UserError, match="was truncated"):
        rows.read(np.array([2]))
    again = ArrayStore(tmp_path).rows(KEY, shape, lambda: [ROWS], "rows")
    np.testing.assert_array_equal(again.read(np.array([2])), ROWS[[2]])


def test_a_caller_cannot_spoil_what_is_kept(tmp_path):
    get(tmp_path, tmp_path / "n")[:] = 0
    np.testing.assert_array_equal(get(tmp_path, tmp_path / "n"), ROWS)


# ---- shifts


def test_shift_by_hand():
    image = torch.tensor([[[[1, 2], [3, 4]]]])
    assert shift(image, torch.tensor([[0, 0]])).tolist() == image.tolist()
    assert shift(image, torch.tensor([[1, 0]])).tolist() == [[[[1, 2], [1, 2]]]]
    assert shift(image, torch.tensor([[0, -1]])).tolist() == [[[[2, 2], [4, 4]]]]
