"""Agreement of judges: shares over what both decide, statsmodels' kappa, intervals over problems."""

import numpy as np
import pandas as pd
import pytest

from reflectevo_lite.curate import agreement
from reflectevo_lite.curate.agreement import kappa


def test_agreement_counts_only_pairs_that_both_decide():
    verdicts = {"x": [1.0, 2.0, -1.0, 0.0, -3.0, 1.0], "y": [5.0, -1.0, -1.0, 1.0, 0.0, 1.0]}
    row = agreement(verdicts, list("aabbcc"), resamples=200).iloc[0]
    assert (row["judge"], row["other"], row["pairs"], row["both decide"]) == ("x", "y", 6, 4)
    assert (row["decides"], row["other decides"], row["agree"]) == pytest.approx((5 / 6, 5 / 6, 3 / 4))


def test_kappa_is_that_of_statsmodels():
    from statsmodels.stats.inter_rater import cohens_kappa

    for table in ([20, 5, 10, 15], [1, 0, 2, 7], [40, 3, 9, 1]):
        wanted = cohens_kappa(np.array(table).reshape(2, 2)).kappa
        assert kappa(np.array([table], float))[0] == pytest.approx(wanted)


def test_kappas_interval_resamples_problems_not_pairs():
    rng = np.random.default_rng(0)
    x = rng.choice([1.0, -1.0], 60)
    verdicts = {"x": np.repeat(x, 20), "y": np.repeat(np.where(rng.random(60) < 0.8, x, -x), 20)}
    whole = agreement(verdicts, np.repeat(np.arange(60), 20)).iloc[0]
    single = agreement(verdicts, np.arange(1200)).iloc[0]
    assert whole["low"] < whole["kappa"] < whole["high"]
    assert (whole["high"] - whole["low"]) / (single["high"] - single["low"]) == pytest.approx(20**0.5, rel=0.15)


@pytest.mark.parametrize(
    "verdicts", [{}, {"x": []}, {"x": [], "y": []}, {"x": [0.0], "y": [1.0]}, {"x": [1.0], "y": [1.0]}]
)
def test_agreement_of_next_to_nothing_is_no_error(verdicts):
    table = agreement(verdicts, ["p"] * len(verdicts.get("y", [])))
    assert isinstance(table, pd.DataFrame) and len(table) == (len(verdicts) == 2)
    assert table["kappa"].isna().all()
