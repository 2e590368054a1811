"""Settings that a step computes from its batch."""

from dpaudit.attacks.replay import flow


def test_only_a_setting_that_follows_the_batch_and_not_the_noise_is_named() -> None:
    def checks(one: tuple[float, ...], again: tuple[float, ...], other: tuple[float, ...]) -> list[str]:
        return [finding.check for finding in flow.settings_apart(one, again, other, "step 0")]

    assert checks((1.0, 0.1), (1.0, 0.1), (1.0, 0.1)) == []
    assert checks((1.0, 0.1, 0.2), (1.0, 0.1, 0.2), (1.0, 0.1, 0.3)) == ["learning rate without noise"]
    assert checks((1.0, 0.1), (1.0, 0.1), (2.0, 0.1)) == ["clipping norm without noise"]
    assert checks((1.0, 0.1), (1.1, 0.11), (2.0, 0.4)) == []
