"""Read files of raw maps for the viewer, with the pictures beside them, and refuse those that are damaged."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from camlab.attribution.methods import title_of
from camlab.errors import UserError, first_line, plain
from camlab.storage.maps_file import StoredMaps, read_maps
from camlab.storage.pictures import read_picture
from camlab.viewer.content import MapSeries, Picture

_LARGEST = np.finfo(np.float16).max


def read_sound(file: Path, way_out: str) -> StoredMaps:
    """Read raw maps whose arrays have the shapes and ranges that the format states.

    Args:
        file: The file, `maps.npz`.
        way_out: Sentence that ends the message about a file that cannot be used.

    Raises:
        UserError: The file cannot be read, is damaged, or has another format.
    """
    try:
        stored = read_maps(file)
    except UserError as error:
        raise UserError(f"{first_line(error)} {way_out}") from error
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}. Make it readable, or remove its folder.") from error
    if not _is_sound(stored):
        raise UserError(f"{file} is damaged: its arrays do not fit each other. {way_out}")
    return stored


def class_names_of(stored: StoredMaps) -> list[str]:
    """The names of the classes, each once: a name that several classes have gets their indices, as in `crane (134)`."""
    names = [plain(name) for name in stored.class_names]
    several = {name for name, count in Counter(names).items() if count > 1}
    return [f"{name} ({i})" if name in several else name for i, name in enumerate(names)]


def _is_sound(stored: StoredMaps) -> bool:
    """Whether the arrays fit each other."""
    n, m = len(stored.files), len(stored.class_names)
    classes = stored.class_idx
    if n == 0 or m == 0 or classes.ndim != 2 or len(classes) != n or classes.size == 0:
        return False
    if classes.min() < 0 or classes.max() >= m or stored.probabilities.shape != (n, m) or len(stored.names) != n:
        return False
    if stored.labels is not None and (stored.labels.shape != (n,) or not np.isin(stored.labels, range(m)).all()):
        return False
    if stored.sizes.shape != (n, 2) or stored.visible.shape != (n, 4) or not np.isfinite(stored.visible).all():
        return False
    every = stored.cam_of_all_classes
    if every is not None and (every.ndim != 4 or every.shape[:2] != (n, m)):
        return False
    maps = [part for layers in stored.maps.values() for part in layers]
    return bool(maps) and all(part.ndim == 4 and part.shape[:2] == classes.shape and part.size for part in maps)


def series_of(stored: Sequence[StoredMaps]) -> list[MapSeries]:
    """The maps by method and layer; of CAM those of all classes, if they are kept."""
    last, series = stored[-1], []
    for method, layers in last.maps.items():
        title = plain(title_of(method))
        title = f"{title} against the class" if last.counterfactual else title
        for i, layer in enumerate(map(plain, last.layers[method])):
            shown = f"{title} at {layer}" if len(layers) > 1 else title
            is_complete = method == "cam" and last.cam_of_all_classes is not None and not last.counterfactual
            parts = [one.cam_of_all_classes if is_complete else one.maps[method][i] for one in stored]
            clipped = np.clip(np.stack([part for part in parts if part is not None]), -_LARGEST, _LARGEST)
            series.append(MapSeries(method, shown, layer, clipped.astype(np.float16), is_complete))
    return series


def pictures_of(stored: StoredMaps, place: Path, way_out: str) -> list[Picture]:
    """Read the pictures and, where there are any, their masks.

    Args:
        stored: The maps, whose pictures the network saw as a whole.
        place: Folder with the folder `masks`.
        way_out: Sentence that ends the message about a picture that cannot be used.

    Raises:
        UserError: A picture is missing or damaged, is not the one that was explained, or was shown only in part.
    """
    pictures = []
    for i, (file, name) in enumerate(zip(stored.files, stored.names, strict=True)):
        path = stored.folder / file
        if not path.is_file():
            raise UserError(f"{path} is missing; heatmaps cannot be shown without their pictures. {way_out}")
        image = np.asarray(read_picture(path))
        height, width = image.shape[:2]
        if [width, height] != stored.sizes[i].tolist() or stored.visible[i].tolist() != [0, 0, width, height]:
            raise UserError(f"{path}: {width}×{height} is not what the network saw. {way_out}")
        label = None if stored.labels is None else int(stored.labels[i])
        pictures.append(Picture(plain(name), label, image, _mask(place / "masks" / Path(file).name, image)))
    return pictures


def _mask(path: Path, image: np.ndarray) -> np.ndarray | None:
    if not path.is_file():
        return None
    mask: np.ndarray = np.asarray(read_picture(path))[..., 0] > 127
    return mask if mask.shape == image.shape[:2] else None
