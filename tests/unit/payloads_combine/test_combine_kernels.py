import numpy as np
import pytest

from payloads.combine.kernels import combine_clipped
from payloads.combine.stack import ImageStack
from payloads.isr.inputs import layout_of
from rapid.camera.store import load_camera


def combine(values, noise):
    n = values.shape[1]
    mean, variance = np.empty(n, np.float32), np.empty(n, np.float32)
    counts = np.empty(n, np.int32)
    combine_clipped(np.ascontiguousarray(values, dtype=np.float32), noise, mean, variance, counts)
    return mean, variance, counts


def combine_slowly(values, noise):
    """Clip as the docstring says, one pixel at a time."""
    results = []
    for column in values.T:
        kept = np.sort(column[np.isfinite(column)].astype(float))
        if not len(kept):
            results.append((np.nan, 0))
            continue
        centre, sigma, everything = np.median(kept), noise, kept
        if len(kept) >= 4:
            sigma = max(noise, 0.74 * float(np.subtract(*np.percentile(kept, [75, 25]))))
        for _ in range(3):
            kept = everything[np.abs(everything - centre) <= 3 * sigma]
            if not len(kept):
                kept = everything[:1]
                centre = kept[0]
                break
            centre = kept.mean()
            sigma = max(noise, kept.std(ddof=1) if len(kept) > 1 else 0.0)
        results.append((centre, len(kept)))
    return np.array(results).T


@pytest.mark.parametrize("n_exposures", [1, 2, 3, 4, 5, 11, 20])
def test_agrees_with_a_plain_loop(n_exposures):
    rng = np.random.default_rng(n_exposures)
    values = rng.normal(100, 5, (n_exposures, 4000)).astype(np.float32)
    values[rng.random(values.shape) < 0.02] += 500
    values[rng.random(values.shape) < 0.05] = np.nan
    mean, _, counts = combine(values, 5.0)
    expected_mean, expected_counts = combine_slowly(values, 5.0)
    np.testing.assert_array_equal(counts, expected_counts)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-5)


@pytest.mark.parametrize("n_exposures", [2, 3, 4, 5, 10, 20])
def test_a_cosmic_ray_in_one_exposure_leaves_no_trace(n_exposures):
    rng = np.random.default_rng(n_exposures)
    values = rng.normal(0, 5, (n_exposures, 5000)).astype(np.float32)
    values[rng.integers(n_exposures, size=5000), np.arange(5000)] += rng.uniform(200, 50_000, 5000)
    mean, _, counts = combine(values, 5.0)
    assert np.abs(mean).max() < 5 * 5.0 / np.sqrt(max(1, n_exposures - 2)) + 5
    assert (counts < n_exposures).all()


@pytest.mark.parametrize("n_exposures", [5, 20])
def test_mean_and_variance_of_clean_noise(n_exposures):
    rng = np.random.default_rng(1)
    values = rng.normal(100, 5, (n_exposures, 200_000)).astype(np.float32)
    mean, variance, _ = combine(values, 5.0)
    assert abs(mean.mean() - 100) < 0.02
    assert abs(mean.std() / (5 / np.sqrt(n_exposures)) - 1) < 0.03
    assert abs(variance.mean() / (25 / n_exposures) - 1) < 0.05


def test_stack_combines_by_strips_what_it_was_given():
    det = load_camera("TestCam205").by_id[0]
    layout = layout_of(det.amps, height=det.height, width=det.width)
    rng = np.random.default_rng(2)
    images = rng.normal(10, 1, (6, det.height, det.width)).astype(np.float32)
    images[:, 70, 33] = np.nan
    with ImageStack((det.height, det.width)) as stack:
        for image in images:
            stack.append(image)
        np.testing.assert_array_equal(stack.read_rows(60, 70), images[:, 60:70])
        np.testing.assert_array_equal(stack.read_pair(2, 8), images[2:4, ::8])
        mean, _, counts = stack.combine(layout, np.ones(len(det.amps)))
        with pytest.raises(ValueError, match="stack of"):
            stack.append(images[0, 1:])
    expected, expected_counts = combine_slowly(images.reshape(6, -1), 1.0)
    np.testing.assert_allclose(mean.ravel(), expected, rtol=1e-4)
    np.testing.assert_array_equal(counts.ravel(), expected_counts)
    assert counts[70, 33] == 0
    assert np.isnan(mean[70, 33])
