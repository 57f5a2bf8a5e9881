"""Scripts here are run by name, with their neighbours on the path; pytest need not look in them for doctests."""

collect_ignore = [
    "backup_speed.py",
    "command_speed.py",
    "dashboard_speed.py",
    "data_speed.py",
    "engine_speed.py",
    "neural_quality.py",
    "neural_speed.py",
    "servers.py",
    "tracking_speed.py",
]
