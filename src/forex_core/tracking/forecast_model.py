"""The model that MLflow loads: a script that is copied beside each specification and run when the model is loaded.

It computes; it holds no forecast. What it imports of ours is the code that the model carries, unless the process has
imported another before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import set_model

from forex_core.specification import Specification


class ForecastModel(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined, misc]
    """`predict` takes the rows that were known and answers with the quantiles of each target date behind the last."""

    def load_context(self, context: Any) -> None:
        text = Path(context.artifacts["specification"]).read_text(encoding="utf-8")
        self.specification = Specification.from_json(text)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Quantiles in price units: a row for each target date, a column for each level, named like 0.025."""
        found = self.specification.forecast(model_input)
        return pd.DataFrame(
            {
                "target_date": pd.to_datetime(list(found.target_dates)),
                "step": list(found.steps),
                **{str(level): found.quantiles[:, q] for q, level in enumerate(found.levels)},
            }
        )


set_model(ForecastModel())
