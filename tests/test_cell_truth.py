"""NAS-Bench-201's table: its distinct cells, and what ranks them for free."""

import numpy as np
import pytest

from benchmarks import cell_truth
from oneshot.correlations import kendall_tau


def test_a_missing_table_is_explained(tmp_path):
    with pytest.raises(ValueError, match="NAS-Bench-201's accuracies are read from"):
        cell_truth.load(tmp_path)


@pytest.fixture(scope="module")
def found(data_dir):
    if not (data_dir / cell_truth.FILE).is_file():
        pytest.skip(f"{data_dir} holds no {cell_truth.FILE}")
    return cell_truth.load(data_dir)


def test_rows_are_those_of_the_distinct_cells(found, data_dir):
    assert found.archs.shape == (5224, 6) and found.seeds.shape == (1, 5224)
    with np.load(data_dir / cell_truth.FILE) as table:
        codes = table["arch"] @ 5 ** np.arange(6)[::-1]
        rows = np.argsort(codes)[found.archs @ 5 ** np.arange(6)[::-1]]
        np.testing.assert_array_equal(table["arch"][rows], found.archs)
        np.testing.assert_array_equal(table["macs"][rows], found.macs)
    # Published: the best of the table is 94.37.
    assert found.truth.max() == pytest.approx(94.37, abs=0.01)


def test_what_is_free_is_not_worthless(found):
    assert 0.4 < kendall_tau(found.macs, found.truth) < 0.7
    assert len(found.choosing) == 1000 and len(found.reporting) == 4224
