"""Your own images: a small classifier, with any of the callbacks and without one.

    python examples/images.py                         # handwritten digits
    python examples/images.py --data photographs/     # photographs/cat/1.jpg, train/cat/1.jpg
    python examples/images.py --data mine.npz         # x_train, y_train, x_test, y_test
    python examples/images.py --data cifar10          # through keras.datasets
    python examples/images.py --data photographs/ --callback auto --save model.keras
    python examples/images.py --callback none auto plateau cyclical onecycle schedule finder

The validation split drives every decision; the test split is evaluated once a run. A folder is
divided 60 : 20 : 20, class by class, as far as it has no folders train, val and test. Images are
read from disk in each epoch, and up to 20 000 are kept. What is no image is left out and named.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import common
import folders
import keras
import numpy as np
from common import BATCH, digits2, percent, spread
from rich.progress import track

import adaptlr
from adaptlr.schedules import Constant, Cosine, Warmup

EPOCHS, GPU_EPOCHS = 20, 60
SHARE = folders.SHARE  # of the images, for validation; as much for a test split that is not there
SIDE = 64  # pixels: what photographs are resized to
NAMED = 10  # files that were left out and are named; the rest are counted
# Rates of Adam for all but AutoLR and the finder: the standard rate, and the highest that this
# network learns the digits with at all seeds tried.
RATE, HIGH = 0.001, 0.01


def none(epoch_steps, epochs, **log):
    """Plain Keras at the standard rate: nothing is logged."""


def auto(epoch_steps, epochs, **log):
    return adaptlr.AutoLR(**log)


def plateau(epoch_steps, epochs, **log):
    return adaptlr.PlateauLR(factor=0.3, patience=2, **log)


def cyclical(epoch_steps, epochs, **log):
    half = 2 * epoch_steps  # two epochs up, two down, as Smith advises
    return adaptlr.CyclicalLR(RATE / 3, HIGH, half, mode="triangular2", **log)


def onecycle(epoch_steps, epochs, **log):
    return adaptlr.OneCycleLR(HIGH, **log)


def schedule(epoch_steps, epochs, **log):
    cosine = Cosine(HIGH, epoch_steps * epochs)
    return adaptlr.ScheduleLR(Warmup(cosine, warmup_steps=epoch_steps), **log)


def finder(epoch_steps, epochs, **log):
    """The finder is run before `fit`; what it suggests is held."""
    return adaptlr.LRFinder(**log)


CALLBACKS = {f.__name__: f for f in (none, auto, plateau, cyclical, onecycle, schedule, finder)}


@dataclass(frozen=True)
class Run:
    """What one training left behind."""

    model: keras.Model
    steps: int
    rates: list[float]
    validation: float
    test: float


def load(data, seed):
    """Returns (images, labels) of the train, validation and test split."""
    if data == "digits":
        images, labels = common.digits()
        return common.split((images * 255).astype("uint8"), labels, seed, 1000, 300)
    if isinstance(data, folders.Folder):
        return folders.splits(data, seed, SIDE)
    if data == "cifar10":
        images, labels, *test = load_cifar10()
    else:
        with np.load(data) as arrays:
            images, labels, *test = [
                arrays[name] for name in ("x_train", "y_train", "x_test", "y_test")
            ]
    validation = int(SHARE * len(images))
    train, validation, _ = common.split(
        as_images(images), np.ravel(labels), seed, len(images) - validation, validation
    )
    return [train, validation, (as_images(test[0]), np.ravel(test[1]))]


def as_images(images):
    """Gives grey images the channel that they lack."""
    return images if images.ndim == 4 else images[..., None]


def load_cifar10():
    try:
        train, test = keras.datasets.cifar10.load_data()
    except Exception as error:  # whatever the download raised
        raise SystemExit(
            f"CIFAR-10 could not be downloaded: {error}\nWhere there is a connection, save it "
            'with\n\n    python -c "import keras, numpy; (x, y), (u, v) = '
            "keras.datasets.cifar10.load_data(); numpy.savez('cifar10.npz', x_train=x, "
            'y_train=y, x_test=u, y_test=v)"\n\nand pass --data cifar10.npz'
        ) from error
    return *train, *test


def look_into(path):
    """Reads a folder and says what is in it: classes and counts, files left out, small classes."""
    if not path.is_dir():
        raise SystemExit(f"--data must be digits, cifar10, a .npz file or a folder, not {path}")

    def bar(files):
        return list(track(files, f"reading {path}", console=common.progress, transient=True))

    found = folders.scan(path, SIDE, bar)
    for file, why in list(found.skipped.items())[:NAMED]:
        say(f"left out: {file}: {why}")
    if len(found.skipped) > NAMED:
        say(f"left out: {len(found.skipped) - NAMED} more")
    if len(found.classes) < 2:
        raise SystemExit(
            f"{path} must hold a folder of images for each of two or more classes, such as "
            f"{path}/cat and {path}/dog. Found with images: {', '.join(found.classes) or 'none'}"
        )
    names = [name for name in ("train", "validation", "test") if name in found.files]
    headings = ["class", *(names if len(names) > 1 else ["images"])]
    rows = [[name, *(found.counts(name)[split] for split in names)] for name in found.classes]
    rows.append(["all", *map(sum, zip(*(row[1:] for row in rows), strict=True))])
    common.progress.print(common.table(None, headings, [map(str, row) for row in rows]))
    for name, count in found.few.items():
        say(f"few images: {name} has {count} to learn from; its accuracy will be a matter of luck")
    return found


def say(text):
    common.progress.print(text, highlight=False, soft_wrap=True)


def build(images, classes, width, rate):
    """The shared network behind a layer that scales 0 to 255 to 0 to 1."""
    layers = [keras.Input(images.shape[1:]), keras.layers.Rescaling(1 / 255)]
    network = common.network(images.shape[1:], classes, width)
    return common.compiled(keras.Sequential([*layers, network]), rate)


def run(name, data, seed, options):
    """Trains with one callback."""
    splits = load(data, seed)
    if not all(len(labels) for _, labels in splits):
        raise SystemExit(f"{options.data} holds too few images to divide: five a class at least")
    train, validation, test = (
        folders.Batches(*split, BATCH, seed if place == 0 else None)
        for place, split in enumerate(splits)
    )
    keras.utils.set_random_seed(seed)
    classes = 1 + max(int(labels.max()) for _, labels in splits)
    model = build(splits[0][0], classes, options.width, HIGH if name == "plateau" else RATE)
    log = adaptlr.writers.MemoryWriter()
    folder = common.log_dir(options, name, seed)
    callback = CALLBACKS[name](len(train), options.epochs, log_dir=folder, writers=[log])
    searched = 0
    if name == "finder":
        callback.find(model, train)
        if callback.suggestion is None:
            raise SystemExit(callback.verdict)
        searched = len(callback.learning_rates)
        held = Constant(callback.suggestion)
        callback = adaptlr.ScheduleLR(held, log_dir=folder / "fit", writers=[log])
    listed = [callback] if callback else []
    history = model.fit(
        train,
        validation_data=validation,
        epochs=options.epochs,
        callbacks=[*listed, common.ProgressBar(name)],
        verbose=0,
    )
    return Run(
        model,
        searched + len(history.epoch) * len(train),
        rates(name, callback, log),
        max(history.history["val_accuracy"]),
        model.evaluate(test, verbose=0, return_dict=True)["accuracy"],
    )


def rates(name, callback, log):
    """The rates of a run; those of AutoLR and of the finder are the one that was found."""
    if name == "none":
        return [RATE]
    logged = [rate for _, rate in log.series("learning_rate")]
    found = callback.learning_rate if name == "auto" else None
    return [found] if found else logged[-1:] if name == "finder" else logged


def row(name, runs):
    """A row of the table, over all seeds."""
    return [
        name,
        spread([run.validation for run in runs], percent),
        spread([run.test for run in runs], percent),
        spread([run.steps for run in runs], common.whole),
        spread([min(run.rates) for run in runs], digits2),
        spread([max(run.rates) for run in runs], digits2),
    ]


def save(results, data, path):
    """Saves the model with the best validation accuracy and says how to use it."""
    name, best = max(
        ((name, run) for name, runs in results.items() for run in runs),
        key=lambda pair: pair[1].validation,
    )
    best.model.save(path)
    order = (
        ", in the order of " + " ".join(data.classes) if isinstance(data, folders.Folder) else ""
    )
    print(
        f"\nSaved {path}, trained with {name}. In Python:\n"
        f"    model = keras.saving.load_model({str(path)!r})\n"
        f"    model.predict(images)  # of {best.model.input_shape[1:]}, 0 to 255\n"
        f"The outputs are the probabilities of the classes{order}."
    )


def main():
    parser = common.command_line(__doc__, "images", EPOCHS, GPU_EPOCHS)
    parser.add_argument("--data", default="digits", help="digits, cifar10, a .npz or a folder")
    parser.add_argument("--callback", nargs="+", choices=CALLBACKS, default=["none", "auto"])
    parser.add_argument("--save", type=Path, metavar="model.keras", help="keep the best model")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    options = common.parsed(parser)
    if options.save and options.save.suffix != ".keras":
        raise SystemExit(f"--save must be a file that ends in .keras, not {options.save}")
    data = options.data
    if data not in ("digits", "cifar10") and not data.endswith(".npz"):
        data = look_into(Path(data))
    say(f"at most {options.epochs} epochs each; rate and validation are those of the last one")
    results = {
        name: [run(name, data, seed, options) for seed in options.seeds]
        for name in options.callback
    }
    headings = ["callback", "best validation", "test", "steps", "lowest rate", "highest rate"]
    columns = (
        f"{options.data}. best validation: accuracy of the best epoch; test: accuracy of the "
        "weights that fit leaves, measured once; steps: of training, those of the finder "
        "included; rates: of auto and finder the one that was found, no rate given."
    )
    common.report(
        "Result", headings, [row(*result) for result in results.items()], columns, options
    )
    if options.save:
        save(results, data, options.save)
    keep = "" if options.save else "keep the model with --save model.keras, "
    print(f"\nNext: train longer with --epochs, {keep}compare others with --callback;")
    print("docs/your-own-images.md puts AutoLR into a model of your own.")


if __name__ == "__main__":
    main()
