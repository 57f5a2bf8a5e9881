"""How long archives are kept: the newest of some days, weeks and months, and never fewer than one that is sound."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from loguru import logger

from forex_core.backup import manifest
from forex_core.backup.creating import Advance, in_order, silent
from forex_core.backup.manifest import Entry, Header, Opener
from forex_core.backup.places import Place
from forex_core.config import BackupConfig
from forex_core.errors import ArchiveRefused


@dataclass(frozen=True)
class Archive:
    """An archive as its manifest begins; `header` is None for one that cannot be read, for the reason `fault`."""

    name: str
    address: str
    header: Header | None
    fault: str | None = None

    @property
    def document(self) -> dict[str, Any]:
        """As plain values."""
        told = self.header.told if self.header else {"created": None}
        return {"archive": self.address, **told, "fault": self.fault}


@dataclass(frozen=True)
class Verified:
    """An archive all of whose content was read and is what was put into it."""

    archive: str
    header: Header
    objects: int

    @property
    def document(self) -> dict[str, Any]:
        """As plain values."""
        return {"archive": self.archive, **self.header.told, "objects": self.objects}


@dataclass(frozen=True)
class Pruned:
    """What became of the archives of a place; addresses, the oldest first.

    `damaged` ones stay, with the reason; neither do they count among those that are kept. `objects` and `bytes` are
    what was removed with no manifest naming it, compressed; or would be, of a dry run.
    """

    kept: tuple[str, ...]
    removed: tuple[str, ...]
    damaged: dict[str, str]
    objects: int
    bytes: int

    @property
    def document(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def archives(place: Place) -> list[Archive]:
    """The archives of a place, the oldest first, without those that are pruned meanwhile."""
    found = [_archive(place, name, manifest.header_of) for name in place.names()]
    if any(one.fault for one in found):
        left = set(place.names())
        found = [one for one in found if one.name in left]
    return found


def newest(place: Place, data_dir: str) -> list[Archive]:
    """The newest archive of a folder whose manifest can be read, after newer ones that cannot, of whatever folder.

    One of an instant to come is among those that cannot be used.
    """
    found, now = list[Archive](), datetime.now(UTC)
    for name in reversed(place.names()):
        one = _archive(place, name, manifest.header_of)
        if one.header and one.header.data_dir != data_dir:
            continue
        if one.header and one.header.is_to_come(now):
            one = replace(
                one, header=None, fault=f"it is of {one.header.created:%Y-%m-%d %H:%M} UTC, which is to come"
            )
        elif one.header:
            one = _archive(place, name, manifest.checked)
        found.append(one)
        if one.header:
            break
    return found


def _archive(place: Place, name: str, read: Callable[[str, Opener], Header]) -> Archive:
    header, fault = None, None
    try:
        header = read(name, partial(place.open_manifest, name))
    except ArchiveRefused as error:
        fault = str(error)
    return Archive(name, place.address_of(name), header, fault)


def verify(place: Place, name: str, sound: set[bytes] | None = None, advance: Advance = silent) -> Verified:
    """Read an archive's manifest to its end and the content of each of its objects once.

    Args:
        sound: digests of objects that need not be read, to which those that were are added.

    Raises:
        ArchiveRefused: something is missing, damaged or not to be trusted.
    """
    header = manifest.checked(name, partial(place.open_manifest, name))
    read = set[bytes]() if sound is None else sound
    objects = 0

    def known(entry: Entry) -> bool | None:
        if entry.sha256 is None or (digest := bytes.fromhex(entry.sha256)) in read:
            return True
        read.add(digest)
        return None

    def compared(entry: Entry) -> bool:
        assert entry.sha256 is not None
        for _ in place.content(entry.sha256, entry.size):
            pass
        return False

    try:
        for done, was_known in enumerate(
            in_order(
                manifest.entries(name, partial(place.open_manifest, name)), known, compared, place.workers
            )
        ):
            objects += not was_known
            if done % 500 == 0:
                advance("verify", done, header.files)
    except ArchiveRefused as error:
        raise ArchiveRefused(f"archive {place.address_of(name)}: {error}") from error
    return Verified(place.address_of(name), header, objects)


def prune(place: Place, rules: BackupConfig, *, dry_run: bool = False, advance: Advance = silent) -> Pruned:
    """Remove the archives that the rules do not keep, and then objects that no archive names.

    Archives of different folders do not count for each other. One is removed only when all that are kept of its
    folder have been verified; one that is damaged is replaced by the next, and stays for someone to look into.
    """
    with place.locked(shared=False):
        place.sweep()
        found = archives(place)
        damaged = {one.name: one.fault for one in found if one.fault is not None}
        removed: list[str] = []
        sound: set[bytes] = set()
        for folder in sorted({one.header.data_dir for one in found if one.header}):
            of_it = [one for one in found if one.header and one.header.data_dir == folder]
            removed += _to_go(place, of_it, rules, damaged, sound, advance)
        if not dry_run:
            advance("remove", 0, len(removed))
            for name in removed:
                place.retract(name)
                logger.info("archive {} removed", name)
        loose = _loose(place, damaged, set(removed), advance)
        gone = place.discard([*loose]) if loose and not dry_run else [*loose]
    return Pruned(
        kept=tuple(one.address for one in found if one.name not in removed and one.name not in damaged),
        removed=tuple(one.address for one in found if one.name in removed),
        damaged={place.address_of(name): fault for name, fault in damaged.items()},
        objects=len(gone),
        bytes=sum(loose[digest] for digest in gone),
    )


def kept_by(rules: BackupConfig, instants: Iterable[datetime]) -> set[datetime]:
    """Which archives the rules keep: the newest of each of the last days, weeks and months that have one.

    The newest of all is always among them.
    """
    newest_first = sorted(set(instants), reverse=True)
    kept = set(newest_first[:1])
    periods: Sequence[tuple[int, Callable[[datetime], tuple[int, ...]]]] = (
        (rules.keep_daily, lambda at: (at.year, at.month, at.day)),
        (rules.keep_weekly, lambda at: tuple(at.isocalendar())[:2]),
        (rules.keep_monthly, lambda at: (at.year, at.month)),
    )
    for number, period_of in periods:
        seen: dict[tuple[int, ...], datetime] = {}
        for at in newest_first:
            seen.setdefault(period_of(at), at)
        kept |= set(list(seen.values())[:number])
    return kept


def _to_go(
    place: Place,
    found: list[Archive],
    rules: BackupConfig,
    damaged: dict[str, str],
    sound: set[bytes],
    advance: Advance,
) -> list[str]:
    """Names of the archives of one folder that go; what is found to be damaged is added to `damaged`.

    One that is of an instant to come stays, and takes nobody's place.
    """
    now = datetime.now(UTC)
    good = {
        one.name: one.header.created
        for one in found
        if one.header and one.name not in damaged and not one.header.is_to_come(now)
    }
    verified: set[str] = set()
    while True:
        kept = kept_by(rules, good.values())
        to_go = [name for name, created in good.items() if created not in kept]
        if not to_go:
            return []
        unread = [name for name, created in good.items() if created in kept and name not in verified]
        if not unread:
            return to_go
        name = unread[-1]
        try:
            read = set(sound)
            verify(place, name, read, advance)
            sound |= read
            verified.add(name)
        except ArchiveRefused as error:
            logger.warning("{}", error)
            damaged[name] = str(error)
            del good[name]


def _loose(place: Place, damaged: dict[str, str], without: set[str], advance: Advance) -> dict[str, int]:
    """Objects that may go and that no manifest names, but for some: their sizes."""
    named: set[bytes] = set()

    def note(entry: Entry) -> None:
        if entry.sha256 is not None:
            named.add(bytes.fromhex(entry.sha256))

    for name in place.names():
        if name in without:
            continue
        try:
            manifest.checked(name, partial(place.open_manifest, name), note)
        except ArchiveRefused as error:
            # What it names cannot be told from what nobody names.
            damaged[name] = str(error)
            logger.warning("{}; no object is removed before it is mended or removed by hand", error)
            return {}
    advance("collect", 0, 0)
    return {
        digest: size
        for digest, size, may_go in place.objects()
        if may_go and bytes.fromhex(digest) not in named
    }
