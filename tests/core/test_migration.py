"""The equalities that docs/migration.md states and no other test compares."""

import pytest

from adaptlr import schedules as s

STEPS = range(0, 40)


def equal(left, right, tolerance=1e-9):
    assert [left(step) for step in STEPS] == pytest.approx(
        [right(step) for step in STEPS], rel=tolerance
    )


def of_torch(make):
    """Step to rate of a PyTorch scheduler on an optimizer of rate 0.1."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler, rates = make(torch.optim.lr_scheduler, optimizer), []
    for _ in STEPS:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates.__getitem__


def test_linear_lr_is_a_warmup_to_a_constant():
    theirs = of_torch(lambda lr, opt: lr.LinearLR(opt, 0.25, total_iters=8))
    equal(s.Warmup(s.Constant(0.1), 8, start=0.1 * 0.25), theirs)


def test_exponential_lr_has_decay_steps_of_one():
    equal(s.Exponential(0.1, 1, 0.9), of_torch(lambda lr, opt: lr.ExponentialLR(opt, 0.9)))


def test_polynomial_lr_ends_at_zero():
    theirs = of_torch(lambda lr, opt: lr.PolynomialLR(opt, 30, 2.0))
    equal(s.Polynomial(0.1, 30, 0.0, 2.0), theirs)


def test_warm_restarts_have_alpha_for_eta_min():
    theirs = of_torch(
        lambda lr, opt: lr.CosineAnnealingWarmRestarts(opt, 5, T_mult=2, eta_min=0.01)
    )
    equal(s.CosineRestarts(0.1, 5, t_mul=2.0, alpha=0.1), theirs)


def test_sequential_lr_is_joined():
    def make(lr, opt):
        parts = [lr.ConstantLR(opt, 1.0, 1), lr.ExponentialLR(opt, 0.9)]
        return lr.SequentialLR(opt, parts, milestones=[10])

    ours = s.Joined((s.Constant(0.1), s.Exponential(0.1, 1, 0.9)), boundaries=(10,))
    equal(ours, of_torch(make))


def test_warmup_of_keras_is_a_wrapper():
    keras = pytest.importorskip("keras")
    theirs = keras.optimizers.schedules.CosineDecay(0.02, 20, warmup_target=0.1, warmup_steps=6)
    equal(s.Warmup(s.Cosine(0.1, 20), 6, 0.02), lambda step: float(theirs(step)), 1e-4)


def test_linear_with_warmup_of_transformers():
    """`rate * k / 5` up to step 5, then `rate * (25 - k) / 20`."""
    equal(
        s.Warmup(s.Linear(0.1, 20), 5),
        lambda k: 0.1 * k / 5 if k < 5 else 0.1 * max(0.0, (25 - k) / 20),
    )


def test_inverse_sqrt_of_transformers():
    """`rate * k / 4` up to step 4, then `rate / sqrt(k / 4)`."""
    equal(
        s.InverseSquareRoot(0.1, 4),
        lambda k: 0.1 * k / 4 if k < 4 else 0.1 / (k / 4) ** 0.5,
    )
