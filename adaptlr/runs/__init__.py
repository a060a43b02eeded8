"""Runs after the fact: read back, replayed, plotted, shown in a terminal."""
