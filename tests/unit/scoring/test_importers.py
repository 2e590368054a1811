"""Importers, each on a file as the other tool would write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpaudit.errors import UsageError
from dpaudit.scoring.files import read
from dpaudit.scoring.scores import AS_FOUND, Design, Reading

RNG = np.random.default_rng(3)


def refusal(path: Path, reading: Reading = AS_FOUND) -> str:
    with pytest.raises(UsageError) as caught:
        read(path, reading)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestTensorFlowPrivacy:
    """`AttackInputData(logits_train=..., ...)`: the fields that are set, by `numpy.savez(**fields)`.

    Field names and shapes: tensorflow/privacy, membership_inference_attack/data_structures.py. Its loss of
    logits is `-log softmax(logits)[label]`, its loss of probabilities `-log max(p[label], 1e-30)`.
    """

    def fields(self, n_train: int = 60, n_test: int = 20) -> dict[str, Any]:
        labels = {"train": RNG.integers(0, 4, n_train), "test": RNG.integers(0, 4, n_test)}
        logits = {part: RNG.normal(size=(len(of), 4)) for part, of in labels.items()}
        logits["train"][np.arange(n_train), labels["train"]] += 2.0
        return {f"labels_{part}": of for part, of in labels.items()} | {
            f"logits_{part}": of for part, of in logits.items()
        }

    def losses(self, fields: dict[str, Any]) -> np.ndarray[Any, Any]:
        found = []
        for part in ("train", "test"):
            for logits, label in zip(fields[f"logits_{part}"], fields[f"labels_{part}"], strict=True):
                odds = np.exp(logits)
                found.append(-np.log(odds[label] / odds.sum()))
        return np.array(found)

    def test_logits(self, tmp_path: Path) -> None:
        fields = self.fields()
        np.savez(tmp_path / "attack_input.npz", **fields)
        scores = read(tmp_path / "attack_input.npz")
        np.testing.assert_allclose(scores.score, -self.losses(fields))
        assert scores.member.tolist() == [True] * 60 + [False] * 20
        assert scores.design is Design.ONE_RUN
        assert scores.inclusion == 0.75

    def test_probabilities(self, tmp_path: Path) -> None:
        fields = self.fields()
        for part in ("train", "test"):
            odds = np.exp(fields.pop(f"logits_{part}"))
            fields[f"probs_{part}"] = odds / odds.sum(axis=1, keepdims=True)
        fields["probs_test"][0] = [0, 0, 0, 1]
        fields["labels_test"][0] = 0
        np.savez(tmp_path / "attack_input.npz", **fields)
        scores = read(tmp_path / "attack_input.npz")
        assert scores.score[60] == pytest.approx(np.log(1e-30))
        np.testing.assert_allclose(
            scores.score[:60], np.log(fields["probs_train"][np.arange(60), fields["labels_train"]])
        )

    def test_explicit_loss_comes_first(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", **self.fields(), loss_train=np.arange(60.0), loss_test=np.arange(20.0))
        assert read(tmp_path / "a.npz").score[:3].tolist() == [0, -1, -2]

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"labels_test": None}, "'labels_test'"),
            ({"logits_test": None}, "loss_test, logits_test or probs_test"),
            ({"labels_train": np.full(60, 4)}, "classes 0 to 3"),
            ({"labels_train": np.zeros(59)}, "(59, classes)"),
            ({"logits_train": np.full((60, 4), np.nan)}, "nan"),
        ],
    )
    def test_refused(self, tmp_path: Path, change: dict[str, Any], expected: str) -> None:
        fields = {name: value for name, value in (self.fields() | change).items() if value is not None}
        np.savez(tmp_path / "a.npz", **fields)
        assert expected in refusal(tmp_path / "a.npz")

    def test_logits_that_are_called_probabilities(self, tmp_path: Path) -> None:
        fields = {name.replace("logits", "probs"): value for name, value in self.fields().items()}
        np.savez(tmp_path / "a.npz", **fields)
        assert "logits_train if they are logits" in refusal(tmp_path / "a.npz")


class TestJaxPrivacy:
    """`CanaryScoreAuditor(in_canary_scores, out_canary_scores)` (google-deepmind/jax_privacy, auditing.py).

    The tool keeps no file; its two arrays are saved under the names of its arguments. Higher is member.
    """

    def test_two_arrays(self, tmp_path: Path) -> None:
        inside, outside = RNG.normal(1.0, 1.0, 90), RNG.normal(0.0, 1.0, 110)
        np.savez(tmp_path / "canaries.npz", in_canary_scores=inside, out_canary_scores=outside)
        scores = read(tmp_path / "canaries.npz")
        assert scores.score.tolist() == [*inside, *outside]
        assert scores.member.sum() == 90
        assert scores.design is Design.ONE_RUN
        runs = read(tmp_path / "canaries.npz", Reading(design=Design.INDEPENDENT_RUNS))
        assert runs.design is Design.INDEPENDENT_RUNS
        assert runs.n_runs == 200

    def test_low_scores_of_members_are_kept_by_convention(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "c.npz", in_canary_scores=np.zeros(50), out_canary_scores=np.ones(50))
        assert read(tmp_path / "c.npz").score[:50].tolist() == [0.0] * 50

    @pytest.mark.parametrize(
        ("arrays", "expected"),
        [
            ({"in_canary_scores": np.ones(3)}, "did you mean 'in_canary_scores'?"),
            ({"in_canary_scores": np.ones((2, 2)), "out_canary_scores": np.ones(3)}, "(2, 2)"),
            ({"in_canary_scores": np.ones(3), "out_canary_scores": np.zeros(0)}, "no non-members"),
        ],
    )
    def test_refused(self, tmp_path: Path, arrays: dict[str, Any], expected: str) -> None:
        np.savez(tmp_path / "c.npz", **arrays)
        assert expected in refusal(tmp_path / "c.npz")


class TestPrivacyMeter:
    """The `log_dir` of a run (privacytrustlab/ml_privacy_meter).

    `models/utils.py` saves `models/memberships.npy` (models, records), pairs of models on complementary
    halves (`split_dataset_for_training`); `get_signals.py` saves `signals/<algorithm>_signals.npy` (records,
    models), softmax of the own label; `audit.py` saves `report/exp/attack_result_<i>.npz`.
    """

    def folder(self, at: Path, pairs: int = 3, records: int = 40, name: str = "rmia") -> np.ndarray[Any, Any]:
        keep = np.full((2 * pairs, records), True, dtype=bool)
        indices = np.arange(records)
        for i in range(pairs):
            RNG.shuffle(indices)
            keep[i * 2, indices[records // 2 :]] = False
            keep[i * 2 + 1, indices[: records // 2]] = False
        signals = np.clip(RNG.random((2 * pairs, records)) * 0.6 + 0.4 * keep, 0, 1).T.astype(np.float32)
        (at / "models").mkdir()
        (at / "signals").mkdir()
        np.save(at / "models" / "memberships.npy", keep)
        np.save(at / "signals" / f"{name}_signals.npy", signals)
        np.save(at / "signals" / f"{name}_signals_pop.npy", signals)
        return keep

    def test_folder(self, tmp_path: Path) -> None:
        keep = self.folder(tmp_path)
        scores = read(tmp_path)
        assert scores.design is Design.SEVERAL_RUNS
        assert scores.member.tolist() == keep.ravel().tolist()
        assert scores.n_runs == 6

    def test_models_of_a_pair_are_one_draw(self, tmp_path: Path) -> None:
        self.folder(tmp_path)
        scores = read(tmp_path)
        assert scores.cluster[scores.run == 0].tolist() == scores.cluster[scores.run == 1].tolist()
        assert np.unique(scores.cluster).size == 3
        assert any("6 runs count as 3 draws" in note for note in scores.notes)

    def test_canary_audits_score_the_first_records_only(self, tmp_path: Path) -> None:
        keep = self.folder(tmp_path)
        signals = np.load(tmp_path / "signals" / "rmia_signals.npy")
        np.save(tmp_path / "signals" / "rmia_signals.npy", signals[:10])
        assert read(tmp_path).member.tolist() == keep[:, :10].ravel().tolist()

    def test_losses_are_lower_for_members(self, tmp_path: Path) -> None:
        self.folder(tmp_path, name="loss")
        signals = np.load(tmp_path / "signals" / "loss_signals.npy")
        np.save(tmp_path / "signals" / "loss_signals.npy", 3 - 2.5 * signals)
        scores = read(tmp_path)
        assert any("negated" in note for note in scores.notes)

    def test_attack_result(self, tmp_path: Path) -> None:
        member = RNG.random(80) < 0.5
        result = {
            "fpr": np.linspace(0, 1, 5),
            "tpr": np.linspace(0, 1, 5),
            "auc": 0.7,
            "one_tenth_fpr": 0.0,
            "zero_fpr": 0.0,
            "scores": RNG.random(80) + member,
            "memberships": member,
        }
        np.savez(tmp_path / "attack_result_0.npz", **result)
        scores = read(tmp_path / "attack_result_0.npz")
        assert scores.design is Design.ONE_RUN
        assert scores.member.tolist() == member.tolist()
        np.savez(tmp_path / "attack_result_average.npz", **result)
        assert "several together" in refusal(tmp_path / "attack_result_average.npz")

    def test_refused(self, tmp_path: Path) -> None:
        assert "signals/*_signals.npy" in refusal(tmp_path)
        self.folder(tmp_path)
        np.save(tmp_path / "signals" / "loss_signals.npy", np.zeros((40, 6)))
        assert "one set of signals" in refusal(tmp_path)
        (tmp_path / "signals" / "loss_signals.npy").unlink()
        np.save(tmp_path / "models" / "memberships.npy", np.zeros((4, 40), dtype=bool))
        assert "different runs" in refusal(tmp_path)
        (tmp_path / "models" / "memberships.npy").unlink()
        assert "models/memberships.npy" in refusal(tmp_path)
