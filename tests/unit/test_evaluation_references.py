"""Scores and tests against figures that others published or computed, and against closed forms."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from scipy.fft import dct
from scipy.special import ndtri
from scipy.stats import kstest, t

from forex_core.evaluation import Judged, crps, diebold_mariano, equal_weighted_cosine, score
from forex_core.types import LEVELS, Array

# ---- scores ------------------------------------------------------------------------------------------------


def example() -> Judged:
    """Sixty one-step forecasts without chance: normal around a median that misses part of two waves."""
    n = np.arange(60)
    truth = 700 + 9 * np.sin(0.7 * n) + 5 * np.cos(1.9 * n) + 0.31 * n
    median = 700 + 7 * np.sin(0.7 * n) + 3 * np.cos(1.9 * n) + 0.31 * n
    spread = 1.5 + 0.5 * np.sin(0.3 * n)
    quantiles = median[:, None] + spread[:, None] * ndtri(np.array(LEVELS))
    return Judged(quantiles[:, None, :], truth[:, None], np.full(60, 700.0), LEVELS)


def test_scores_are_those_of_utilsforecast() -> None:
    """Figures of utilsforecast 0.2.17 (numpy 2.4.6, pandas 3.1.1) on `example`.

    With a frame of columns unique_id, ds, y (truth), m (median), q{level} and m-lo-80, m-hi-80, m-lo-95, m-hi-95:

        rmse(frame, ["m"]), mae(frame, ["m"]), mape(frame, ["m"]), coverage(frame, ["m"], 80)
        quantile_loss(frame, {"m": "q0.9"}, q=0.9)
        deciles = [0.1, …, 0.9]
        mqloss(frame, {"m": [f"q{a}" for a in deciles]}, quantiles=np.array(deciles))
    """
    model = example()
    scores = score(model, model, 5)
    assert scores.rmse == pytest.approx(1.9797438176057294, rel=1e-12)
    assert scores.mae == pytest.approx(1.6107935807037221, rel=1e-12)
    assert scores.mape_pct == pytest.approx(0.22698400068551275, rel=1e-12)
    assert scores.coverage_80 == pytest.approx(35 / 60)
    assert scores.coverage_95 == pytest.approx(50 / 60)

    def of(levels: list[float]) -> float:
        at = [LEVELS.index(level) for level in levels]
        return float(crps(model.quantiles[:, 0][:, at], model.truth[:, 0], levels).mean())

    # Of one level alone the weight is (1 - 0)/2, so twice its pinball loss counts once.
    assert of([0.025]) == pytest.approx(0.12478560676146412, rel=1e-12)
    assert of([0.5]) == pytest.approx(0.8053967903518611, rel=1e-12)
    assert of([0.9]) == pytest.approx(0.3985739301448154, rel=1e-12)
    # Of the nine deciles each weighs a tenth: 2 · .9 times their mean pinball loss.
    assert of([round(0.1 * k, 1) for k in range(1, 10)]) == pytest.approx(1.8 * 0.6422499610586242, rel=1e-12)


# ---- Diebold and Mariano, with the correction of Harvey, Leybourne and Newbold -----------------------------------


def two_sided(stat: float, one_sided: float) -> float:
    return 2 * (one_sided if stat > 0 else 1 - one_sided)


def shuffled_as_by_python_2(source: random.Random, count: int) -> Array:
    """What `random.sample(range(count), count)` gave under Python 2; under 3 the same seed gives another order."""
    pool, out = list(range(count)), []
    for left in range(count, 0, -1):
        chosen = int(source.random() * left)
        out.append(pool[chosen])
        pool[chosen] = pool[left - 1]
    return np.array(out, dtype=np.float64)


@pytest.mark.parametrize(
    ("loss", "stat", "pvalue"),
    [
        (np.abs, 1.3275742446369585, 0.18737195617455585),
        (np.square, 1.2112523589452902, 0.22868210381769466),
        (lambda e: e**4, 0.9124498079287283, 0.36374861695187799),
    ],
    ids=["absolute", "squared", "fourth power"],
)
def test_the_example_of_tsang(loss: Callable[[Array], Array], stat: float, pvalue: float) -> None:
    """Output printed in the README of github.com/johntwk/Diebold-Mariano-Test (J. Tsang 2017), one step ahead.

    Its script seeds `random` with 123 and draws three orders of 0 to 99: truth, first and second forecast.
    """
    source = random.Random(123)
    truth, first, second = (shuffled_as_by_python_2(source, 100) for _ in range(3))
    found = diebold_mariano(loss(truth - first) - loss(truth - second), 1)
    assert found is not None
    assert found.stat == pytest.approx(stat, rel=1e-12)
    assert two_sided(found.stat, found.pvalue) == pytest.approx(pvalue, rel=1e-12)


def test_the_example_of_six_whole_numbers() -> None:
    """Published to five places with the package dieboldmariano 1.1.0 (E. Annunziata), squared errors, one step.

    By hand: d = 0, -3, -5, 0, -9, -11, d̄ = -14/3, γ0 = 158/9, and t = d̄/√(γ0/6) · √(5/6) = -14/√(158/5).
    """
    first, second = np.array([0.0, 1, 2, 3, 4, 5]), np.array([0.0, 2, 3, 3, 5, 6])
    found = diebold_mariano(first**2 - second**2, 1)
    assert found is not None
    assert found.stat == pytest.approx(-14 / math.sqrt(158 / 5), rel=1e-12)
    assert found.stat == pytest.approx(-2.4905, abs=5e-5)
    assert two_sided(found.stat, found.pvalue) == pytest.approx(0.05513, abs=5e-6)


def test_the_example_of_three_steps_ahead() -> None:
    """Published to four places with the package dieboldmariano 1.1.0, absolute errors, h = 3: 1.2109 and .877."""
    first = [
        *(
            0.3675225224615024,
            0.5450608127223211,
            0.22044990720021074,
            0.8688743471040006,
            0.6072512228948467,
        ),
        *(
            0.8582283746501538,
            0.41662295816718187,
            0.3812100211114714,
            0.7185133356116706,
            0.30827323290318875,
        ),
        *(
            0.4297093624074402,
            0.8615974488577858,
            0.7240514514808826,
            0.3450839595261038,
            0.19675301374013598,
        ),
    ]
    second = [
        *(
            0.12794132529988733,
            0.3679643204341153,
            0.768715420996091,
            0.09972248964114683,
            0.27197653636654284,
        ),
        *(
            0.28797629010039505,
            0.9160213458582482,
            0.6112628048698798,
            0.5452873235576241,
            0.06785907231746158,
        ),
        *(
            0.6072666485541124,
            0.6241575753989782,
            0.39998026828867217,
            0.19895665605941748,
            0.8094941215215619,
        ),
    ]
    found = diebold_mariano(np.array(first) - np.array(second), 3)
    assert found is not None
    assert found.stat == pytest.approx(1.2109, abs=5e-5)
    assert 1 - found.pvalue == pytest.approx(0.877, abs=5e-5)  # theirs asks whether the second is the worse


# ---- the equal-weighted cosine test ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "steps", "degrees"),
    [(208, 5, 14), (208, 21, 14), (208, 64, 8), (260, 5, 16), (260, 64, 10), (330, 64, 12), (60, 64, 4)],
)
def test_the_cosine_test_is_a_discrete_cosine_transform(n: int, steps: int, degrees: int) -> None:
    """Λ_j is coefficient j of the orthonormal type-II transform; p from the t distribution of scipy.stats."""
    d = np.random.default_rng(n).normal(0.1, 1, n)
    projections = dct(d, type=2, norm="ortho")[1 : degrees + 1]
    stat = d.mean() / math.sqrt((projections**2).mean() / n)
    found = equal_weighted_cosine(d, steps, 5)
    assert found.stat == pytest.approx(stat, rel=1e-10)
    assert found.pvalue == pytest.approx(float(t.sf(stat, degrees)), rel=1e-9)


@pytest.mark.parametrize(
    ("n", "steps", "degrees", "critical"),
    [(208, 64, 8, 1.860), (260, 64, 10, 1.812), (330, 64, 12, 1.782), (60, 64, 4, 2.132)],
)
def test_one_wave_around_a_mean_has_its_statistic_in_closed_form(
    n: int, steps: int, degrees: int, critical: float
) -> None:
    """d_t = c + a cos(πj(t - ½)/n) has Λ_j² = a² n/2 and no other: t = c √(2ν)/a.

    The critical values are the one-sided 5 % points of any printed table of Student's t.
    """
    wave = np.cos(np.pi * 3 * (np.arange(1, n + 1) - 0.5) / n)
    found = equal_weighted_cosine(0.7 + 2 * wave, steps, 5)
    assert found.stat == pytest.approx(0.7 * math.sqrt(2 * degrees) / 2, rel=1e-10)
    at_five = equal_weighted_cosine(critical / math.sqrt(2 * degrees) + wave, steps, 5)
    assert at_five.stat == pytest.approx(critical, rel=1e-10)
    assert at_five.pvalue == pytest.approx(0.05, abs=5e-5)


@pytest.mark.parametrize(("steps", "degrees"), [(5, 14), (64, 8)])
def test_on_normal_noise_the_statistic_has_student_s_distribution(steps: int, degrees: int) -> None:
    """Exactly, not in the limit: mean and projections of independent normals are independent normals."""
    noise = np.random.default_rng(7).standard_normal((3000, 208))
    found = [equal_weighted_cosine(d, steps, 5) for d in noise]
    assert kstest([test.stat for test in found], t(degrees).cdf).pvalue > 0.01
    assert kstest([test.pvalue for test in found], "uniform").pvalue > 0.01
