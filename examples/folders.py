"""Folders of images as they really are: what can be read, what cannot and why, in which split."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import keras
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
SHARE = 0.2  # of each class, for a split that has no folder of its own
FEW = 20  # images of a class: with fewer, its validation is a matter of four images and of luck
CACHED = 20_000  # images of 64×64 pixels that are kept after the first epoch: 250 MB
THREADS = min(8, os.cpu_count() or 1)


@lru_cache(maxsize=CACHED)
def read(path, side):
    """Returns one image as `side`×`side` pixels of three colours, 0 to 255."""
    with Image.open(path) as image:
        image.draft("RGB", (2 * side, 2 * side))  # a JPEG is decoded no larger than it is needed
        upright = ImageOps.exif_transpose(image).convert("RGB")
    return np.asarray(upright.resize((side, side), Image.Resampling.BILINEAR))


def fault(path, side):
    """Says why a file cannot be used, or returns None."""
    try:
        read(path, side)
    except UnidentifiedImageError:
        return "no image that Pillow can read"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"broken: {error}"
    return None


class Files:
    """Images on disk; an array of indices gives an array of images."""

    def __init__(self, paths, side):
        self.paths, self.shape = paths, (len(paths), side, side, 3)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, indices):
        return np.stack([read(self.paths[i], self.shape[1]) for i in indices])


class Batches(keras.utils.PyDataset):
    """Batches of images, in memory or on disk, on every backend; shuffled if there is a seed."""

    def __init__(self, images, labels, batch, seed=None):
        # Threads are worth their while only where files are read again and again.
        super().__init__(
            workers=THREADS if isinstance(images, Files) and len(labels) > CACHED else 1
        )
        self.images, self.labels, self.batch = images, labels, batch
        self.order, self.random = np.arange(len(labels)), np.random.default_rng(seed)
        self.shuffled = seed is not None
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.order) // self.batch)

    def __getitem__(self, index):
        chosen = self.order[index * self.batch : (index + 1) * self.batch]
        return self.images[chosen], self.labels[chosen]

    def on_epoch_end(self):
        if self.shuffled:
            self.random.shuffle(self.order)


@dataclass(frozen=True)
class Folder:
    """What was found: classes in alphabetical order, files by split and class, files left out."""

    classes: list[str]
    files: dict[str, dict[str, list[Path]]]  # without folders of splits all are in "train"
    skipped: dict[Path, str]

    def counts(self, name):
        """Usable files of a class, by split."""
        return {split: len(classes.get(name, [])) for split, classes in self.files.items()}

    @property
    def few(self):
        """Classes with a handful of images to train on, and how many."""
        counts = {name: self.counts(name)["train"] for name in self.classes}
        return {name: count for name, count in counts.items() if count < FEW}


def scan(root, side, progress=list):
    """Reads every file below a folder once, and tells images from the rest.

    Args:
        root: A folder of class folders, or of `train`, `val` and `test` folders of class folders.
        side: Pixels that images are resized to.
        progress: Wraps the files while they are read.
    """
    divided = has_splits(root)
    listed = [path for path in sorted(root.rglob("*")) if path.is_file()]
    places = {path: place(path.relative_to(root).parts, divided) for path in listed}
    inside = [path for path in listed if places[path]]
    with ThreadPoolExecutor(THREADS) as pool:
        found = progress(pool.map(lambda path: fault(path, side), inside))
        faults = dict(zip(inside, found, strict=True))
    files = {"train": {}}
    for path in (path for path in inside if not faults[path]):
        split, name = places[path]
        files.setdefault(split, {}).setdefault(name, []).append(path)
    skipped = {path: faults.get(path, "in no class folder") for path in listed}
    classes = sorted({name for split in files.values() for name in split})
    return Folder(classes, files, {path: why for path, why in skipped.items() if why})


def has_splits(root):
    """Whether the folders are splits; a lone `train` may be a class of locomotives."""
    names = {SPLITS.get(path.name.lower()) for path in root.iterdir() if path.is_dir()}
    return {"train"} < names - {None}


def place(parts, divided):
    """Split and class of a file, by the folders that it is in; None if it has no class."""
    split, split_folders = "train", 0
    if divided:
        split, split_folders = SPLITS.get(parts[0].lower()), 1
    folders = parts[split_folders:-1]
    if not split or not folders or any(f.startswith((".", "__")) for f in folders):
        return None  # macOS and notebooks leave such folders behind
    return split, folders[0]


def splits(folder, seed, side):
    """Returns (images, labels) for train, validation and test; each class is divided alike."""
    random, parts = np.random.default_rng(seed), {"train": [], "validation": [], "test": []}
    for label, name in enumerate(folder.classes):
        own = {split: classes.get(name, []) for split, classes in folder.files.items()}
        train = [own["train"][i] for i in random.permutation(len(own["train"]))]
        share = max(1, round(SHARE * len(train))) if len(train) > 2 else 0
        for split in ("validation", "test"):
            if split not in own:
                own[split], train = train[:share], train[share:]
        for split, paths in {**own, "train": train}.items():
            parts[split] += [(path, label) for path in paths]
    return [
        (Files([path for path, _ in part], side), np.array([label for _, label in part], "int32"))
        for part in parts.values()
    ]
