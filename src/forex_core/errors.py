"""The one error tree.

    ForexError
    ├── InputError              the caller can mend it: exit code 2
    │   ├── ConfigError         a setting is unknown or has no usable value
    │   ├── SourceError         a file or a source cannot be read, or lacks what was asked for
    │   └── DataQualityError    the data were read, and are not fit to forecast from
    ├── SourceUnavailable       a source could not be reached just now; trying again may help
    │   └── NoFreshData         no source gave the pair's rate, and the stored one is missing or too old
    ├── ForecastError           the engine could not produce a forecast it would stand behind
    │   └── MemberError         one member could not answer; the run goes on without it
    ├── DatabaseError           a database cannot be copied, or a copy does not fit where it is to go
    ├── TrackingError           the tracking store could not be opened or written, or refused what it was given
    │   └── TrackingUnavailable it cannot be reached or written just now; what was to be logged can be kept for later
    ├── LedgerError             the ledger was changed, or refused what it was given
    │   └── LedgerUnavailable   it cannot be reached or written just now
    ├── BackupError             an archive could not be made, verified, restored or found
    │   └── ArchiveRefused      what an archive holds is not what was put into it, or not for this program
    └── NotifyError             a message reached nobody, or not everybody

A message says what was found, what was expected and what to do about it.
"""


class ForexError(Exception):
    """Root of every error this package raises on purpose."""

    exit_code = 1


class InputError(ForexError):
    """The input is at fault and the caller can mend it."""

    exit_code = 2


class ConfigError(InputError):
    """A setting is unknown or its value is not usable."""


class SourceError(InputError):
    """A source could not be read, or does not hold what was asked of it."""


class DataQualityError(InputError):
    """Data were read but are not fit to forecast from."""


class SourceUnavailable(ForexError):  # noqa: N818  a state of the source, retried, not a fault of the input
    """A source could not be reached just now; trying again may help."""


class NoFreshData(SourceUnavailable):
    """No source gave the pair's rate, and the stored one is missing or too old."""


class ForecastError(ForexError):
    """The engine could not produce a forecast that it would stand behind."""


class MemberError(ForecastError):
    """One member could not answer. The run records the reason and goes on without it."""


class DatabaseError(ForexError):
    """A database cannot be copied, or a copy does not fit where it is to go."""


class LedgerError(ForexError):
    """The ledger of published forecasts was changed, or refused what it was given."""


class LedgerUnavailable(LedgerError):  # noqa: N818  a state of the ledger, not a fault of what was to be written
    """The ledger cannot be reached or written just now; what was to be written can be kept for later."""


class BackupError(ForexError):
    """An archive could not be made, verified, restored or found; what was there is there."""


class ArchiveRefused(BackupError):  # noqa: N818  a state of the archive
    """An archive is damaged, incomplete, made to do harm, or of another program or a newer version."""


class TrackingError(ForexError):
    """The tracking store could not be opened or written, or refused what it was given."""


class TrackingUnavailable(TrackingError):  # noqa: N818  a state of the store, not a fault of what was logged
    """The store cannot be reached or written just now; what was to be logged can be kept for later."""


class NotifyError(ForexError):
    """A message reached nobody, or not everybody it was meant for."""
