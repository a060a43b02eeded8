"""Writes `rates.json`: 200 steps of schedulers that the test suite does not install.

Run it in an environment of its own, after `pip install optax timm transformers fastai
pytorch-ignite mosaicml`:

    python tests/fit/peers/generate.py > tests/fit/peers/rates.json

The names are those of the tests in `tests/test_migration.py`, where the same calls stand on our
side. Rates of a library are compared to the digits that it computes with.
"""

import json
import warnings
from importlib.metadata import version
from types import SimpleNamespace

STEPS = 200
RATE = 0.1


def optimizer(rate=RATE):
    import torch

    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate, momentum=0.9)


def values(plateau):
    """A metric that falls, stays and falls: what plateau detection is for."""
    return [max(1.0 - 0.02 * step, 0.6) - 0.3 * (step >= 120) for step in range(plateau)]


def of_optax():
    import jax
    import optax

    s = optax.schedules
    schedules = {
        "polynomial": s.polynomial_schedule(RATE, 0.01, 2, 100, 30),
        "linear": s.linear_schedule(0.01, RATE, 120),
        "piecewise_constant": s.piecewise_constant_schedule(RATE, {50: 0.5, 120: 0.1, 150: 4.0}),
        "piecewise_interpolate": s.piecewise_interpolate_schedule(
            "linear", RATE, {40: 0.5, 120: 0.2}
        ),
        "exponential_decay": s.exponential_decay(RATE, 30, 0.5, 20, True, end_value=0.02),
        "exponential_growth": s.exponential_decay(0.001, 30, 2.0, end_value=0.05),
        "cosine_decay": s.cosine_decay_schedule(RATE, 150, 0.1),
        "cosine_rise": s.cosine_decay_schedule(RATE, 150, 3.0),
        "cosine_onecycle": s.cosine_onecycle_schedule(STEPS - 20, RATE),
        "linear_onecycle": s.linear_onecycle_schedule(STEPS, RATE),
        "warmup_constant": s.warmup_constant_schedule(0.01, RATE, 30),
        "warmup_cosine_decay": s.warmup_cosine_decay_schedule(0.01, RATE, 30, 180, 0.002),
        "warmup_exponential_decay": s.warmup_exponential_decay_schedule(
            0.01, RATE, 30, 20, 0.5, end_value=0.005
        ),
        "sgdr": s.sgdr_schedule(
            [
                {"init_value": 0.0, "peak_value": RATE, "warmup_steps": 10, "decay_steps": 60},
                {"init_value": 0.01, "peak_value": 0.05, "warmup_steps": 5, "decay_steps": 100},
            ]
        ),
        "join": s.join_schedules(
            [s.constant_schedule(RATE), s.linear_schedule(RATE, 0.0, 50)], [60]
        ),
        "stable_then_decay": s.join_schedules(
            [
                s.linear_schedule(0.0, RATE, 20),
                s.constant_schedule(RATE),
                s.linear_schedule(RATE, 0.0, 40),
            ],
            [20, 140],
        ),
    }
    steps = jax.numpy.arange(STEPS)
    rates = {name: jax.vmap(schedule)(steps).tolist() for name, schedule in schedules.items()}

    def plateau(**arguments):
        transform = optax.contrib.reduce_on_plateau(**arguments)
        weights = {"w": jax.numpy.zeros(1)}
        update = jax.jit(lambda state, value: transform.update(weights, state, value=value)[1])
        state, scales = transform.init(weights), []
        for value in values(STEPS):
            state = update(state, value)
            scales.append(RATE * float(state.scale))
        return scales

    rates["reduce_on_plateau"] = plateau(factor=0.5, patience=5, rtol=1e-4, cooldown=3)
    rates["reduce_on_plateau_atol"] = plateau(
        factor=0.5, patience=7, rtol=0.0, atol=0.05, min_scale=0.01
    )
    return rates


def of_timm():
    from timm import scheduler as t

    warm = {"warmup_t": 20, "warmup_lr_init": 0.01}

    def run(name, **arguments):
        made = getattr(t, name)(optimizer(), t_in_epochs=False, **arguments)
        return [made._get_lr(step)[0] for step in range(STEPS)]

    def plateau():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = t.PlateauLRScheduler(
                optimizer(), decay_rate=0.5, patience_t=5, cooldown_t=2, mode="min"
            )
        rates = []
        for epoch, value in enumerate(values(STEPS)):
            made.step(epoch + 1, value)
            rates.append(made.optimizer.param_groups[0]["lr"])
        return rates

    return {
        "cosine": run("CosineLRScheduler", t_initial=150, lr_min=0.001),
        "cosine_prefix": run(
            "CosineLRScheduler", t_initial=150, lr_min=0.001, warmup_prefix=True, **warm
        ),
        "cosine_no_prefix": run("CosineLRScheduler", t_initial=150, lr_min=0.001, **warm),
        "cosine_cycles": run(
            "CosineLRScheduler", t_initial=30, cycle_mul=2.0, cycle_decay=0.5, cycle_limit=9
        ),
        "step_prefix": run("StepLRScheduler", decay_t=40, decay_rate=0.5, **warm),
        "multistep": run("MultiStepLRScheduler", decay_t=[60, 120], decay_rate=0.5),
        "multistep_prefix": run("MultiStepLRScheduler", decay_t=[60, 120], decay_rate=0.5, **warm),
        "poly_prefix": run(
            "PolyLRScheduler", power=0.5, t_initial=150, lr_min=0.001, warmup_prefix=True, **warm
        ),
        "wsd": run("WSDLRScheduler", t_initial=160, decay_t=60, warmup_t=20),
        "plateau": plateau(),
    }


def of_transformers():
    from transformers import optimization as o

    def run(name, *arguments, **further):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler = getattr(o, f"get_{name}")(optimizer(), *arguments, **further)
            rates = []
            for _ in range(STEPS):
                rates.append(scheduler.optimizer.param_groups[0]["lr"])
                scheduler.optimizer.step()
                scheduler.step()
        return rates

    return {
        "constant": run("constant_schedule"),
        "constant_with_warmup": run("constant_schedule_with_warmup", 30),
        "linear": run("linear_schedule_with_warmup", 30, 180),
        "cosine": run("cosine_schedule_with_warmup", 30, 180)[:181],
        "cosine_with_restarts": run("cosine_with_hard_restarts_schedule_with_warmup", 30, 180, 3),
        "cosine_with_min_lr": run("cosine_with_min_lr_schedule_with_warmup", 30, 180, min_lr=0.01)[
            :181
        ],
        "cosine_warmup_with_min_lr": run(
            "cosine_with_min_lr_schedule_with_warmup_lr_rate", 30, 180, min_lr=0.01
        )[:180],
        "polynomial": run("polynomial_decay_schedule_with_warmup", 30, 180, 0.001, 2.0),
        "inverse_sqrt": run("inverse_sqrt_schedule", 30),
        "warmup_stable_decay": run("wsd_schedule", 20, 40, num_stable_steps=100),
        "warmup_stable_decay_shapes": run(
            "wsd_schedule",
            20,
            40,
            num_stable_steps=100,
            warmup_type="cosine",
            decay_type="1-sqrt",
            min_lr_ratio=0.1,
        ),
        "warmup_stable_decay_sqrt": run(
            "wsd_schedule", 20, 40, num_stable_steps=100, warmup_type="1-sqrt", decay_type="linear"
        ),
    }


def of_fastai():
    from fastai.callback.schedule import SchedCos, combine_scheds, combined_cos

    def run(schedule):
        return [schedule(step / STEPS) for step in range(STEPS)]

    lengths = [20 * 2**cycle / 140 for cycle in range(3)]  # of 7 epochs of 20 steps
    restarts = combine_scheds(lengths, [SchedCos(RATE, 0) for _ in lengths])
    return {
        "fit_one_cycle": run(combined_cos(0.25, RATE / 25.0, RATE, RATE / 1e5)),
        "fit_one_cycle_momentum": run(combined_cos(0.25, 0.95, 0.85, 0.95)),
        "fit_flat_cos": run(combined_cos(0.75, RATE, RATE, RATE / 1e5)),
        "fit_sgdr": [restarts(step / 140) for step in range(140)],
    }


def of_ignite():
    from ignite.handlers import param_scheduler as p

    def run(scheduler):
        rates = []
        for _ in range(STEPS):
            scheduler(None)
            rates.append(scheduler.optimizer_param_groups[0]["lr"])
        return rates

    def cyclic(name, **arguments):
        return run(getattr(p, name)(optimizer(), "lr", cycle_size=40, **arguments))

    first = p.LinearCyclicalScheduler(shared := optimizer(), "lr", 0.01, RATE, cycle_size=40)
    second = p.CosineAnnealingScheduler(shared, "lr", RATE, 0.01, cycle_size=60)
    return {
        "concat": run(p.ConcatScheduler([first, second], durations=[50])),
        "linear_cyclical": cyclic("LinearCyclicalScheduler", start_value=0.01, end_value=RATE),
        "linear_cyclical_from_the_top": cyclic(
            "LinearCyclicalScheduler", start_value=RATE, end_value=0.01
        ),
        "linear_cyclical_monotonic": cyclic(
            "LinearCyclicalScheduler", start_value=RATE, end_value=0.01, monotonic=True
        ),
        "cosine_annealing": cyclic("CosineAnnealingScheduler", start_value=RATE, end_value=0.01),
        "cosine_annealing_longer": cyclic(
            "CosineAnnealingScheduler", start_value=RATE, end_value=0.0, cycle_mult=2.0
        ),
        "piecewise_linear": run(
            p.PiecewiseLinear(
                optimizer(), "lr", milestones_values=[(10, 0.02), (50, RATE), (120, 0.001)]
            )
        ),
    }


def of_composer():
    from composer.core import Time, Timestamp
    from composer.optim import scheduler as c

    def run(name, **arguments):
        made = getattr(c, name)(**arguments)
        state = SimpleNamespace(max_duration=Time.from_timestring("200ba"), dataloader_len=None)
        rates = []
        for step in range(STEPS):
            state.timestamp = Timestamp(batch=step)
            rates.append(RATE * made(state))
        return rates

    return {
        "step": run("StepScheduler", step_size="40ba", gamma=0.5),
        "multistep": run("MultiStepScheduler", milestones=["60ba", "120ba"], gamma=0.5),
        "constant": run("ConstantScheduler", alpha=0.5, t_max="80ba"),
        "linear": run("LinearScheduler", alpha_i=1.0, alpha_f=0.1, t_max="150ba"),
        "exponential": run("ExponentialScheduler", gamma=0.9, decay_period="10ba"),
        "cosine": run("CosineAnnealingScheduler", t_max="150ba", alpha_f=0.1),
        "cosine_restarts": run(
            "CosineAnnealingWarmRestartsScheduler", t_0="20ba", t_mult=2.0, alpha_f=0.1
        ),
        "polynomial": run("PolynomialScheduler", power=2.0, t_max="150ba", alpha_f=0.1),
        "multistep_with_warmup": run(
            "MultiStepWithWarmupScheduler",
            t_warmup="20ba",
            milestones=["60ba", "120ba"],
            gamma=0.5,
        ),
        "constant_with_warmup": run("ConstantWithWarmupScheduler", t_warmup="20ba"),
        "linear_with_warmup": run("LinearWithWarmupScheduler", t_warmup="20ba", alpha_f=0.1),
        "cosine_with_warmup": run(
            "CosineAnnealingWithWarmupScheduler", t_warmup="20ba", alpha_f=0.1
        ),
        "polynomial_with_warmup": run(
            "PolynomialWithWarmupScheduler", t_warmup="20ba", power=2.0, alpha_f=0.1
        ),
    }


PEERS = {
    "composer": ("mosaicml", of_composer),
    "fastai": ("fastai", of_fastai),
    "ignite": ("pytorch-ignite", of_ignite),
    "optax": ("optax", of_optax),
    "timm": ("timm", of_timm),
    "transformers": ("transformers", of_transformers),
}

if __name__ == "__main__":
    lines = []
    for peer, (package, rates) in PEERS.items():
        for name, series in rates().items():
            numbers = ", ".join(f"{float(rate):.7g}" for rate in series)
            lines.append(f'    "{peer} {version(package)}: {name}": [{numbers}]')
    print("{\n" + ",\n".join(lines) + "\n}")
    json.loads("{" + ",".join(lines) + "}")
