from blossom_edge.core.metrics import Metric, merge


def test_adding_two_devices_weighs_their_means_by_their_counts() -> None:
    both = Metric(total=3.0, count=4.0) + Metric(total=9.0, count=12.0)
    assert both == Metric(12.0, 16.0)
    assert both.mean == 0.75


def test_a_metric_over_nothing_has_no_mean() -> None:
    assert Metric(0.0, 0.0).mean is None


def test_merging_devices_keeps_names_that_only_one_of_them_has() -> None:
    merged = merge(
        [{"har.accuracy": Metric(5.0, 10.0)}, {"har.accuracy": Metric(1.0, 2.0), "speed.mae": Metric(0.4, 2.0)}]
    )
    assert merged == {"har.accuracy": Metric(6.0, 12.0), "speed.mae": Metric(0.4, 2.0)}


def test_merging_does_not_change_its_parts() -> None:
    parts = [{"har.loss": Metric(1.0, 1.0)}, {"har.loss": Metric(2.0, 1.0)}]
    merge(parts)
    assert parts[0] == {"har.loss": Metric(1.0, 1.0)}


def test_merging_nothing_gives_nothing() -> None:
    assert merge([]) == {}
