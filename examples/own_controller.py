"""A controller of one's own: GreedyLR in 15 lines, on top of any schedule.

GreedyLR (Subramanyam et al., arXiv 2512.14527): raise the rate while the loss falls, lower it when
it rises. A controller is a frozen dataclass with `init` and `update`; it knows neither Keras nor
the model. `ScheduleLR` multiplies its scale with a schedule, logs its decisions with their
reasons, and `adaptlr.replay` can show it any recorded run.

    python examples/own_controller.py
"""

from dataclasses import dataclass

import common
import keras
from common import TRAIN, VALIDATION, digits2, percent, spread

import adaptlr
from adaptlr.controllers import Decision
from adaptlr.schedules import Constant

EPOCHS, GPU_EPOCHS = 15, 60
RATES = [0.0001, 0.001, 0.01]  # of Adam: a tenth of the standard rate, that rate, ten times it


@dataclass(frozen=True)
class GreedyState:
    scale: float = 1.0
    loss: float | None = None


@dataclass(frozen=True)
class Greedy:
    factor: float = 0.9
    monitor: None = None  # the training loss is all that it looks at

    def init(self, run):
        return GreedyState()

    def update(self, state, seen):
        if seen.loss is None:  # before the first step
            return state, Decision(state.scale)
        if state.loss is None:
            return GreedyState(state.scale, seen.loss), Decision(state.scale)
        fell = seen.loss < state.loss
        scale = state.scale / self.factor if fell else state.scale * self.factor
        reason = f"the training loss went from {state.loss:.4g} to {seen.loss:.4g}"
        return GreedyState(scale, seen.loss), Decision(scale, "up" if fell else "down", reason)


def run(controller, rate, seed, folder, options):
    """Trains from a rate; returns the last rate, the decisions, and the two accuracies."""
    splits = common.split(*common.digits(), seed, TRAIN, VALIDATION)
    keras.utils.set_random_seed(seed)
    model = common.compiled(common.network(width=options.width), rate)
    logged = common.log_dir(options, folder, seed)
    callback = adaptlr.ScheduleLR(Constant(rate), controller, log_dir=logged)
    common.fit(model, splits, options.epochs, callback)
    rates = [d.learning_rate for d in callback.decisions]
    return (rates[-1], len(rates) - 1, *(common.accuracy(model, part) for part in splits[1:]))


def main():
    options = common.parsed(common.command_line(__doc__, "own_controller", EPOCHS, GPU_EPOCHS))
    lines = []
    for rate in RATES:
        for title, controller in (("constant", None), ("Greedy", Greedy())):
            common.progress.print(f"{title} from {rate:g}")
            folder = f"{title.lower()}_{rate:g}"
            runs = [run(controller, rate, seed, folder, options) for seed in options.seeds]
            last, decisions, validation, test = zip(*runs, strict=True)
            lines.append(
                [
                    title,
                    f"{rate:g}",
                    spread(validation, percent),
                    spread(test, percent),
                    spread(decisions, common.whole),
                    spread(last, digits2),
                ]
            )
    headings = ["controller", "first rate", "validation", "test", "decisions", "last rate"]
    columns = (
        "validation, test: accuracy after the last epoch; decisions: times that the controller "
        "moved the rate, at ten control points an epoch and one at its end."
    )
    common.report("Result", headings, lines, columns, options)


if __name__ == "__main__":
    main()
