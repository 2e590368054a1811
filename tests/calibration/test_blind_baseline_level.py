"""How often random splits are said to be told apart without the model."""

import numpy as np
import pytest
from scipy import stats

from dpaudit.blind_baseline import blind_baseline
from tests.unit.test_blind_baseline import halves, records

SPLITS = 150


@pytest.mark.slow
def test_random_splits_are_told_apart_no_more_often_than_the_level(capsys):
    p_values = np.array([blind_baseline(records(240, halves(240, i), i)).p_value for i in range(SPLITS)])
    for level in (0.01, 0.05, 0.2):
        alarms = int((p_values <= level).sum())
        with capsys.disabled():
            print(f"\nblind baseline at {level:g}: {alarms} alarms in {SPLITS} random splits", end="")
        assert stats.binomtest(alarms, SPLITS, level).pvalue > 1e-3
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3
