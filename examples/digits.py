"""Five ways to set the learning rate of one small network, side by side.

The network learns scikit-learn's handwritten digits with Adam. Weights and batch order are the
same for each method; a validation split drives every decision, the test split is used once a run.

AutoLR, from rates that teach this network little or nothing, reaches a test accuracy of 97.9 %
(96.6 to 98.8, ten seeds); PlateauLR, from a rate picked by hand, 98.0 % and Keras' standard rate
96.9 %. 497 test images, so that a standard error is half a percent; 2 CPU
cores, TensorFlow 2.21, Keras 3.15.

    python examples/digits.py                            # one seed, every decision explained
    python examples/digits.py --seeds 0 1 2 3 4 5 6 7 8 9 --markdown   # the table of the README
    python examples/digits.py --out docs/data/reference   # the runs that are committed
"""

from dataclasses import dataclass
from functools import partial

import common
import keras
from common import BATCH, TRAIN, VALIDATION, console, digits2, percent, spread, table, whole

import adaptlr
from adaptlr.plotting import comparison

EPOCHS, GPU_EPOCHS = 20, 60  # the higher rates have stopped improving by then
STANDARD = 0.001  # the rate of Adam in Keras
# Held for 20 epochs these end at validation accuracies of 7 to 14 % and of 10 to 46 % (3 seeds).
TOO_LOW, TOO_HIGH = 1e-6, 1.0


@dataclass(frozen=True)
class Method:
    """A rate to compile with, and how to make the callback that takes it from there."""

    title: str
    folder: str
    rate: float
    callback: partial


METHODS = [
    Method(
        "constant",
        "constant",
        STANDARD,
        partial(adaptlr.ScheduleLR, adaptlr.schedules.Constant(STANDARD)),  # logs, changes nothing
    ),
    Method(
        "PlateauLR",
        "plateau",
        10 * STANDARD,  # it only lowers, so it starts high: a rate picked by hand
        partial(adaptlr.PlateauLR, factor=0.3, patience=2),  # Keras' patience of 10 is half a run
    ),
    Method(
        "CyclicalLR",
        "cyclical",
        STANDARD,
        partial(  # a decade around the standard rate, half a cycle in two epochs as Smith advises
            adaptlr.CyclicalLR, 0.0003, 0.003, step_size=2 * TRAIN // BATCH, mode="triangular2"
        ),
    ),
    Method("AutoLR from 1e-6", "auto", TOO_LOW, partial(adaptlr.AutoLR)),
    Method("AutoLR from 1.0", "auto_from_1", TOO_HIGH, partial(adaptlr.AutoLR)),
]


@dataclass(frozen=True)
class Result:
    """What one run left behind."""

    method: Method
    log: adaptlr.writers.MemoryWriter
    settled: float
    test: float

    @property
    def accuracies(self):
        """Validation accuracy at each epoch's end, as (step, value)."""
        return self.log.series("epoch/val_accuracy")

    @property
    def best(self):
        """Best validation accuracy of the run."""
        return max(value for _, value in self.accuracies)

    def steps_to(self, target):
        """Step of the first epoch end at which the validation accuracy was `target`, or None."""
        return next((step for step, value in self.accuracies if value >= target), None)


def run(method, seed, options):
    """Trains with one method and evaluates the test split, once."""
    splits = common.split(*common.digits(), seed, TRAIN, VALIDATION)
    keras.utils.set_random_seed(seed)
    model = common.compiled(common.network(width=options.width), method.rate)
    log = adaptlr.writers.MemoryWriter()
    folder = common.log_dir(options, method.folder, seed)
    callback = method.callback(log_dir=folder, writers=[log])
    common.fit(model, splits, options.epochs, callback, common.ProgressBar(method.title))
    settled = getattr(callback, "learning_rate", None)
    return Result(
        method,
        log,
        log.series("learning_rate")[-1][1] if settled is None else settled,
        common.accuracy(model, splits[2]),
    )


HEADINGS = ["method", "best validation", "test", "steps", "epochs", "rate"]


def rows(results):
    """The table's rows: one a method, over all seeds."""
    targets = [r.best for r in results[METHODS[0].folder]]
    for runs in results.values():
        yield [
            runs[0].method.title,
            spread([r.best for r in runs], percent),
            spread([r.test for r in runs], percent),
            spread([r.steps_to(t) for r, t in zip(runs, targets, strict=True)], whole),
            spread([len(r.accuracies) for r in runs], whole),
            spread([r.settled for r in runs], digits2),
        ]


COLUMNS = (
    "best validation: accuracy of the best epoch; test: accuracy of the weights that fit leaves, "
    "measured once; steps: until the validation accuracy reaches the best of the constant run, in "
    "the runs that reach it; rate: the one AutoLR settled on, for the others the last one."
)


def main():
    parser = common.command_line(__doc__, "digits", EPOCHS, GPU_EPOCHS)
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown too")
    options = common.parsed(parser)

    results = {method.folder: [] for method in METHODS}
    for seed in options.seeds:
        common.progress.print(
            f"\nseed {seed}: {len(METHODS)} methods, at most {options.epochs} epochs each; "
            "validation at the end of a bar is that of the last epoch"
        )
        for method in METHODS:
            results[method.folder].append(run(method, seed, options))

    lines = list(rows(results))
    common.report("Result", HEADINGS, lines, COLUMNS, options)
    auto = results["auto"][0]
    moves = [(str(d.step), f"{d.learning_rate:.3g}", d.rule, d.reason) for d in auto.log.decisions]
    console.print()
    console.print(table("Every move of AutoLR from 1e-6", ["step", "rate", "rule", "why"], moves))
    picture = options.out / "digits.png"
    logs = {runs[0].method.title: [run.log for run in runs] for runs in results.values()}
    comparison(logs, marked=auto.method.title, path=picture)
    console.print(f"\npicture: {picture}", highlight=False, soft_wrap=True)
    if options.markdown:
        print("\n" + "\n".join(f"| {' | '.join(r)} |" for r in [HEADINGS, ["---"] * 6, *lines]))
        print(f"\n{COLUMNS}\n{common.notes(options.seeds)}")


if __name__ == "__main__":
    main()
