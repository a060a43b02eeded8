"""From what is customary upwards, while a higher rate is better from the same weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from adaptlr.controllers.base import Decision, Effect, RateIs
from adaptlr.controllers.feedback.hold import Hold, cool
from adaptlr.controllers.feedback.progress import Gauge, Turn
from adaptlr.monitor import finite, spread

if TYPE_CHECKING:
    from adaptlr.controllers.feedback.controller import Feedback
    from adaptlr.controllers.feedback.progress import Reply


@dataclass(frozen=True)
class Known:
    """What the search has seen so far."""

    start: float  # the first loss
    moved: bool = False  # the loss has left it
    losses: tuple[float, ...] = ()  # at the ends of segments, as long as it had not
    ceiling: float | None = None  # a rate at which the loss rose at once
    wasted: int = 0  # steps that were undone
    looks: int = 0  # later searches; 0 is the first one
    lowered: int = 0  # how often the loss has risen before anything was known to be good
    earlier: float | None = None  # loss of the earlier snapshot, if the last raise was kept

    def too_high(self, rate: float) -> bool:
        """Whether a rate is known to be."""
        return self.ceiling is not None and rate > 0.99 * self.ceiling

    def spoilt(self, turn: Turn, before: float, loss: float) -> bool:
        """Whether much of what had been gained is lost again, if that was clearly a gain.

        Means over a few batches differ by chance: there the gain must be larger.
        """
        settings, gained = turn.settings, self.start - before
        least = settings.clear_move if turn.limits.measurable else settings.spoilt
        return gained >= least * abs(self.start) and loss - before > settings.spoilt * gained

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
class Segment:
    """A rate is trained with for a while, and the loss that it leads to is judged."""

    rate: float
    gauge: Gauge
    known: Known
    rate_is: ClassVar[RateIs] = "trial"

    def update(self, turn: Turn) -> Reply:
        """Waits for the end of the segment, unless the loss has ended it."""
        seen, gauge = turn.seen, self.gauge.take(turn.seen)
        step = gauge.next_step(seen)
        if seen.loss is not None and not finite(seen.loss):
            gauge = replace(gauge, total=math.inf, steps=1)
        elif step is not None:
            decision = Decision(self.rate, next_step=step, rate_is=self.rate_is)
            decision = replace(decision, measure=step >= gauge.until)
            return turn.go(replace(self, gauge=gauge), decision)
        return self.judge(turn, gauge.value(seen))

    def judge(self, turn: Turn, loss: float) -> Reply:
        """Says what follows from the loss of the segment."""
        raise NotImplementedError

    def begun(self, turn: Turn, rule: str, reason: str, *effects: Effect) -> Reply:
        """Begins it."""
        half, rate_is = self.gauge.half, self.rate_is
        decision = Decision(self.rate, rule, reason, half, rate_is=rate_is)
        return turn.go(self, replace(decision, measure=half >= self.gauge.until), *effects)


@dataclass(frozen=True)
class First(Segment):
    """A rate is trained with and compared with nothing."""

    mark: float  # the loss where the segment began
    kind: Literal["first"] = "first"
    rate_is: ClassVar[RateIs] = "kept"

    def judge(self, turn: Turn, loss: float) -> Reply:
        """Raises the rate, unless the loss rose."""
        settings, gauge = turn.settings, _gauge(turn)
        known, found = self.known.watch(settings, loss), _found(loss, self.mark)
        if not self.known.moved and _rises(turn, known, loss, self.mark):
            return self._lower(turn, found)
        if not known.moved:
            return _wait(turn, self.rate, loss, self.mark, known, found)
        if loss < self.mark:
            return _raise(turn, self.rate, loss, self.mark, known, found)
        if loss >= known.start + settings.clear_move * abs(known.start):
            return self._lower(turn, found)
        if turn.limits.cooling(turn):
            return _hold(turn, self.rate, known, "keep", found, loss=loss, mark=self.mark)
        reason = f"{found}: {self.rate:.3g} for {turn.limits.segment} steps more"
        phase = replace(self, gauge=gauge, mark=loss, known=known)
        return phase.begun(turn, "wait", reason, "snapshot")

    def _lower(self, turn: Turn, found: str) -> Reply:
        """Goes back: nothing is known to be good yet, or the weights were good before."""
        settings, limits, known = turn.settings, turn.limits, self.known
        rate = self.rate / settings.factor**2
        found = f"{found} at {self.rate:.3g}, the loss rises"
        # The chance of one batch more or less is no reason never to come back.
        ceiling = self.rate if limits.measurable or known.moved else known.ceiling
        steps = self.gauge.until - self.gauge.begin
        known = replace(
            known, ceiling=ceiling, wasted=known.wasted + steps, lowered=known.lowered + 1
        )
        # The average of good weights may rise at any rate, while it catches up with them.
        if known.lowered > settings.cuts or limits.cooling(turn):
            return _hold(turn, rate, known, "keep", found, "restore", mark=self.mark)
        phase = replace(self, rate=rate, gauge=_gauge(turn), known=known)
        reason = f"{found}: from before it again at {rate:.3g}"
        return phase.begun(turn, "lower", reason, "restore")


@dataclass(frozen=True)
class Look(Segment):
    """The loss is measured before a rate that is held is raised."""

    before: float | None  # the loss of the last snapshot
    kind: Literal["look"] = "look"
    rate_is: ClassVar[RateIs] = "kept"

    def judge(self, turn: Turn, loss: float) -> Reply:
        """Raises the rate, or lowers one that has spoilt the weights."""
        known = self.known
        if not finite(loss):
            found = "no finite loss was seen"
            return _hold(turn, self.rate, known, "keep", found, mark=self.before)
        if self.before is not None and known.spoilt(turn, self.before, loss):
            known = replace(known, ceiling=self.rate)
            progress = turn.state.progress.gone_back()
            turn = replace(turn, state=replace(turn.state, progress=progress))
            found = (
                f"{_found(loss, self.before)}, that of the last snapshot: {self.rate:.3g} spoils "
                f"the weights, and it comes back"
            )
            lower = self.rate / turn.settings.factor**2
            return _hold(turn, lower, known, "lower", found, "restore", mark=self.before)
        reason = f"{self.rate:.3g} is held, at a loss of {loss:.5g}"
        return _raise(turn, self.rate, loss, self.before, known, reason)


@dataclass(frozen=True)
class Raised(Segment):
    """A higher rate is tried; the weights of before it wait in a snapshot."""

    lower: float  # rate before
    mark: float
    kind: Literal["raised"] = "raised"

    def judge(self, turn: Turn, loss: float) -> Reply:
        """Goes on where rates are usual and the loss falls; compares with the rate before else."""
        known, found = self.known, _found(loss, self.mark)
        if not known.looks and not known.moved:
            known = known.watch(turn.settings, loss)
            if not known.moved and not _rises(turn, known, loss, self.mark):
                return _wait(turn, self.rate, loss, self.mark, known, found)
        usual = self.rate <= 1.01 * turn.limits.usual * turn.limits.customary
        if usual and loss < self.mark and not known.looks:
            return _raise(turn, self.rate, loss, self.mark, known, found)
        rival = loss if finite(loss) else None
        phase = Back(self.lower, _gauge(turn), known, self.rate, rival, self.mark)
        reason = (
            f"{found} at {self.rate:.3g}; from the same weights {self.lower:.3g} for "
            f"{turn.limits.segment} steps"
        )
        return phase.begun(turn, "back", reason, "set aside", "restore")


@dataclass(frozen=True)
class Rival(Segment):
    """A segment from weights from which another rate was trained with before."""

    higher: float  # that rate
    rival: float | None  # loss that it has led to, None if that was not finite
    mark: float

    def judge(self, turn: Turn, loss: float) -> Reply:
        """Compares the two."""
        steps = self.gauge.until - self.gauge.begin
        known = replace(self.known, wasted=self.known.wasted + steps)
        rival = math.inf if self.rival is None else self.rival
        found = f"{_found(loss, self.mark)}, where {self.higher:.3g} led to {rival:.5g}"
        return self.compare(turn, loss, rival, known, found)

    def compare(self, turn: Turn, loss: float, rival: float, known: Known, found: str) -> Reply:
        """Says what follows from the losses of the two."""
        raise NotImplementedError


@dataclass(frozen=True)
class Back(Rival):
    """The rate before a raise is trained with from the same weights, to compare the two."""

    kind: Literal["back"] = "back"

    def compare(self, turn: Turn, loss: float, rival: float, known: Known, found: str) -> Reply:
        """Goes on from the better of the two."""
        gain, its = self.mark - loss, self.mark - rival
        rate = self.rate / turn.settings.factor
        if its > max(self._required(turn, gain), self._chance(turn.settings)):
            known = replace(known, earlier=self.mark)
            return _raise(turn, self.higher, rival, self.mark, known, found, "take back")
        if known.looks and known.spoilt(turn, self.mark, loss):
            found += f": {self.rate:.3g} spoils the weights, and those of before come back"
            return _hold(turn, rate, known, "lower", found, "restore", mark=self.mark)
        if self._slow(turn, gain):
            found += f", less than {turn.settings.late_gain:.0%} of the mean per segment so far"
            return cool(turn, self.rate, (turn.limits.last_step or 0) - turn.seen.step, found)
        if gain > 0.0 and known.spoilt(turn, self.mark, rival):
            found += f", so that {self.rate:.3g} is near to what spoils the weights"
            return _hold(turn, rate, known, "lower", found, loss=loss, mark=self.mark)
        if gain > 0.0 or (known.looks and its > 0.0):
            return _hold(turn, self.rate, known, "keep", found, loss=loss, mark=self.mark)
        if known.looks:  # late, lower rates look better than they are: no more than one step
            return _hold(turn, rate, known, "lower", found, loss=loss, mark=self.mark)
        if known.earlier is not None:  # the raise was good for a moment only
            found = f"{found}; neither is lower, so that the raise before is undone as well"
            return _hold(turn, rate, known, "undo", found, "restore earlier", mark=known.earlier)
        other = loss if finite(loss) else None
        phase = Lower(rate, _gauge(turn), known, self.rate, other, self.mark)
        reason = f"{found}; neither is lower, so that {rate:.3g} is tried from there"
        return phase.begun(turn, "lower", reason, "restore")

    def _slow(self, turn: Turn, gain: float) -> bool:
        """Whether after the last look so little is left to gain that holding on is a waste."""
        known, settings, limits = self.known, turn.settings, turn.limits
        if limits.last_step is None or not 0 < len(settings.look_at) <= known.looks:
            return False
        if self._hardly_moved(settings):  # what there is to gain is still to come
            return False
        steps, before = limits.segment, self.gauge.begin - limits.first_step
        mean = (known.start - self.mark) * steps / max(1, before)
        return finite(gain) and mean > 0.0 and gain < settings.late_gain * mean

    def _required(self, turn: Turn, gain: float) -> float:
        """What the raise must have gained: the more, the further it is from what is customary.

        Where the rate before it has lost, that loss shows how much may be chance.
        """
        if gain < 0.0:
            return -gain
        settings, limits = turn.settings, turn.limits
        far = math.log2(max(1.0, self.higher / (2.0 * limits.usual * limits.customary)))
        late = settings.late if self.known.looks else 1.0
        return late * (settings.least_raise + settings.doubt * far) * gain

    def _chance(self, settings: Feedback) -> float:
        """A gain that may be chance as long as the loss has hardly moved."""
        if self.known.looks or not self._hardly_moved(settings):
            return 0.0
        return 0.5 * settings.clear_move * abs(self.known.start)

    def _hardly_moved(self, settings: Feedback) -> bool:
        """Whether the loss is still close to where it began."""
        start = self.known.start
        return abs(start - self.mark) < settings.clear_move * abs(start)


@dataclass(frozen=True)
class Lower(Rival):
    """A lower rate is tried from weights from which neither of two others has brought anything."""

    kind: Literal["lower"] = "lower"

    def compare(self, turn: Turn, loss: float, rival: float, known: Known, found: str) -> Reply:
        """Goes on with it if the loss fell, or rose less."""
        if loss < self.mark:
            return _hold(turn, self.rate, known, "keep", found, loss=loss, mark=self.mark)
        rate = self.rate if loss < rival else self.higher
        return _hold(turn, rate, known, "keep", found, "restore", mark=self.mark)


def look_up(turn: Turn, hold: Hold) -> Reply:
    """Begins another search from a rate that is held."""
    step, limits = turn.seen.step, turn.limits
    known = Known(
        hold.start,
        moved=True,
        ceiling=hold.ceiling,
        wasted=hold.wasted,
        looks=hold.looks + 1,
    )
    # What can be measured is measured at once, a training loss over a segment.
    steps = 1 if limits.measurable else limits.segment
    phase = Look(hold.rate, Gauge(step, step + steps, step), known, hold.snapshot_loss)
    return turn.go(phase, Decision(hold.rate, next_step=step + 1, measure=steps == 1))


def _found(loss: float, mark: float) -> str:
    return f"loss {loss:.5g} after {mark:.5g}"


def _rises(turn: Turn, known: Known, loss: float, mark: float) -> bool:
    """Whether a loss that has not moved yet has risen; of a mean over batches less can be told."""
    settings = turn.settings
    least = settings.least_move if turn.limits.measurable else settings.clear_move
    return finite(loss) and loss - min(mark, known.start) > least * abs(known.start)


def _gauge(turn: Turn) -> Gauge:
    step = turn.seen.step
    return Gauge(step, step + turn.limits.segment, step)


def _wait(turn: Turn, rate: float, loss: float, mark: float, known: Known, found: str) -> Reply:
    """The loss has not moved: the rate is too low, or it takes time."""
    settings, limits, higher = turn.settings, turn.limits, rate * turn.settings.factor
    found = f"{found}, which is still close to {known.start:.5g}, where it began"
    if limits.cooling(turn):
        return _hold(turn, rate, known, "keep", found, loss=loss, mark=mark)
    beyond = higher > 1.01 * limits.usual * limits.customary
    if beyond and limits.share(turn.seen.step) >= settings.wait_share:
        return _raise(turn, rate, loss, mark, known, found)
    if beyond or known.too_high(higher):
        higher = rate
    reason = f"{found}: {higher:.3g} for {limits.segment} steps"
    phase = First(higher, _gauge(turn), known, mark=loss)
    return phase.begun(turn, "raise" if higher > rate else "wait", reason, "snapshot")


def _raise(
    turn: Turn,
    rate: float,
    loss: float,
    mark: float | None,
    known: Known,
    found: str,
    *effects: Effect,
) -> Reply:
    """Tries the next higher rate, as long as there is room."""
    higher = rate * turn.settings.factor
    why = _no_raise(turn, higher, known)
    if why is not None:
        return _hold(turn, rate, known, "keep", f"{found}; {why}", *effects, loss=loss, mark=mark)
    reason = f"{found}; {higher:.3g} is tried for {turn.limits.segment} steps"
    phase = Raised(higher, _gauge(turn), known, rate, mark=loss)
    return phase.begun(turn, "raise", reason, *effects, "snapshot")


def _no_raise(turn: Turn, higher: float, known: Known) -> str | None:
    """Why a higher rate is not tried; None if it is."""
    settings, limits, step = turn.settings, turn.limits, turn.seen.step
    if limits.share(step) > settings.search_share:
        return f"after {settings.search_share:.0%} of the run nothing is raised"
    if known.wasted > settings.waste_share * limits.total(step):
        return f"more than {settings.waste_share:.0%} of the steps are undone already"
    if higher > settings.highest * limits.customary:
        return f"{higher:.3g} is beyond {settings.highest:g} times the customary rate"
    return f"{higher:.3g} was too high before" if known.too_high(higher) else None


def _hold(
    turn: Turn,
    rate: float,
    known: Known,
    rule: str,
    found: str,
    *effects: Effect,
    loss: float = math.inf,
    mark: float | None = None,
) -> Reply:
    """Ends the search. A look can come back to the last snapshot, or to better weights of now.

    `mark` is the loss of the one, `loss` that of the others, if nothing is gone back to.
    """
    if loss < (math.inf if mark is None else mark):
        effects, mark = (*effects, "snapshot"), loss
    # What the first search found too high may be so no longer; what spoils late does.
    ceiling = known.ceiling if known.looks else None
    phase = Hold(rate, turn.seen.step, known.start, mark, ceiling, known.looks, known.wasted)
    decision = Decision(rate, rule, f"{found}: {rate:.3g} is held")
    progress = turn.state.progress
    # Epochs that ended in trials say nothing of the rate that is held now; a look alone is none.
    if rule != "keep" or not isinstance(turn.state.phase, Look):
        progress = replace(progress, wait=0)
    return turn.go(phase, decision, *effects, progress=progress)
