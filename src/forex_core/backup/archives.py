"""The door of this room: archives of one deployment, in the places that its settings or a caller name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from errno import EACCES, EDQUOT, EEXIST, EISDIR, ENOENT, ENOSPC, ENOTDIR, EPERM
from pathlib import Path

from forex_core.backup import retention
from forex_core.backup.creating import Advance, Created, TrackedStore, create, database_errors, silent
from forex_core.backup.places import Place, S3Access, place_at, split_address
from forex_core.backup.restoring import Restored, refuse_unknown, restore
from forex_core.backup.retention import Archive, Pruned, Verified
from forex_core.config import Settings
from forex_core.errors import BackupError, ForexError
from forex_core.memory import give_back_memory
from forex_core.secrecy import redacted, told

LATEST = "latest"
_ADVICE = {
    **dict.fromkeys((ENOSPC, EDQUOT), "make room and try again"),
    **dict.fromkeys(
        (ENOENT, EACCES, EPERM, ENOTDIR, EISDIR, EEXIST),
        "check that the folders are there and belong to this user",
    ),
}
_OF_A_DISK = "look at its disk: how it is mounted, whether it answers, what the system's log says of it"


@dataclass(frozen=True)
class Backups:
    """Archives of the deployment of some settings.

    Raises, from every method:
        BackupError: a place, a disk or a database cannot be read or written; what was there is there.
        ArchiveRefused: an archive is damaged, incomplete, dangerous, of another program or of a newer version.
        InputError: an address or a folder that cannot be used.
    """

    settings: Settings
    tracking: TrackedStore

    def place(self, at: str | None = None) -> str:
        """The address of a place; by default that of the settings."""
        return self._place(at).address

    def create(self, to: str | None = None, *, full: bool = False, advance: Advance = silent) -> Created:
        """Make an archive while everything goes on; files that have not changed since the last are not read.

        Args:
            to: the place; by default that of the settings.
            full: read every file and write every object again.
        """
        give_back_memory()
        place = self._place(to)
        with self._translated("the archive could not be made"):
            return create(self.settings, self.tracking, place, full=full, advance=advance)

    def archives(self, at: str | None = None) -> list[Archive]:
        """The archives of a place, the oldest first."""
        place = self._place(at)
        with self._translated("the archives could not be listed"):
            return retention.archives(place)

    def newest(self) -> list[Archive]:
        """The newest archive of the data folder in the place of the settings, its manifest read to the end.

        Before it stand newer ones that cannot be read, of whatever folder. The place is asked once, and no lock waited
        for: for whoever only wants to know.
        """
        place = self._place(None, patient=False)
        with self._translated("the archives could not be listed"):
            return retention.newest(place, str(self.settings.root))

    def verify(self, archive: str, advance: Advance = silent) -> Verified:
        """Read all of an archive.

        Args:
            archive: its address, or 'latest' for the newest of this data folder in the place of the settings.
        """
        give_back_memory()
        place, name = self._archive(archive)
        with self._translated("the archive could not be verified"), place.locked(shared=True):
            found = retention.verify(place, name, advance=advance)
            refuse_unknown(found.header, self.tracking)
            return found

    def restore(self, archive: str, to: Path | None = None, advance: Advance = silent) -> Restored:
        """Restore an archive into a new or empty folder, or over the data folder and back ends of the settings."""
        give_back_memory()
        place, name = self._archive(archive)
        replaced = list[str]()
        try:
            with self._translated("the archive could not be restored"):
                return restore(
                    self.settings, self.tracking, place, name, to, replaced=replaced, advance=advance
                )
        except ForexError as error:
            if not replaced:
                raise
            raise BackupError(
                f"{error}. Replaced by then: {'; '.join(replaced)}. Restore again when it is mended, or put those back"
            ) from error

    def prune(self, at: str | None = None, *, dry_run: bool = False, advance: Advance = silent) -> Pruned:
        """Remove the archives that the settings' rules do not keep, and objects that no archive names."""
        give_back_memory()
        place = self._place(at)
        with self._translated("the archives could not be pruned"):
            return retention.prune(place, self.settings.backup, dry_run=dry_run, advance=advance)

    def _place(self, address: str | None, *, patient: bool = True) -> Place:
        chosen, tracked = self.settings.backup, self.settings.tracking.mlflow
        access = S3Access(
            chosen.s3_endpoint_url or tracked.s3_endpoint_url,
            chosen.s3_access_key_id or tracked.s3_access_key_id,
            chosen.s3_secret_access_key or tracked.s3_secret_access_key,
            patient,
        )
        home = self.settings.backups_dir
        return place_at(address or chosen.to or str(home), access, home)

    def _archive(self, address: str) -> tuple[Place, str]:
        if address != LATEST:
            place, name = split_address(address)
            return self._place(place), name
        mine, now = str(self.settings.root), datetime.now(UTC)
        known = [one for one in self.archives() if one.header and one.header.data_dir == mine]
        found = [one for one in known if one.header and not one.header.is_to_come(now)]
        if known and not found:
            raise BackupError(
                f"every archive of {mine} in {self._place(None).address} is of an instant to come, such as "
                f"{known[-1].address}; set the clock, or name the one that is meant"
            )
        if not found:
            raise BackupError(
                f"there is no archive of {mine} in {self._place(None).address}; 'forex backup create' makes one"
            )
        return self._place(None), found[-1].name

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Errors of disks, databases and buckets, with what to do about them, without a secret."""
        try:
            yield
        except _bucket_errors() as error:  # some of which are of the system's kind as well
            found = redacted(told(error), self.settings.secrets)
            raise BackupError(f"{what}: {found}; check the bucket, its endpoint and its keys") from error
        except OSError as error:
            raise BackupError(f"{what}: {error}; {_ADVICE.get(error.errno or 0, _OF_A_DISK)}") from error
        except database_errors() as error:
            found = redacted(told(error), self.settings.secrets)
            raise BackupError(f"{what}: {found}; check the database and its disk") from error


def _bucket_errors() -> tuple[type[Exception], ...]:
    found = []
    for module, name in (
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
        ("boto3.exceptions", "Boto3Error"),
    ):
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)
