"""NAS-Bench-Macro's table: its networks, their counts, and the fixed split."""

import numpy as np
import pytest

from benchmarks import macro_truth


def test_a_missing_table_is_explained(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="Name its folder by --data or in the"):
        macro_truth.load(tmp_path)
    monkeypatch.delenv("ONESHOT_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="nas_bench_macro.npz is no file"):
        macro_truth.load()


def test_a_table_without_a_network_is_refused(tmp_path):
    archs = np.zeros((1, 8), np.uint8)
    np.savez(tmp_path / macro_truth.FILE, arch=archs)
    with pytest.raises(ValueError, match="but 3968 of the space are not among them"):
        macro_truth.load(tmp_path)


@pytest.fixture(scope="module")
def found(data_dir):
    if not (data_dir / macro_truth.FILE).is_file():
        pytest.skip(f"{data_dir} holds no {macro_truth.FILE}")
    return macro_truth.load(data_dir)


def test_rows_are_those_of_the_canonical_codes(found, data_dir):
    assert found.archs.shape == (3969, 8) and found.seeds.shape == (3, 3969)
    with np.load(data_dir / macro_truth.FILE) as table:
        codes = table["arch"] @ 3 ** np.arange(8)[::-1]
        rows = np.argsort(codes)[found.archs @ 3 ** np.arange(8)[::-1]]
        np.testing.assert_array_equal(table["arch"][rows], found.archs)
        np.testing.assert_array_equal(table["test_acc"][rows].T, found.seeds)
        np.testing.assert_array_equal(table["params"][rows], found.params)
        np.testing.assert_array_equal(table["flops"][rows], found.macs)
    best = int(found.truth.argmax())
    assert "".join(map(str, found.archs[best])) == "22212220"
    assert found.truth[best] == pytest.approx(93.13, abs=0.01)


def test_identities_come_last_and_blocks_are_counted(found):
    for i in (3, 6):
        assert not ((found.archs[:, i] == 0) & (found.archs[:, i + 1] > 0)).any()
    for where, counts in zip(
        ((0, 1), (2, 3, 4), (5, 6, 7)), found.strata.T, strict=True
    ):
        np.testing.assert_array_equal(sum(found.archs[:, i] > 0 for i in where), counts)
    np.testing.assert_array_equal((found.archs > 0).sum(1), found.depth)


def test_the_split_is_fixed(found):
    assert len(found.choosing) == 1000 and len(found.reporting) == 2969
    both = np.sort(np.concatenate([found.choosing, found.reporting]))
    np.testing.assert_array_equal(both, np.arange(3969))
    # By numpy's permutation of seed 0; a change makes reported numbers incomparable.
    assert found.choosing[:5].tolist() == [4, 11, 12, 13, 14]


def test_the_split_is_ranked(found):
    ranked = found.rank(found.macs[found.choosing], found.choosing, "by seed 0")
    assert ranked.overall.n == 1000 and ranked.pairs_within > 1000
    assert ranked.overall.ceiling == pytest.approx(0.895, abs=0.01)
    assert "by seed 0" in ranked.words()
