"""Batch size and momentum: does a rate that was found stand up to the best of a grid?

Momentum m multiplies a steady gradient by 1 / (1 - m), so it is the effective rate, rate /
(1 - m), that should stay the same when m changes. A grid of effective rates is trained at each
momentum and batch size; beside it stand what one range test suggests and what AutoLR settles on.

    python examples/momentum.py
"""

import common
import keras
from batch_size import best_rate, build_model, load_splits
from common import digits2, percent, spread

import adaptlr

EPOCHS, GPU_EPOCHS = 14, 60  # 210 steps at the larger batch: below 200 AutoLR does not probe
BATCHES = [20, 80]  # both divide the 1200 training images
MOMENTA = [0.0, 0.8, 0.9, 0.95]
EFFECTIVE = [0.03, 0.1, 0.3, 1.0]  # steps of 3: as wide as the valley of good rates


class Trainer:
    """One compiled model for one momentum and batch size, set back before every run."""

    def __init__(self, momentum, batch, seed, epochs):
        keras.utils.set_random_seed(seed)
        self.model = build_model(keras.optimizers.SGD(0.01, momentum=momentum))
        self.splits, self.batch, self.seed, self.epochs = load_splits(), batch, seed, epochs
        variables = [*self.model.weights, *self.model.optimizer.variables]
        self.fresh = [(v, keras.ops.convert_to_numpy(v).copy()) for v in variables]

    def run(self, rate, *callbacks):
        """Trains at a rate; returns it with validation loss and test accuracy."""
        self.reset(rate)
        common.fit(self.model, self.splits, self.epochs, *callbacks, batch=self.batch)
        loss = self.model.evaluate(*self.splits[1], verbose=0, return_dict=True)["loss"]
        return {
            "rate": rate,
            "validation_loss": loss if loss < float("inf") else None,  # NaN is not, either
            "test": common.accuracy(self.model, self.splits[2]),
        }

    def reset(self, rate):
        for variable, value in self.fresh:
            variable.assign(value)
        self.model.optimizer.learning_rate = rate
        keras.utils.set_random_seed(self.seed)

    def suggestion(self):
        """What the range test suggests, or None."""
        self.reset(0.01)
        finder = adaptlr.LRFinder(max_lr=10.0, min_lr=1e-5)
        return finder.find(self.model, *self.splits[0], batch_size=self.batch).suggestion


def compare(momentum, batch, seed, options):
    """Returns (rate, test accuracy) of the grid's best, of the finder and of AutoLR."""
    trainer = Trainer(momentum, batch, seed, options.epochs)
    grid = [trainer.run(effective * (1 - momentum)) for effective in EFFECTIVE]
    best = next(run for run in grid if run["rate"] == best_rate(grid))
    suggested = trainer.suggestion()
    found = {"rate": None, "test": None} if suggested is None else trainer.run(suggested)
    folder = common.log_dir(options, f"batch_{batch}_momentum_{momentum:g}", seed)
    callback = adaptlr.AutoLR(trainer.splits[1], log_dir=folder)
    settled = trainer.run(0.01, callback)
    settled["rate"] = callback.learning_rate
    return [(run["rate"], run["test"]) for run in (best, found, settled)]


def main():
    parser = common.command_line(__doc__, "momentum", EPOCHS, GPU_EPOCHS)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--momenta", type=float, nargs="+", default=MOMENTA)
    options = common.parsed(parser)
    lines = []
    for batch in options.batches:
        for momentum in options.momenta:
            common.progress.print(f"batch {batch}, momentum {momentum:g}")
            runs = [compare(momentum, batch, seed, options) for seed in options.seeds]
            cells = []
            for column in zip(*runs, strict=True):
                rates, tests = zip(*column, strict=True)
                effective = [None if r is None else r / (1 - momentum) for r in rates]
                cells.append(f"{spread(effective, digits2)}: {spread(tests, percent)}")
            lines.append([str(batch), f"{momentum:g}", f"{1 - momentum:.2g}", *cells])
    headings = ["batch", "momentum", "rate is", "best of the grid", "finder", "AutoLR"]
    columns = (
        "Each cell: effective rate, rate / (1 - momentum): test accuracy. rate is: what to "
        f"multiply an effective rate with to get the rate. Grid: {EFFECTIVE}, the best by loss "
        f"on the validation split. SGD, {options.epochs} epochs each; the grid trains "
        f"{len(EFFECTIVE)} times, the finder 100 steps more than once, AutoLR once."
    )
    common.report("Result", headings, lines, columns, options)


if __name__ == "__main__":
    main()
