"""Searching for a rate with Optuna and with KerasTuner, and what that costs against AutoLR.

Both look for the rate of Adam with the highest validation accuracy: Optuna with its TPE sampler,
stopping poor trials early, KerasTuner by Bayesian optimisation. The model of the best trial is
then evaluated on the test split. AutoLR trains once, from whatever rate there is.

    python examples/rate_search.py
"""

import tempfile

import common
import keras
import keras_tuner
import optuna
from common import BATCH, TRAIN, VALIDATION, digits2, percent, spread, whole

import adaptlr
from adaptlr.schedules import Constant

EPOCHS, GPU_EPOCHS = 12, 60
TRIALS = 6
LOWEST, HIGHEST = 1e-5, 1.0  # what is searched, on a logarithmic scale
STANDARD = 0.001  # the rate of Adam in Keras


class Trial(keras.callbacks.Callback):
    """Counts training steps, keeps the best epoch, and stops where Optuna wants to."""

    def __init__(self, trial=None):
        super().__init__()
        self.trial, self.steps, self.best = trial, 0, 0.0

    def on_epoch_end(self, epoch, logs=None):
        self.steps += self.params["steps"]
        self.best = max(self.best, logs["val_accuracy"])
        if self.trial is not None:
            self.trial.report(logs["val_accuracy"], epoch)
            self.model.stop_training = self.trial.should_prune()


def train(rate, splits, seed, options, *callbacks):
    """Trains one model; returns it."""
    keras.utils.set_random_seed(seed)
    model = common.compiled(common.network(width=options.width), rate)
    common.fit(model, splits, options.epochs, *callbacks)
    return model


def once(splits, seed, options, callback):
    """One run with a callback, from the standard rate."""
    count = Trial()
    model = train(STANDARD, splits, seed, options, callback, count)
    rate = getattr(callback, "learning_rate", STANDARD)
    return 1, count.steps, rate, count.best, common.accuracy(model, splits[2])


def standard(splits, seed, options):
    folder = common.log_dir(options, "standard", seed)
    return once(splits, seed, options, adaptlr.ScheduleLR(Constant(STANDARD), log_dir=folder))


def autolr(splits, seed, options):
    folder = common.log_dir(options, "autolr", seed)
    return once(splits, seed, options, adaptlr.AutoLR(log_dir=folder))


def with_optuna(splits, seed, options):
    """Each trial is logged as a run of its own; the best one's model is kept."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    runs = []

    def objective(trial):
        rate = trial.suggest_float("rate", LOWEST, HIGHEST, log=True)
        count = Trial(trial)
        folder = common.log_dir(options, f"optuna_{trial.number}", seed)
        logged = adaptlr.ScheduleLR(Constant(rate), log_dir=folder)
        runs.append((count, train(rate, splits, seed, options, logged, count)))
        return count.best

    sampler = optuna.samplers.TPESampler(n_startup_trials=options.trials // 2, seed=seed)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=2)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    study.optimize(objective, n_trials=options.trials)
    steps = sum(count.steps for count, _ in runs)
    test = common.accuracy(runs[study.best_trial.number][1], splits[2])
    return len(runs), steps, study.best_params["rate"], study.best_value, test


def with_keras_tuner(splits, seed, options):
    """KerasTuner makes the models itself, and keeps the weights of the best epoch in files."""
    runs = []

    class Model(keras_tuner.HyperModel):
        def build(self, hyperparameters):
            rate = hyperparameters.Float("rate", LOWEST, HIGHEST, sampling="log")
            keras.utils.set_random_seed(seed)
            return common.compiled(common.network(width=options.width), rate)

        def fit(self, hyperparameters, model, *arguments, callbacks, **more):
            runs.append(Trial())
            return model.fit(*arguments, callbacks=[*callbacks, runs[-1]], **more)

    with tempfile.TemporaryDirectory() as directory:
        tuner = keras_tuner.BayesianOptimization(
            Model(), "val_accuracy", options.trials, seed=seed, directory=directory
        )
        arguments = {"batch_size": BATCH, "epochs": options.epochs, "verbose": 0}
        tuner.search(*splits[0], validation_data=splits[1], **arguments)
        (best,) = tuner.oracle.get_best_trials(1)
        test = common.accuracy(tuner.get_best_models(1)[0], splits[2])
    steps = sum(count.steps for count in runs)
    return len(runs), steps, best.hyperparameters.get("rate"), best.score, test


METHODS = {
    "standard rate": standard,
    "Optuna": with_optuna,
    "KerasTuner": with_keras_tuner,
    "AutoLR": autolr,
}


def main():
    parser = common.command_line(__doc__, "rate_search", EPOCHS, GPU_EPOCHS, seeds=(0, 1, 2))
    parser.add_argument("--trials", type=int, default=TRIALS)
    options = common.parsed(parser)
    results = {title: [] for title in METHODS}
    for seed in options.seeds:
        splits = common.split(*common.digits(), seed, TRAIN, VALIDATION)
        for title, method in METHODS.items():
            common.progress.print(f"seed {seed}: {title}")
            results[title].append(method(splits, seed, options))
            keras.utils.clear_session()
    forms = [whole, whole, digits2, percent, percent]
    lines = [
        [title, *map(spread, zip(*runs, strict=True), forms)] for title, runs in results.items()
    ]
    headings = ["method", "trainings", "steps", "rate", "best validation", "test"]
    columns = (
        "trainings: models trained; steps: training steps of all of them; best validation: "
        "accuracy of the best epoch, which for a search is the best of all its trials; test: "
        "accuracy of the model that is kept (KerasTuner: at its best epoch), measured once."
    )
    common.report("Result", headings, lines, columns, options)


if __name__ == "__main__":
    main()
