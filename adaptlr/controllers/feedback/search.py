"""From what is customary upwards, while a higher rate is better from the same weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from adaptlr.controllers.base import Decision, Effect, Observation, RateIs
from adaptlr.controllers.feedback.hold import Hold
from adaptlr.controllers.feedback.progress import Gauge
from adaptlr.monitor import finite, spread

if TYPE_CHECKING:
    from adaptlr.controllers.feedback.controller import Feedback, FeedbackState


@dataclass(frozen=True)
class Known:
    """What the search has seen so far."""

    start: float  # the first loss
    moved: bool = False  # the loss has left it
    losses: tuple[float, ...] = ()  # at the ends of segments, as long as it had not
    ceiling: float | None = None  # a rate at which the loss rose at once
    wasted: int = 0  # steps that were undone
    looks: int = 0  # later searches; 0 is the first one
    taken: bool = False  # the last raise was kept; the weights before it are the earlier snapshot

    def too_high(self, rate: float) -> bool:
        """Whether a rate is known to be."""
        return self.ceiling is not None and rate > 0.99 * self.ceiling

    def watch(self, settings: Feedback, loss: float) -> Known:
        """Takes in the loss of one more segment."""
        if not finite(loss):
            return replace(self, moved=True)
        losses = (*self.losses, loss)[-9:]
        fall = abs(self.start - loss) / max(abs(self.start), 1e-12)
        noise = spread(losses) / max(abs(self.start), 1e-12) if len(losses) > 2 else math.inf
        falling = all(b < a for a, b in zip(losses[-4:], losses[-3:], strict=False))
        moved = (
            fall >= settings.clear_move
            or (fall >= settings.least_move and fall >= 4.0 * noise)
            or (falling and len(losses) > 3)
        )
        return replace(self, losses=losses, moved=moved)


@dataclass(frozen=True)
class First:
    """A rate is trained with and compared with nothing."""

    rate: float
    gauge: Gauge
    mark: float  # the loss where the segment began
    known: Known
    kind: Literal["first"] = "first"

    def update(
        self, settings: Feedback, state: FeedbackState, seen: Observation
    ) -> tuple[FeedbackState, Decision]:
        """Raises the rate, unless the loss rose."""
        gauge, pending = _pending(self, state, seen)
        if pending is not None:
            return pending
        loss = gauge.value(seen)
        known, found = self.known.watch(settings, loss), _found(loss, self.mark)
        if not known.moved:
            return _wait(settings, state, seen, self.rate, loss, known, found)
        if loss < self.mark:
            return _raise(settings, state, seen, self.rate, loss, known, found)
        if loss < known.start + settings.clear_move * abs(known.start):
            reason = f"{found}: {self.rate:.3g} for {state.limits.segment} steps more"
            phase = replace(self, gauge=_gauge(state, seen.step), mark=loss, known=known)
            return _begun(state, phase, "wait", reason, "snapshot")
        # Nothing is known to be good yet, so this goes back to the start.
        known = replace(self.known, ceiling=self.rate)
        rate = self.rate / settings.factor**2
        reason = f"{found} at {self.rate:.3g}, the loss rises: from the start again at {rate:.3g}"
        phase = replace(self, rate=rate, gauge=_gauge(state, seen.step), known=known)
        return _begun(state, phase, "lower", reason, "restore")


@dataclass(frozen=True)
class Look:
    """The loss is measured before a rate that was held for long is raised."""

    rate: float
    gauge: Gauge
    known: Known
    kind: Literal["look"] = "look"

    def update(
        self, settings: Feedback, state: FeedbackState, seen: Observation
    ) -> tuple[FeedbackState, Decision]:
        """Raises the rate."""
        gauge, pending = _pending(self, state, seen)
        if pending is not None:
            return pending
        loss = gauge.value(seen)
        if not finite(loss):
            return _hold(state, seen, self.rate, self.known, "keep", "no loss was seen")
        reason = f"{self.rate:.3g} was held for long, at a loss of {loss:.5g}"
        return _raise(settings, state, seen, self.rate, loss, self.known, reason)


@dataclass(frozen=True)
class Raised:
    """A higher rate is tried; the weights of before it wait in a snapshot."""

    rate: float
    lower: float  # rate before
    gauge: Gauge
    mark: float
    known: Known
    kind: Literal["raised"] = "raised"

    def update(
        self, settings: Feedback, state: FeedbackState, seen: Observation
    ) -> tuple[FeedbackState, Decision]:
        """Goes on where rates are usual and the loss falls; compares with the rate before else."""
        gauge, pending = _pending(self, state, seen)
        if pending is not None:
            return pending
        loss, known = gauge.value(seen), self.known
        found = _found(loss, self.mark)
        if not known.looks and not known.moved:
            known = known.watch(settings, loss)
            if not known.moved:
                return _wait(settings, state, seen, self.rate, loss, known, found)
        usual = self.rate <= 1.01 * settings.usual * state.limits.customary
        if usual and loss < self.mark and not known.looks:
            return _raise(settings, state, seen, self.rate, loss, known, found)
        rival = loss if finite(loss) else None
        phase = Back(self.lower, self.rate, rival, _gauge(state, seen.step), self.mark, known)
        reason = (
            f"{found} at {self.rate:.3g}; from the same weights {self.lower:.3g} for "
            f"{state.limits.segment} steps"
        )
        return _begun(state, phase, "back", reason, "set aside", "restore")


@dataclass(frozen=True)
class Back:
    """The rate before a raise is trained with from the same weights, to compare the two."""

    rate: float
    higher: float
    rival: float | None  # loss that the raise has led to, None if that was not finite
    gauge: Gauge
    mark: float
    known: Known
    kind: Literal["back"] = "back"

    def update(
        self, settings: Feedback, state: FeedbackState, seen: Observation
    ) -> tuple[FeedbackState, Decision]:
        """Goes on from the better of the two."""
        gauge, pending = _pending(self, state, seen)
        if pending is not None:
            return pending
        loss, known = gauge.value(seen), _wasted(self.known, gauge)
        rival = math.inf if self.rival is None else self.rival
        found = f"{_found(loss, self.mark)}, where {self.higher:.3g} led to {rival:.5g}"
        gain, its = self.mark - loss, self.mark - rival
        if its > max(self._required(settings, state, gain), self._chance(settings)):
            known = replace(known, taken=True)
            return _raise(settings, state, seen, self.higher, rival, known, found, "take back")
        if gain > 0.0:
            return _hold(state, seen, self.rate, known, "keep", found)
        if known.looks:  # late, lower rates look better than they are: no more than one step
            rate = self.rate if its > 0.0 else self.rate / settings.factor
            return _hold(state, seen, rate, known, "keep" if its > 0.0 else "lower", found)
        rate = self.rate / settings.factor
        if known.taken:  # which was for a moment only
            found = f"{found}; neither is lower, so that the raise before is undone as well"
            return _hold(state, seen, rate, known, "undo", found, "restore earlier")
        other = loss if finite(loss) else None
        phase = Lower(rate, self.rate, other, _gauge(state, seen.step), self.mark, known)
        reason = f"{found}; neither is lower, so that {rate:.3g} is tried from there"
        return _begun(state, phase, "lower", reason, "restore")

    def _required(self, settings: Feedback, state: FeedbackState, gain: float) -> float:
        """What the raise must have gained: the more, the further it is from what is customary.

        Where the rate before it has lost, that loss shows how much may be chance.
        """
        if gain < 0.0:
            return -gain
        far = math.log2(max(1.0, self.higher / (2.0 * settings.usual * state.limits.customary)))
        late = settings.late if self.known.looks else 1.0
        return late * (settings.least_raise + settings.doubt * far) * gain

    def _chance(self, settings: Feedback) -> float:
        """A gain that may be chance as long as the loss has hardly moved."""
        known = self.known
        hardly = abs(known.start - self.mark) < settings.clear_move * abs(known.start)
        return 0.5 * settings.clear_move * abs(known.start) if hardly and not known.looks else 0.0


@dataclass(frozen=True)
class Lower:
    """A lower rate is tried from weights from which neither of two others has brought anything."""

    rate: float
    higher: float
    rival: float | None  # loss that this has led to, None if that was not finite
    gauge: Gauge
    mark: float
    known: Known
    kind: Literal["lower"] = "lower"

    def update(
        self, settings: Feedback, state: FeedbackState, seen: Observation
    ) -> tuple[FeedbackState, Decision]:
        """Goes on with it if the loss fell, or rose less."""
        gauge, pending = _pending(self, state, seen)
        if pending is not None:
            return pending
        loss, known = gauge.value(seen), _wasted(self.known, gauge)
        rival = math.inf if self.rival is None else self.rival
        found = f"{_found(loss, self.mark)}, where {self.higher:.3g} led to {rival:.5g}"
        if loss < self.mark:
            return _hold(state, seen, self.rate, known, "keep", found)
        rate = self.rate if loss < rival else self.higher
        return _hold(state, seen, rate, known, "keep", found, "restore")


def look_up(state: FeedbackState, hold: Hold, step: int) -> tuple[FeedbackState, Decision]:
    """Begins another search from a rate that is held."""
    known = Known(0.0, moved=True, wasted=hold.wasted, looks=hold.looks + 1)
    # What can be measured is measured at once, a training loss over a segment.
    steps = 1 if state.limits.measurable else state.limits.segment
    phase = Look(hold.rate, Gauge(step, step + steps, step), known)
    decision = Decision(hold.rate, next_step=step + 1, measure=steps == 1)
    return replace(state, phase=phase), decision


def _found(loss: float, mark: float) -> str:
    return f"loss {loss:.5g} after {mark:.5g}"


def _gauge(state: FeedbackState, step: int) -> Gauge:
    return Gauge(step, step + state.limits.segment, step)


def _wasted(known: Known, gauge: Gauge) -> Known:
    return replace(known, wasted=known.wasted + gauge.until - gauge.begin)


def _rate_is(phase: Any) -> RateIs:
    return "kept" if isinstance(phase, First | Look) else "trial"


def _pending(
    phase: Any, state: FeedbackState, seen: Observation
) -> tuple[Gauge, tuple[FeedbackState, Decision] | None]:
    """What the segment's gauge shows, and what to do if it has not come to its end."""
    gauge = phase.gauge.take(seen)
    step, broken = gauge.next_step(seen), seen.loss is not None and not finite(seen.loss)
    if broken:
        return replace(gauge, total=math.inf, steps=1), None
    if step is None:
        return gauge, None
    state = replace(state, phase=replace(phase, gauge=gauge))
    return gauge, (
        state,
        Decision(phase.rate, next_step=step, measure=step >= gauge.until, rate_is=_rate_is(phase)),
    )


def _begun(
    state: FeedbackState, phase: Any, rule: str, reason: str, *effects: Effect
) -> tuple[FeedbackState, Decision]:
    """Begins the segment of a phase."""
    gauge = phase.gauge
    decision = Decision(
        phase.rate,
        rule,
        reason,
        gauge.half,
        measure=gauge.half >= gauge.until,
        rate_is=_rate_is(phase),
    )
    return replace(state, phase=phase), decision.also(*effects)


def _wait(
    settings: Feedback,
    state: FeedbackState,
    seen: Observation,
    rate: float,
    loss: float,
    known: Known,
    found: str,
) -> tuple[FeedbackState, Decision]:
    """The loss has not moved: the rate is too low, or it takes time."""
    limits, higher = state.limits, rate * settings.factor
    found = f"{found}, it has not left its start {known.start:.5g}"
    beyond = higher > 1.01 * settings.usual * limits.customary
    if beyond and limits.share(seen.step) >= settings.wait_share:
        return _raise(settings, state, seen, rate, loss, known, found)
    if beyond or known.too_high(higher):
        higher = rate
    phase = First(higher, _gauge(state, seen.step), loss, known)
    reason = f"{found}: {higher:.3g} for {limits.segment} steps"
    return _begun(state, phase, "raise" if higher > rate else "wait", reason, "snapshot")


def _raise(
    settings: Feedback,
    state: FeedbackState,
    seen: Observation,
    rate: float,
    loss: float,
    known: Known,
    found: str,
    *effects: Effect,
) -> tuple[FeedbackState, Decision]:
    """Tries the next higher rate, as long as there is room."""
    limits, higher = state.limits, rate * settings.factor
    late = limits.share(seen.step) > settings.search_share
    dear = known.wasted > settings.waste_share * limits.total(seen.step)
    top = higher > settings.highest * limits.customary
    if late or dear or top or known.too_high(higher):
        return _hold(state, seen, rate, known, "keep", found, *effects)
    phase = Raised(higher, rate, _gauge(state, seen.step), loss, known)
    reason = f"{found}; {higher:.3g} is tried for {limits.segment} steps"
    return _begun(state, phase, "raise", reason, *effects, "snapshot")


def _hold(
    state: FeedbackState,
    seen: Observation,
    rate: float,
    known: Known,
    rule: str,
    found: str,
    *effects: Effect,
) -> tuple[FeedbackState, Decision]:
    """Ends the search."""
    phase = Hold(rate, since=seen.step, looks=known.looks, wasted=known.wasted)
    # Epochs that ended in trials say nothing of the rate that is held now.
    state = replace(state, phase=phase, progress=replace(state.progress, wait=0))
    decision = Decision(rate, rule, f"{found}: {rate:.3g} is held")
    return state, decision.also(*effects)
