"""What a run looks like to people: one self-contained page, pictures, and a table of the forecast."""

from __future__ import annotations

from forex_core.report.charts import chart_images
from forex_core.report.page import forecast_table, render_report

__all__ = ["chart_images", "forecast_table", "render_report"]
