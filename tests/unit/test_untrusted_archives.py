"""Archives that are damaged, cut off, forged or of others: refused with a reason, and nothing written anywhere."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from forex_core.backup import Created, manifest
from forex_core.backup.manifest import Entry, Header, ManifestWriter
from forex_core.backup.places import Folder, archive_name
from forex_core.config import load_settings
from forex_core.data.store import ObservationStore
from forex_core.data.tables import PART
from forex_core.errors import ArchiveRefused, BackupError, ConfigError, InputError
from tests.deployments import Deployment, entries_of, object_of, tree

FLIPS = 200
SEED = 20261128


@pytest.fixture
def whole(deployment: Deployment) -> Created:
    draw = random.Random(SEED)
    deployment.report("usdclp/report.html", b"<html>" * 2000)
    deployment.report("usdclp/snapshot.parquet", draw.randbytes(5000))
    deployment.report("large", draw.randbytes(3_000_000))
    ObservationStore(load_settings().store_url).names()
    return deployment.create()


@pytest.fixture
def refused(deployment: Deployment) -> Callable[[str, str], None]:
    """`refused(archive, said)`: verify or restore say why not, and nothing is written anywhere."""

    def check(archive: str, said: str) -> None:
        before = tree(deployment.folder)
        with pytest.raises(ArchiveRefused, match=said):
            deployment.backups.restore(archive, deployment.folder / "target")
        assert tree(deployment.folder) == before
        assert not os.path.lexists(deployment.folder / "target")

    return check


def forged(
    deployment: Deployment,
    made: Created,
    *,
    entries: Callable[[list[Entry]], list[Entry]] = lambda found: found,
    **changes: Any,
) -> str:
    """An archive with a digest that is right and content that is not: of another program, or made to do harm."""
    path = Path(made.archive)
    header = manifest.header_of(path.name, lambda: path.open("rb"))
    scratch = deployment.folder / "forged"
    with ManifestWriter(scratch) as writer:
        for entry in entries(entries_of(made)):
            writer.add(entry)
        forged_header = Header.model_construct(
            **header.model_dump() | {"files": writer.files, "bytes": writer.bytes} | changes
        )
        writer.finish(forged_header)
    target = deployment.place / f"{archive_name(datetime.now(UTC))}.jsonl.zst"
    scratch.replace(target)
    return str(target)


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "reports/../../outside",
        "/etc/outside",
        "reports//x",
        "reports/./x",
        "reports/a\0b",
        "",
        "elsewhere/x",
        "reports/" + "x" * 300,
        "databases/../../x",
        "artifacts/00/../../../x",
    ],
)
def test_paths_that_lead_out(
    deployment: Deployment, whole: Created, refused: Callable[[str, str], None], path: str
) -> None:
    def led_out(found: list[Entry]) -> list[Entry]:
        return [*found[:-1], Entry.model_construct(**found[-1].model_dump() | {"path": path})]

    refused(forged(deployment, whole, entries=led_out), "not to be trusted")


@pytest.mark.parametrize(
    "path", ["artifacts/x/y", "artifacts/", "artifacts/-1/x", "databases/other.db", "spool"]
)
def test_paths_that_mean_nothing_stay_inside(deployment: Deployment, whole: Created, path: str) -> None:
    def other(found: list[Entry]) -> list[Entry]:
        changed = [Entry.model_construct(**found[-1].model_dump() | {"path": path}), *found[:-1]]
        return sorted(changed, key=lambda entry: manifest.order_of(entry.path))

    archive = forged(deployment, whole, entries=other)
    before = tree(deployment.folder)
    try:
        deployment.backups.restore(archive, deployment.folder / "target")
    except ArchiveRefused:
        pass
    else:
        shutil.rmtree(deployment.folder / "target")
    assert tree(deployment.folder) == before


def test_two_files_for_one_place(
    deployment: Deployment, whole: Created, refused: Callable[[str, str], None]
) -> None:
    refused(forged(deployment, whole, entries=lambda found: [*found, found[-1]]), "out of order, or twice")
    refused(forged(deployment, whole, entries=lambda found: found[::-1]), "out of order, or twice")

    def below_a_file(found: list[Entry]) -> list[Entry]:
        return [*found, found[-1].model_copy(update={"path": f"{found[-1].path}/below"})]

    refused(forged(deployment, whole, entries=below_a_file), "in the way of another file")


def test_bombs(deployment: Deployment, whole: Created, refused: Callable[[str, str], None]) -> None:
    def shorter(found: list[Entry]) -> list[Entry]:
        return [entry.model_copy(update={"size": entry.size and entry.size - 1}) for entry in found]

    refused(forged(deployment, whole, entries=shorter), "longer than the")

    bomb = deployment.objects()[0]
    name = bomb.name
    with bomb.open("wb") as raw, pa.CompressedOutputStream(raw, "zstd") as out:
        for _ in range(500):
            out.write(bytes(1 << 20))
    assert bomb.stat().st_size < 100_000
    started = time.process_time()
    refused(whole.archive, f"object {name} .* is longer than")
    assert time.process_time() - started < 30


def test_a_manifest_that_is_a_bomb(
    deployment: Deployment, whole: Created, refused: Callable[[str, str], None]
) -> None:
    path = Path(whole.archive)
    with path.open("wb") as raw, pa.CompressedOutputStream(raw, "zstd") as out:
        for _ in range(500):
            out.write(b"x" * (1 << 20))
    refused(whole.archive, "has a line past|its beginning is damaged")


def test_sizes_that_no_disk_has(deployment: Deployment, whole: Created) -> None:
    def huge(found: list[Entry]) -> list[Entry]:
        return [entry.model_copy(update={"size": 1 << 50}) for entry in found]

    before = tree(deployment.folder)
    archive = forged(deployment, whole, entries=huge)
    with pytest.raises(InputError, match="MB free; make room"):
        deployment.backups.restore(archive, deployment.folder / "target")
    Path(archive).unlink()
    assert tree(deployment.folder) == before


def test_fewer_or_more_files_than_announced(
    deployment: Deployment, whole: Created, refused: Callable[[str, str], None]
) -> None:
    refused(forged(deployment, whole, files=whole.files + 1), "lacks files")
    refused(forged(deployment, whole, files=whole.files - 1), "names more than")
    refused(forged(deployment, whole, bytes=whole.bytes + 1), "lacks files")
    refused(forged(deployment, whole, entries=lambda found: found[:-1], files=whole.files), "lacks files")


def test_links_and_special_files_in_the_place(
    deployment: Deployment, whole: Created, refused: Callable[[str, str], None]
) -> None:
    first = deployment.objects()[0]
    kept = first.read_bytes()
    (deployment.folder / "elsewhere").write_bytes(kept)
    first.unlink()
    first.symlink_to(deployment.folder / "elsewhere")
    with pytest.raises(ArchiveRefused, match="cannot be read"):
        deployment.backups.verify(whole.archive)
    refused(whole.archive, "cannot be read")
    first.unlink()
    os.mkfifo(first)
    with pytest.raises(ArchiveRefused, match="is not a file"):
        deployment.backups.verify(whole.archive)
    with pytest.raises(ArchiveRefused, match="is not a file"):
        deployment.backups.restore(whole.archive, deployment.folder / "target")
    assert list(deployment.folder.glob("*target*")) == []
    first.unlink()
    refused(whole.archive, f"object {first.name} .*is not there")


def test_a_manifest_that_is_a_link(
    deployment: Deployment, whole: Created, refused: Callable[[str, str], None]
) -> None:
    """To a manifest that is sound, and to a file that is nobody's business."""
    manifest_of_it, moved = Path(whole.archive), deployment.folder / "elsewhere"
    manifest_of_it.rename(moved)
    for target in (moved, Path("/etc/passwd")):
        manifest_of_it.unlink(missing_ok=True)
        manifest_of_it.symlink_to(target)
        with pytest.raises(ArchiveRefused, match="cannot be read"):
            deployment.backups.verify(whole.archive)
        refused(whole.archive, "cannot be read")
    assert [one.header for one in deployment.backups.archives(str(deployment.place))] == [None]


def test_objects_behind_a_link_are_read_and_compared(deployment: Deployment, whole: Created) -> None:
    """They may lie on another disk. Whatever lies there, it is restored below the target, or not at all."""
    objects, elsewhere = deployment.place / "objects", deployment.folder / "elsewhere"
    expected = tree(deployment.restored(whole, "expected"))
    objects.rename(elsewhere)
    objects.symlink_to(elsewhere)
    beside = sorted(deployment.folder.iterdir())
    assert tree(deployment.restored(whole, "target")) == expected
    assert sorted(deployment.folder.iterdir()) == sorted([*beside, deployment.folder / "target"])
    shutil.rmtree(deployment.folder / "target")

    for path in sorted(elsewhere.rglob("*")):
        if path.is_file():
            path.write_bytes(pa.compress(b"of somebody else", codec="zstd", asbytes=True))
    before = tree(deployment.folder)
    with pytest.raises(ArchiveRefused, match=r"damaged: its content is another|is longer than the"):
        deployment.backups.restore(whole.archive, deployment.folder / "target")
    assert tree(deployment.folder) == before
    assert not (deployment.folder / "target").exists()


def test_other_programs_and_newer_versions(
    deployment: Deployment, whole: Created, refused: Callable[[str, str], None]
) -> None:
    refused(forged(deployment, whole, project="another"), "archive of 'another'")
    refused(forged(deployment, whole, format=2, unknown_field=3), "newer version of this program")
    newer = {"observations": str(PART.version + 1)}
    refused(forged(deployment, whole, schemas=newer), "newer version of this program")
    refused(forged(deployment, whole, schemas={manifest.MLFLOW: "f" * 12}), "made by a newer MLflow")
    older = {"observations": str(PART.version - 1)}
    refused(forged(deployment, whole, schemas=older), "earlier version of this program")
    with pytest.raises(ArchiveRefused, match="newer version"):
        deployment.backups.verify(forged(deployment, whole, schemas={"ledger": "99"}))


def test_an_archive_of_another_database(tracked: Deployment, refused: Callable[[str, str], None]) -> None:
    tracked.run()
    made = tracked.create()
    counts = dict(made.counts) | {"runs": 7}
    refused(forged(tracked, made, counts=counts), "has 1 runs and announces 7")


@pytest.mark.slow
def test_flipped_bits(deployment: Deployment, whole: Created) -> None:
    """At random places of its files."""
    print("seed", SEED)
    draw = random.Random(SEED)
    files = [deployment.manifests()[0], *deployment.objects()]
    flips = [(path, draw.randrange(8 * path.stat().st_size)) for path in draw.choices(files, k=FLIPS)]
    before = tree(deployment.folder)
    for path, bit in flips:
        content = bytearray(path.read_bytes())
        kept = bytes(content)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with pytest.raises(ArchiveRefused):
            deployment.backups.verify(whole.archive)
        with pytest.raises(ArchiveRefused):
            deployment.backups.restore(whole.archive, deployment.folder / "target")
        path.write_bytes(kept)
    assert tree(deployment.folder) == before
    deployment.backups.verify(whole.archive)


def test_no_bit_of_an_object_means_nothing(deployment: Deployment, whole: Created) -> None:
    """Of its zstd some do: they leave the content as it is."""
    (entry,) = (one for one in entries_of(whole) if one.path == "reports/usdclp/report.html")
    path, place = object_of(deployment, whole, entry.path), Folder(deployment.place)
    kept = path.read_bytes()
    for bit in range(8 * len(kept)):
        content = bytearray(kept)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with pytest.raises(ArchiveRefused):
            list(place.content(path.name, entry.size))


def unsealed(path: Path) -> None:
    """As programs wrote it that knew no seals."""
    with pa.CompressedInputStream(str(path), "zstd") as sealed:
        content = sealed.read()
    with pa.CompressedOutputStream(str(path), "zstd") as out:
        out.write(content)


def test_an_archive_of_before_there_were_seals_is_read_and_its_objects_reused(
    deployment: Deployment, whole: Created
) -> None:
    """And programs of then read what is sealed: they pass by a frame that is to be skipped."""
    expected = tree(deployment.restored(whole, "expected"))
    for path in (*deployment.manifests(), *deployment.objects()):
        unsealed(path)
    deployment.backups.verify(whole.archive)
    assert tree(deployment.restored(whole, "target")) == expected
    again = deployment.create()
    assert again.bytes_reused >= 3_000_000
    deployment.backups.verify(again.archive)
    victim = deployment.manifests()[-1]
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    with pytest.raises(ArchiveRefused, match=r"damaged|cannot be read"):
        deployment.backups.verify(again.archive)


def test_cut_off_anywhere(
    deployment: Deployment, whole: Created, refused: Callable[[str, str], None]
) -> None:
    draw = random.Random(SEED)
    for path in (deployment.manifests()[0], *deployment.objects()[:3]):
        content = path.read_bytes()
        for length in [0, 1, len(content) - 1, *(draw.randrange(len(content)) for _ in range(5))]:
            path.write_bytes(content[:length])
            refused(whole.archive, r"damaged|cannot be read|is no archive|cut off|has no end|lacks")
        path.write_bytes(content)
    assert deployment.backups.verify(whole.archive).objects == len(deployment.objects())


@pytest.mark.parametrize("address", ["/tmp/x", "latest.zip", "s3://bucket/x", "forex-.txt", ""])
def test_what_is_no_address_of_an_archive(deployment: Deployment, address: str) -> None:
    with pytest.raises(ConfigError, match="not the address of an archive"):
        deployment.backups.verify(address)


def test_what_is_no_place(deployment: Deployment) -> None:
    for address, said in (("ftp://host/x", "no place for archives"), ("s3://", "names no bucket")):
        with pytest.raises(ConfigError, match=said):
            deployment.backups.create(address)
    with pytest.raises(BackupError, match="there is no archive of"):
        deployment.backups.verify("latest")
    with pytest.raises(ArchiveRefused, match="not there"):
        deployment.backups.verify(str(deployment.place / f"{archive_name(datetime.now(UTC))}.jsonl.zst"))
