"""`forex`: the command line, a thin shell over the flows and the engine. One module for a group of commands."""

from forex_core.cli import (
    backup,
    dashboard,
    data,
    doctor,
    evaluate,
    forecast,
    ledger,
    listings,
    notify,
    replay,
    succession,
    tracking,
    train,
    ui,
)
from forex_core.cli.app import app, main

__all__ = ["app", "main"]

# In the order of the help.
app.command(epilog=forecast.EXAMPLES)(forecast.forecast)
app.command(epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command(epilog=ledger.MONITOR_EXAMPLES)(ledger.monitor)
app.command(epilog=replay.EXAMPLES)(replay.replay)
app.command(epilog=succession.ROLLBACK_EXAMPLES)(succession.rollback)
app.command(epilog=succession.PROMOTE_EXAMPLES)(succession.promote)
app.command(epilog=dashboard.EXAMPLES)(dashboard.dashboard)
app.command(epilog=ui.EXAMPLES)(ui.ui)
app.command(epilog=doctor.EXAMPLES)(doctor.doctor)
app.add_typer(data.data, name="data")
app.add_typer(listings.experiments, name="experiments")
app.add_typer(listings.runs, name="runs")
app.add_typer(listings.models, name="models")
app.add_typer(ledger.ledger, name="ledger")
app.add_typer(tracking.tracking, name="tracking")
app.add_typer(notify.notify, name="notify")
app.add_typer(backup.backup, name="backup")
app.add_typer(train.train, name="train")
