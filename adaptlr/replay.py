"""What another controller, or other settings, would have decided in a recorded run."""

from adaptlr.runs.replay import observations, parting, recorded_run, replay

__all__ = ["observations", "parting", "recorded_run", "replay"]
