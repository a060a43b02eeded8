"""The autonomous controller, a file for each phase."""

from adaptlr.controllers.feedback.controller import Feedback, FeedbackState

__all__ = ["Feedback", "FeedbackState"]
