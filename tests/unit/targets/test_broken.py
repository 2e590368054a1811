"""Every planted fault is found, by checks that follow from the definition of the mechanism."""

import pytest

from dpaudit.errors import UsageError
from dpaudit.targets.broken import FAULTS, plant
from tests.training import audited, dp_sgd, findings, p_values

# Beside step canaries and reconstruction; `test_zoo` has the others.
IN_THE_OPTIMIZER = ["noise-divided-by-batch", "half-noise", "clips-each-layer-in-full"]


@pytest.mark.parametrize("fault", IN_THE_OPTIMIZER)
def test_the_fault_is_found(fault: str) -> None:
    view = audited(dp_sgd(fault=fault, **FAULTS[fault].options))
    # At the level that an audit would give this attack: the least of the faults is 2 % of the noise.
    assert findings(view) or min(p_values(view).values()) < 1e-2


def test_an_unknown_fault_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="half-noise"):
        plant(None, "half-nois")  # type: ignore[arg-type]


@pytest.mark.slow
def test_training_on_the_loader_that_was_not_returned_shows_in_the_batch_sizes() -> None:
    import torch
    from opacus import PrivacyEngine
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    def fit(x, y, *, seed, device):
        model = nn.Linear(16, 2)
        own = DataLoader(TensorDataset(torch.as_tensor(x), torch.as_tensor(y)), batch_size=12)
        private, optimizer, _ = PrivacyEngine().make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            data_loader=own,
            noise_multiplier=1.0,
            max_grad_norm=1.0,
        )
        for _ in range(4):
            for features, labels in own:
                optimizer.zero_grad()
                nn.functional.cross_entropy(private(features), labels).backward()
                optimizer.step()
        return model

    assert [f.check for f in findings(audited(fit))] == ["sampler"]
