"""Scheduled, tracked, honest FX forecasts: the library behind the flows and the command line."""

__version__ = "0.1.0"
