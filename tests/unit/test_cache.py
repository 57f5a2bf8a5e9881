"""The cache of members' answers: the same bits as without it, whatever is kept, revised, torn or in the way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger
from threadpoolctl import threadpool_limits

import forex_core
from forex_core import cache
from forex_core import paths as paths_module
from forex_core.cache import AnswerCache, code_digest
from forex_core.config import MEMBERS, ChronosConfig, EngineConfig, Settings
from forex_core.engine import Engine, build_engine, build_members, import_libraries, library_versions
from forex_core.errors import MemberError
from forex_core.models.base import Answers, Forecaster, Levels
from forex_core.models.driver_regression import DriverRegression
from forex_core.models.random_walk import RandomWalk
from forex_core.testing import bundle_of, synthetic_bundle, synthetic_table
from forex_core.types import HORIZONS, LEVELS, PATH_STEPS, ForecastRun, MarketBundle, Pair

PACKAGE = Path(forex_core.__file__).parent
ON_DATA = tuple(name for name in MEMBERS if name != "chronos")
"""Members that need no weights from elsewhere."""

LIGHT = EngineConfig(
    members=("random_walk", "var", "drivers"), grid_origins=60, warmup_origins=10, min_history_rows=300
)
STEPS, FEW = 8, (0.1, 0.5, 0.9)
RECORD = 552 + 8 * STEPS * len(FEW)
"""Bytes of one kept answer of that shape."""

Rows = npt.NDArray[np.int64]


class Asked:
    """The random walk, answering to any name, that counts which rows it is asked for and is silent at some."""

    lookback_rows: int | None = None
    trained_until: date | None = None
    may_have_seen = False
    libraries: tuple[str, ...] = ()

    def __init__(
        self,
        name: str = "asked",
        columns: tuple[str, ...] = ("spot",),
        identity: str = "asked:1",
        silent: Sequence[int] = (),
        reason: str = "out to lunch",
    ) -> None:
        self.name = name
        self.columns = columns
        self.identity = identity
        self.silent = silent
        self.reason = reason
        self.rows: list[int] = []

    def forecast(
        self, bundle: MarketBundle, origins: pd.DatetimeIndex, steps: int, levels: Levels
    ) -> Answers:
        rows = bundle.instants.get_indexer(origins)
        self.rows += rows.tolist()
        quantiles = RandomWalk().forecast(bundle, origins, steps, levels).quantiles.copy()
        if "drivers" in self.columns and bundle.drivers.size:
            quantiles *= (
                1 + 1e-3 * np.tanh(np.cumsum(np.nan_to_num(bundle.drivers).sum(axis=1)))[rows, None, None]
            )
        mute = np.isin(rows, self.silent)
        quantiles[mute] = np.nan
        return Answers(quantiles, {int(p): self.reason for p in np.flatnonzero(mute)})


def kept(
    cache_: AnswerCache,
    member: Forecaster,
    bundle: MarketBundle,
    rows: Sequence[int] | Rows,
    steps: int = STEPS,
    levels: Levels = FEW,
) -> Answers:
    """What the cache answers, asking the member as the engine does."""

    def ask(asked: Rows) -> Answers:
        return member.forecast(bundle, bundle.instants[asked], steps, levels)

    return cache_.answers(member, bundle, np.asarray(rows, dtype=np.int64), steps, levels, ask)


def same(one: Answers, other: Answers) -> None:
    """The same bits, NaN included, and the same reasons."""
    assert one.quantiles.dtype == other.quantiles.dtype
    assert one.quantiles.shape == other.quantiles.shape
    assert one.quantiles.tobytes() == other.quantiles.tobytes()
    assert dict(one.reasons) == dict(other.reasons)


def files(folder: Path, pattern: str = "*/*.answers") -> list[Path]:
    return sorted(folder.glob(pattern))


@pytest.fixture(scope="module")
def bundle() -> MarketBundle:
    return synthetic_bundle(620, seed=3)


@pytest.fixture
def store(tmp_path: Path) -> AnswerCache:
    return AnswerCache(tmp_path / "members", {"numpy": "2"})


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What is logged as a warning or worse."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


# ---- the same bits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ON_DATA)
def test_a_member_says_the_same_with_and_without_the_cache(
    name: str, bundle: MarketBundle, store: AnswerCache
) -> None:
    config = EngineConfig(members=tuple(dict.fromkeys(("random_walk", name))))
    member = build_members(config, ChronosConfig())[-1]
    import_libraries([member])
    rows = np.array([40, 290, 400, 401, 470, 619])  # the first without enough history for any of them
    with threadpool_limits(1):
        plain = member.forecast(bundle, bundle.instants[rows], PATH_STEPS, LEVELS)
        for some in (rows[[1, 4]], rows, rows, rows[::-1], rows[[2, 2, 0]]):
            at = np.array([int(np.flatnonzero(rows == row)[0]) for row in some])
            expected = Answers(
                plain.quantiles[at], {n: plain.reasons[p] for n, p in enumerate(at) if p in plain.reasons}
            )
            same(kept(store, member, bundle, some, PATH_STEPS, LEVELS), expected)
    assert store.holds(member, bundle, rows, PATH_STEPS, LEVELS)
    assert 0 in plain.reasons


def test_only_what_is_not_kept_is_asked_for(bundle: MarketBundle, store: AnswerCache) -> None:
    member = Asked()
    for asked, new in (((300, 305, 310), [300, 305, 310]), ((305, 310, 315), [315]), ((315, 300), [])):
        member.rows.clear()
        assert store.holds(member, bundle, np.array(asked), STEPS, FEW) == (not new)
        kept(store, member, bundle, asked)
        assert member.rows == new


def test_no_answer_is_kept_with_its_reason(bundle: MarketBundle, store: AnswerCache) -> None:
    member = Asked(silent=(305, 310), reason="außer Haus: λ = ∞")
    first = kept(store, member, bundle, (300, 305, 310, 315))
    again = kept(store, member, bundle, (310, 315, 305))
    assert member.rows == [300, 305, 310, 315]
    same(first, member.forecast(bundle, bundle.instants[[300, 305, 310, 315]], STEPS, FEW))
    same(again, member.forecast(bundle, bundle.instants[[310, 315, 305]], STEPS, FEW))
    assert again.reasons == {0: "außer Haus: λ = ∞", 2: "außer Haus: λ = ∞"}
    assert np.isnan(again.quantiles[[0, 2]]).all()


@pytest.mark.parametrize(("length", "asked_again"), [(0, False), (512, False), (513, True)])
def test_a_reason_is_kept_whole_or_not_at_all(
    bundle: MarketBundle, store: AnswerCache, length: int, asked_again: bool
) -> None:
    member = Asked(silent=(305,), reason="x" * length)
    for _ in range(2):
        found = kept(store, member, bundle, (300, 305))
        assert found.reasons == {1: "x" * length}
    assert member.rows == [300, 305] + [305] * asked_again


def test_a_member_that_cannot_answer_says_so_every_time(bundle: MarketBundle, store: AnswerCache) -> None:
    def refuse(rows: Rows) -> Answers:
        raise MemberError("no weights")

    def misshapen(rows: Rows) -> Answers:
        return Answers(np.ones((len(rows), STEPS, 1)))

    rows = np.array([300, 305])
    for _ in range(2):
        with pytest.raises(MemberError, match="no weights"):
            store.answers(Asked(), bundle, rows, STEPS, FEW, refuse)
        with pytest.raises(MemberError, match=r"shape \(2, 8, 1\), expected \(2, 8, 3\)"):
            store.answers(Asked(), bundle, rows, STEPS, FEW, misshapen)
    assert files(store.folder) == []


@st.composite
def requests(draw: st.DrawFn) -> list[tuple[int, int, int, list[int]]]:
    """(member, state of the data, last row of the bundle, rows) of calls that follow one another."""
    found = []
    for _ in range(draw(st.integers(1, 6))):
        last = draw(st.sampled_from((150, 199)))
        rows = draw(st.lists(st.integers(50, last), min_size=1, max_size=12))
        found.append((draw(st.integers(0, 2)), draw(st.integers(0, 3)), last, rows))
    return found


@given(calls=requests(), limit=st.sampled_from((3, 8, 1000)))
@settings(max_examples=60)
def test_any_sequence_of_requests_is_answered_as_without_it(
    calls: list[tuple[int, int, int, list[int]]], limit: int
) -> None:
    members = [Asked("a"), Asked("b", ("spot", "drivers")), Asked("a", silent=(100, 101), identity="a:2")]
    states = [_SMALL, _revised(_SMALL, 120), _revised(_SMALL, 90, driver=0), _renamed(_SMALL)]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "MAX_ORIGINS", limit)
        patch.setattr(cache, "MAX_CLAIM", max(1, limit // 2))
        for who, state, last, rows in calls:
            today = states[state].until(states[state].instants[last])
            plain = members[who].forecast(today, today.instants[rows], STEPS, FEW)
            store = AnswerCache(Path(folder), {})
            same(kept(store, members[who], today, rows), plain)
            same(kept(store, members[who], today, rows[:1]), Answers(plain.quantiles[:1], _first(plain)))


def _first(answers: Answers) -> dict[int, str]:
    return {0: answers.reasons[0]} if 0 in answers.reasons else {}


def _revised(bundle: MarketBundle, row: int, driver: int | None = None) -> MarketBundle:
    """The bundle with one old observation changed by little."""
    values = (bundle.spot if driver is None else bundle.drivers).copy()
    values[row if driver is None else (row, driver)] *= 1.0001
    return replace(bundle, **{"spot" if driver is None else "drivers": values})


def _renamed(bundle: MarketBundle) -> MarketBundle:
    return replace(bundle, driver_names=("Tin", *bundle.driver_names[1:]))


_SMALL = synthetic_bundle(200, seed=8)


# ---- what changes an answer, and what does not -------------------------------------------------------------


def test_a_revision_asks_again_from_its_row_on(bundle: MarketBundle, store: AnswerCache) -> None:
    rows = list(range(300, 400, 10))
    member = Asked()
    before = kept(store, member, bundle, rows)
    member.rows.clear()
    after = kept(store, member, _revised(bundle, 340), rows)
    assert member.rows == [340, 350, 360, 370, 380, 390]
    same(after, member.forecast(_revised(bundle, 340), bundle.instants[rows], STEPS, FEW))
    assert not np.array_equal(after.quantiles[4:], before.quantiles[4:])
    member.rows.clear()
    same(kept(store, member, bundle, rows), before)
    assert member.rows == []


def test_rows_are_known_by_their_days_and_by_when_they_spoke(
    bundle: MarketBundle, store: AnswerCache
) -> None:
    member = Asked()
    kept(store, member, bundle, (300, 400))
    member.rows.clear()
    instants = bundle.instants.to_series().reset_index(drop=True)
    instants[350] += pd.Timedelta(hours=1)
    later = replace(bundle, instants=pd.DatetimeIndex(instants))
    same(
        kept(store, member, later, (300, 400)), member.forecast(later, later.instants[[300, 400]], STEPS, FEW)
    )
    assert member.rows[:-2] == [400]
    member.rows.clear()
    other_days = replace(bundle, dates=bundle.dates - pd.Timedelta(days=7))
    kept(store, member, other_days, (300,))
    assert member.rows == [300]
    shorter = replace(  # the first row is missing, and every other is one place further up
        bundle,
        **{
            name: getattr(bundle, name)[1:]
            for name in ("dates", "instants", "spot", "truth", "truth_known", "drivers")
        },
    )
    member.rows.clear()
    kept(store, member, shorter, (299, 399))
    assert member.rows == [299, 399]


def test_missing_values_and_zeros_have_one_form(bundle: MarketBundle, store: AnswerCache) -> None:
    def with_cells(empty: float, zero: float) -> MarketBundle:
        drivers = bundle.drivers.copy()
        drivers[10, 0], drivers[11, 0] = empty, zero
        return replace(bundle, drivers=drivers)

    other_nan = np.array([0x7FF8000000000001], dtype=np.uint64).view(np.float64)[0]
    member = Asked(columns=("spot", "drivers"))
    one, other = with_cells(np.nan, 0.0), with_cells(other_nan, -0.0)
    assert one.fingerprint == other.fingerprint
    kept(store, member, one, (300,))
    kept(store, member, other, (300,))
    assert member.rows == [300]


def test_a_member_of_the_spot_alone_does_not_mind_the_drivers(
    bundle: MarketBundle, store: AnswerCache
) -> None:
    of_spot, of_both = Asked("walk"), Asked("both", ("spot", "drivers"))
    rows = [300, 350, 400]
    for member in (of_spot, of_both):
        kept(store, member, bundle, rows)
        member.rows.clear()
        kept(store, member, _revised(bundle, 350, driver=1), rows)
    assert of_spot.rows == []
    assert of_both.rows == [350, 400]
    for other in (
        _renamed(bundle),
        replace(bundle, driver_units=("percent per year", *bundle.driver_units[1:])),
        replace(bundle, drivers=bundle.drivers[:, ::-1].copy(), driver_names=bundle.driver_names[::-1]),
        replace(bundle, drivers=bundle.drivers[:, :1].copy(), driver_names=("Copper",), driver_units=("x",)),
    ):
        for member in (of_spot, of_both):
            member.rows.clear()
            kept(store, member, other, rows)
        assert of_spot.rows == []
        assert of_both.rows == rows


def test_whatever_makes_an_answer_another_one_asks_again(
    bundle: MarketBundle, store: AnswerCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Heir(Asked):
        pass

    elsewhere = Asked()
    elsewhere.computed_by = "cuda:"  # type: ignore[attr-defined]
    newer = AnswerCache(store.folder, {"numpy": "2.0.1"})
    with monkeypatch.context() as patch:
        patch.setattr(cache, "MODEL_CODE", "other code")
        recoded = AnswerCache(store.folder, {"numpy": "2"})
    with monkeypatch.context() as patch:
        patch.setenv("OPENBLAS_CORETYPE", "Prescott")
        moved = AnswerCache(store.folder, {"numpy": "2"})
    peso = replace(bundle, pair=Pair("USD", "MXN"))
    kept(store, Asked(), bundle, (300,))
    calls: list[tuple[AnswerCache, Asked, MarketBundle, int, Levels]] = [
        (store, Asked(identity="asked:2"), bundle, STEPS, FEW),
        (store, Asked("other"), bundle, STEPS, FEW),
        (store, Asked(columns=("spot", "drivers")), bundle, STEPS, FEW),
        (store, elsewhere, bundle, STEPS, FEW),
        (store, Heir(), bundle, STEPS, FEW),
        (store, Asked(), peso, STEPS, FEW),
        (store, Asked(), bundle, STEPS + 1, FEW),
        (store, Asked(), bundle, STEPS, (0.1, 0.5, 0.95)),
        (newer, Asked(), bundle, STEPS, FEW),
        (recoded, Asked(), bundle, STEPS, FEW),
        (moved, Asked(), bundle, STEPS, FEW),
    ]
    for cache_, member, data, steps, levels in calls:
        kept(cache_, member, data, (300,), steps, levels)
        assert member.rows == [300]
        kept(cache_, member, data, (300,), steps, levels)
        assert member.rows == [300]
    unchanged = Asked()
    kept(AnswerCache(store.folder, {"numpy": "2"}), unchanged, bundle, (300,))
    assert unchanged.rows == []


def test_the_file_that_defines_a_member_counts_as_its_code(
    bundle: MarketBundle, store: AnswerCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "own_member.py"
    source.write_text("from forex_core.models.random_walk import RandomWalk\nclass Own(RandomWalk): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = import_module("own_member").Own()
    kept(store, own, bundle, (300,))
    assert store.holds(own, bundle, np.array([300]), STEPS, FEW)
    source.write_text(source.read_text() + "# mended\n")
    assert not store.holds(own, bundle, np.array([300]), STEPS, FEW)
    source.unlink()
    kept(store, own, bundle, (300,))  # no code to tell a change by: answered, not kept
    assert not store.holds(own, bundle, np.array([300]), STEPS, FEW)


def test_a_member_that_reads_what_no_key_covers_is_asked_every_time(
    bundle: MarketBundle, store: AnswerCache
) -> None:
    member = Asked(columns=("spot", "news"))
    kept(store, member, bundle, (300,))
    kept(store, member, bundle, (300,))
    assert member.rows == [300, 300]
    assert not store.folder.exists()


def test_the_code_of_every_model_counts(tmp_path: Path) -> None:
    copy = tmp_path / "forex_core"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    digests = {code_digest(copy)}
    assert digests == {cache.MODEL_CODE}
    for name in (
        "models/var_two.py",
        "models/random_walk.py",
        "models/features.py",
        "types.py",
        "calendars.py",
    ):
        path = copy / name
        path.write_text((path.read_text() if path.is_file() else "") + "\n# changed\n")
        digests.add(code_digest(copy))
    assert len(digests) == 6
    (copy / "engine.py").write_text("# no member reads it")
    assert code_digest(copy) in digests


@pytest.mark.parametrize("name", ON_DATA)
def test_members_read_the_columns_that_they_declare_and_no_others(name: str, bundle: MarketBundle) -> None:
    config = EngineConfig(members=tuple(dict.fromkeys(("random_walk", name))))
    member = build_members(config, ChronosConfig())[-1]
    import_libraries([member])
    blind = replace(
        bundle,
        truth=np.full(len(bundle), np.nan),
        truth_known=np.full(len(bundle), 10**6),
        as_of=pd.Timestamp("1999-01-01", tz="UTC"),
        sources=(),
        repairs=(),
    )
    if "drivers" not in member.columns:
        blind = replace(blind, drivers=np.empty((len(bundle), 0)), driver_names=(), driver_units=())
    asked = bundle.instants[[400, 619]]
    with threadpool_limits(1):
        same(
            member.forecast(blind, asked, PATH_STEPS, LEVELS),
            member.forecast(bundle, asked, PATH_STEPS, LEVELS),
        )


# ---- files that are not as they were written ---------------------------------------------------------------


def _written(folder: Path) -> tuple[AnswerCache, Path, Answers, list[int]]:
    store, rows = AnswerCache(folder, {}), [100, 110, 120, 130]
    plain = kept(store, Asked(silent=(110,)), _SMALL, rows)
    (path,) = files(folder)
    assert path.stat().st_size == len(rows) * RECORD
    return store, path, plain, rows


def _heals(store: AnswerCache, path: Path, plain: Answers, rows: list[int]) -> int:
    """Answers are right whatever lies there, and afterwards all of them are kept; returns how many were asked."""
    member = Asked(silent=(110,))
    same(kept(store, member, _SMALL, rows), plain)
    asked = len(member.rows)
    same(kept(AnswerCache(store.folder, {}), member, _SMALL, rows), plain)
    assert len(member.rows) == asked
    assert path.stat().st_size == len(rows) * RECORD
    return asked


@given(cut=st.integers(0, 4 * RECORD - 1))
@settings(max_examples=40)
def test_a_file_that_is_cut_short_costs_what_it_lacks(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, path, plain, rows = _written(Path(folder))
        os.truncate(path, cut)
        assert _heals(store, path, plain, rows) == 4 - cut // RECORD


@given(bit=st.integers(0, 8 * 4 * RECORD - 1))
@settings(max_examples=60)
def test_one_wrong_bit_costs_one_answer(bit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, path, plain, rows = _written(Path(folder))
        content = bytearray(path.read_bytes())
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        assert _heals(store, path, plain, rows) == 1


@given(content=st.binary(max_size=3 * RECORD), at=st.integers(0, 4 * RECORD))
@settings(max_examples=40)
def test_anything_may_lie_in_the_middle_of_a_file(content: bytes, at: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, path, plain, rows = _written(Path(folder))
        whole = path.read_bytes()
        path.write_bytes(whole[:at] + content + whole[at:])
        _heals(store, path, plain, rows)


def test_a_foreign_file_is_replaced_with_one_warning(tmp_path: Path, said: list[str]) -> None:
    store, path, plain, rows = _written(tmp_path)
    other = AnswerCache(tmp_path / "other", {})
    kept(other, Asked(), _SMALL, rows, STEPS + 1)
    foreign: dict[str, tuple[bytes, int]] = {
        "text": (b"a,b\n1,2\n" * 1000, 1),
        "empty": (b"", 0),
        "zeros": (bytes(4 * RECORD), 0),
        "another shape": (files(other.folder)[0].read_bytes(), 1),
        "huge": (bytes(1001 * RECORD), 1),
    }
    for what, (content, warnings) in foreign.items():
        path.write_bytes(content)
        said.clear()
        assert _heals(store, path, plain, rows) == 4, what
        assert len(said) == warnings, (what, said)


def test_answers_of_another_file_are_not_mistaken(tmp_path: Path) -> None:
    """A file under another's name: sound, of the same shape, and never asked for."""
    store, path, plain, rows = _written(tmp_path)
    kept(store, Asked(identity="other"), _SMALL, rows)
    (other,) = set(files(tmp_path)) - {path}
    shutil.copyfile(other, path)
    member = Asked(silent=(110,))
    same(kept(store, member, _SMALL, rows), plain)
    assert member.rows == rows


# ---- where nothing can be written --------------------------------------------------------------------------


def test_a_file_in_the_way_of_the_folder_costs_time_and_one_warning(
    bundle: MarketBundle, tmp_path: Path, said: list[str]
) -> None:
    (tmp_path / "members").write_text("in the way")
    store = AnswerCache(tmp_path / "members", {})
    for name in ("one", "two"):
        for _ in range(2):
            member = Asked(name)
            same(kept(store, member, bundle, (300, 400)), _plain(member, bundle, (300, 400)))
            assert member.rows == [300, 400] * 2
    assert len(said) == 1
    assert "cannot be kept" in said[0]
    assert (tmp_path / "members").read_text() == "in the way"


def test_a_folder_in_the_way_of_a_file(tmp_path: Path, said: list[str]) -> None:
    store, path, plain, rows = _written(tmp_path)
    path.unlink()
    path.mkdir()
    same(kept(store, Asked(silent=(110,)), _SMALL, rows), plain)
    assert any("cannot be kept" in line for line in said)
    assert files(tmp_path, "*/*.tmp") == []


_READ_ONLY = """
import os, sys
from pathlib import Path
import numpy as np
from loguru import logger
from forex_core.cache import AnswerCache
from forex_core.models.random_walk import RandomWalk
from forex_core.testing import synthetic_bundle

bundle, member, asked_for = synthetic_bundle(150), RandomWalk(), []
def ask(asked):
    asked_for.extend(asked.tolist())
    return member.forecast(bundle, bundle.instants[asked], 8, (0.1, 0.5, 0.9))
def answers(rows):
    return AnswerCache(folder, {}).answers(member, bundle, np.array(rows), 8, (0.1, 0.5, 0.9), ask)

folder, said = Path(sys.argv[1]), []
logger.remove()
logger.add(lambda message: said.append(str(message)), level="WARNING", format="{message}")
answers([100, 110])
for path in (*folder.rglob("*"), folder):
    path.chmod(0o555 if path.is_dir() else 0o444)
if os.geteuid() == 0:
    os.seteuid(65534)  # root may write anywhere
found = answers([100, 110]).quantiles
assert asked_for == [100, 110] and not said
assert found.tobytes() == ask(np.array([100, 110])).quantiles.tobytes()
answers([110, 120])
assert asked_for[4:] == [120]
assert len(said) == 1 and "Permission denied" in said[0], said
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions")
def test_a_folder_that_may_not_be_written_is_still_read() -> None:
    with tempfile.TemporaryDirectory() as parent:  # pytest's own are closed to other users
        folder = Path(parent) / "members"
        folder.mkdir()
        Path(parent).chmod(0o755)
        try:
            _python(_READ_ONLY, folder).check_returncode()
        finally:
            for path in (folder, *folder.glob("*/")):
                path.chmod(0o755)


def _plain(member: Asked, bundle: MarketBundle, rows: Sequence[int]) -> Answers:
    return member.forecast(bundle, bundle.instants[list(rows)], STEPS, FEW)


_FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from loguru import logger
from forex_core.cache import AnswerCache
from forex_core.models.random_walk import RandomWalk
from forex_core.testing import synthetic_bundle

said = []
logger.remove()
logger.add(lambda message: said.append(str(message)), level="WARNING", format="{message}")
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))  # as a disk with so much left
bundle, store, member = synthetic_bundle(150), AnswerCache(Path(sys.argv[1]), {}), RandomWalk()
rows = np.arange(80, 120)
ask = lambda asked: member.forecast(bundle, bundle.instants[asked], 8, (0.1, 0.5, 0.9))
for _ in range(2):
    found = store.answers(member, bundle, rows, 8, (0.1, 0.5, 0.9), ask)
    assert found.quantiles.tobytes() == ask(rows).quantiles.tobytes()
assert len(said) == 1 and "File too large" in said[0], said
assert not [*Path(sys.argv[1]).glob("*/*")]
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of a file")
def test_a_full_disk_costs_time_and_one_warning(tmp_path: Path) -> None:
    _python(_FULL_DISK, tmp_path / "members").check_returncode()


# ---- two at once -------------------------------------------------------------------------------------------

_WRITER = """
import sys
from pathlib import Path
import numpy as np
from forex_core import cache
from forex_core.cache import AnswerCache
from forex_core.models.random_walk import RandomWalk
from forex_core.testing import synthetic_bundle

cache._LOCK_SECONDS = 60  # on a busy machine too, nothing may be given up
folder, first = Path(sys.argv[1]), int(sys.argv[2])
bundle, store, member = synthetic_bundle(400), AnswerCache(folder, {}), RandomWalk()
ask = lambda asked: member.forecast(bundle, bundle.instants[asked], 64, (0.1, 0.5, 0.9))
(folder / f"ready-{first}").touch()
while len([*folder.glob("ready-*")]) < 2:
    pass
for row in range(first, 400, 2):
    rows = np.array([row - 1, row])
    found = store.answers(member, bundle, rows, 64, (0.1, 0.5, 0.9), ask)
    assert found.quantiles.tobytes() == ask(rows).quantiles.tobytes()
"""


def test_two_processes_at_once_keep_what_both_computed(tmp_path: Path) -> None:
    tmp_path.joinpath("members").mkdir()
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path / "members"), str(first)])
        for first in (101, 102)
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    bundle, store, member = synthetic_bundle(400), AnswerCache(tmp_path / "members", {}), RandomWalk()
    rows = np.arange(100, 400)
    assert store.holds(member, bundle, rows, 64, FEW)
    same(kept(store, member, bundle, rows, 64), member.forecast(bundle, bundle.instants[rows], 64, FEW))
    assert files(store.folder, "*/*.tmp") == []


def test_a_lock_that_cannot_be_had_costs_the_write(
    bundle: MarketBundle, store: AnswerCache, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    from filelock import FileLock

    monkeypatch.setattr(cache, "_LOCK_SECONDS", 0.1)
    store.folder.mkdir(parents=True)
    member = Asked()
    with FileLock(store.folder / ".lock"):
        same(kept(store, member, bundle, (300,)), _plain(Asked(), bundle, (300,)))
    assert not store.holds(member, bundle, np.array([300]), STEPS, FEW)
    kept(store, member, bundle, (300,))  # the next one is written
    assert store.holds(member, bundle, np.array([300]), STEPS, FEW)
    assert said == []


def _python(code: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=False, timeout=120)


# ---- bounds ------------------------------------------------------------------------------------------------


def test_a_long_evaluation_leaves_the_daily_grid_alone(
    store: AnswerCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = synthetic_bundle(1800, seed=1)
    member = Asked()
    daily, old = np.arange(520, 1800, 5), np.arange(100, 1300)
    kept(store, member, bundle, daily)
    kept(store, member, bundle, old)
    (path,) = files(store.folder)
    assert path.stat().st_size == cache.MAX_ORIGINS * RECORD
    assert store.holds(member, bundle, daily, STEPS, FEW)
    asked = store.holds(member, bundle, old[-cache.MAX_CLAIM :], STEPS, FEW)
    assert asked
    assert not store.holds(member, bundle, old, STEPS, FEW)


def test_a_file_keeps_what_was_asked_for_last(
    bundle: MarketBundle, store: AnswerCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MAX_ORIGINS", 10)
    monkeypatch.setattr(cache, "MAX_CLAIM", 7)
    member = Asked()
    for first in range(300, 340):
        kept(store, member, bundle, (first, first + 1, first + 2))
    (path,) = files(store.folder)
    assert path.stat().st_size == 10 * RECORD
    assert store.holds(member, bundle, np.arange(332, 342), STEPS, FEW)
    assert len(member.rows) == 42


def test_files_whose_use_is_longest_ago_make_room(bundle: MarketBundle, tmp_path: Path) -> None:
    store = AnswerCache(tmp_path, {}, max_bytes=3 * RECORD)
    members = [Asked(name) for name in "abcd"]
    names = []
    for age, member in enumerate(members[:3]):
        kept(store, member, bundle, (300,))
        (new,) = set(files(tmp_path)) - set(names)
        names.append(new)
        os.utime(new, (1000 + age, 1000 + age))
    kept(store, members[0], bundle, (300,))  # used, so that the second is now the one that goes
    kept(store, members[3], bundle, (300,))
    left = {member.name for member in members if store.holds(member, bundle, np.array([300]), STEPS, FEW)}
    assert left == {"a", "c", "d"}
    kept(store, members[2], bundle, (300, 310, 320, 330))
    assert files(tmp_path) == []  # more than there is room for at all


def test_what_a_killed_run_left_is_cleared_away(bundle: MarketBundle, tmp_path: Path) -> None:
    store = AnswerCache(tmp_path, {})
    kept(store, Asked(), bundle, (300,))
    folder = files(tmp_path)[0].parent
    left, fresh, foreign = folder / "asked-1.tmp", folder / "asked-2.tmp", folder / "notes.txt"
    for path in (left, fresh, foreign):
        path.write_bytes(b"half")
    for path in (left, foreign):
        os.utime(path, (time.time() - 7200,) * 2)
    kept(store, Asked(), bundle, (310,))
    assert [path.is_file() for path in (left, fresh, foreign)] == [False, True, True]


def test_eight_members_are_looked_up_in_a_moment(tmp_path: Path) -> None:
    """261 origins of eight members in .15 s of processor, the best of five."""
    bundle = bundle_of(synthetic_table(4000, seed=2, start="2005-01-03"))
    store = AnswerCache(tmp_path, {})
    members = [Asked(name, ("spot", "drivers")) for name in "abcdefgh"]
    rows = np.append(np.arange(2700, 3999, 5), 3999)
    for member in members:
        kept(store, member, bundle, rows, PATH_STEPS, LEVELS)
        member.rows.clear()
    spent = []
    for _ in range(5):
        started = time.process_time()
        for member in members:
            kept(store, member, bundle, rows, PATH_STEPS, LEVELS)
        spent.append(time.process_time() - started)
    assert not any(member.rows for member in members)
    assert min(spent) < 0.15


# ---- in the engine -----------------------------------------------------------------------------------------


def same_numbers(one: ForecastRun, other: ForecastRun) -> None:
    """Everything that is published, but how long it took."""
    np.testing.assert_array_equal(one.forecast.quantiles, other.forecast.quantiles)
    np.testing.assert_array_equal(one.band_factors, other.band_factors)
    for name in (
        "verdict",
        "evaluation",
        "weights",
        "failures",
        "fingerprint",
        "recipe",
        "settings",
        "libraries",
    ):
        assert getattr(one, name) == getattr(other, name), name
    for mine, theirs in zip(one.members, other.members, strict=True):
        assert (mine.name, mine.weight) == (theirs.name, theirs.weight)
        np.testing.assert_array_equal(mine.raw, theirs.raw)
        np.testing.assert_array_equal(mine.calibrated, theirs.calibrated)


def test_a_forecast_is_the_same_without_with_and_from_the_cache(tmp_path: Path) -> None:
    bundle = bundle_of(synthetic_table(760, seed=5))
    members = build_members(LIGHT, ChronosConfig())
    plain = Engine(LIGHT, members).forecast(bundle, HORIZONS[2])
    for _ in range(2):
        store = AnswerCache(tmp_path, library_versions())
        same_numbers(Engine(LIGHT, members, cache=store).forecast(bundle, HORIZONS[2]), plain)
    assert len(files(tmp_path)) == 3


def test_the_next_day_computes_its_own_origin_and_no_other(tmp_path: Path) -> None:
    whole = synthetic_bundle(760, seed=5)
    asked, store = Asked(columns=("spot", "drivers")), AnswerCache(tmp_path, library_versions())
    cached = Engine(LIGHT, [RandomWalk(), DriverRegression(), asked], cache=store)
    plain = Engine(LIGHT, [RandomWalk(), DriverRegression(), Asked(columns=("spot", "drivers"))])
    counts = []
    for row in range(740, 747):
        today = whole.until(whole.instants[row])
        asked.rows.clear()
        run = cached.forecast(today, HORIZONS[0])
        counts.append(len(asked.rows))
        assert asked.rows[-1] == row
        same_numbers(run, plain.forecast(today, HORIZONS[0]))
    assert counts[0] > 60
    assert counts[1:] == [1] * 6


def test_an_evaluation_and_a_forecast_share_their_origins(tmp_path: Path) -> None:
    bundle = synthetic_bundle(760, seed=5)
    asked, store = Asked(), AnswerCache(tmp_path, library_versions())
    cached = Engine(LIGHT, [RandomWalk(), DriverRegression(), asked], cache=store)
    cached.forecast(bundle, HORIZONS[0])
    asked.rows.clear()
    found = cached.evaluate(bundle, HORIZONS[1])
    assert asked.rows == []
    plain = Engine(LIGHT, [RandomWalk(), DriverRegression(), Asked()])
    assert found == plain.evaluate(bundle, HORIZONS[1])


def test_a_member_that_failed_fails_for_the_same_reason_from_the_cache(tmp_path: Path) -> None:
    bundle = synthetic_bundle(760, seed=5)
    silent = Asked(silent=range(500, 600), columns=("spot",))
    members = [RandomWalk(), DriverRegression(), *build_members(LIGHT, ChronosConfig())[1:2], silent]
    runs = [
        Engine(LIGHT, members, cache=AnswerCache(tmp_path, {})).forecast(bundle, HORIZONS[0])
        for _ in range(2)
    ]
    assert "out to lunch" in runs[0].failures["asked"]
    same_numbers(*runs)


_WARM = """
import sys
from pathlib import Path
from forex_core.cache import AnswerCache
from forex_core.config import ChronosConfig, EngineConfig
from forex_core.engine import Engine, build_members, library_versions
from forex_core.testing import synthetic_bundle
from forex_core.types import HORIZONS

config = EngineConfig.model_validate_json(sys.argv[2])
store = AnswerCache(Path(sys.argv[1]), library_versions())
engine, bundle = Engine(config, build_members(config, ChronosConfig()), cache=store), synthetic_bundle(760, seed=5)
engine.prepare(bundle)
engine.forecast(bundle, HORIZONS[0])
assert "statsmodels" not in sys.modules
engine.forecast(bundle.until(bundle.instants[-2]), HORIZONS[0])
assert "statsmodels" in sys.modules
"""


def test_where_all_is_kept_no_numerical_library_is_imported(tmp_path: Path) -> None:
    store = AnswerCache(tmp_path, library_versions())
    Engine(LIGHT, build_members(LIGHT, ChronosConfig()), cache=store).forecast(
        synthetic_bundle(760, seed=5), HORIZONS[0]
    )
    _python(_WARM, tmp_path, LIGHT.model_dump_json()).check_returncode()


def test_a_deployment_keeps_answers_below_its_data_folder_unless_told_not_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = synthetic_bundle(760, seed=5)
    build_engine(Settings(engine=LIGHT, cache=False)).forecast(bundle, HORIZONS[0])
    assert not (tmp_path / "data").exists()
    on = build_engine(Settings(engine=LIGHT))
    on.forecast(bundle, HORIZONS[0])
    assert len(files(tmp_path / "data" / "cache" / "members", "usdclp/*.answers")) == 3
    monkeypatch.setenv("FOREX_CACHE", "false")
    off = build_engine(Settings(engine=LIGHT))
    assert off._cache is None
    assert off.recipe == on.recipe


def test_four_horizons_of_one_pass_judge_their_skill_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = synthetic_bundle(760, seed=5)
    speaker = Engine(LIGHT, build_members(LIGHT, ChronosConfig()))
    expected = [speaker.forecast(bundle, h).verdict for h in HORIZONS]
    paths = speaker.paths(bundle, speaker.rows_behind(bundle))
    calls: list[int] = []
    real = paths_module.score

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        return real(*arguments, **named)

    monkeypatch.setattr(paths_module, "score", counted)
    assert [paths.run(h).verdict for h in HORIZONS] == expected
    models = len(LIGHT.members) + 1
    assert len(calls) == 4 * models + 4
