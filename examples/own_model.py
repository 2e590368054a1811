"""Your own training code, with your own preprocessing: the function that an audit calls."""

import torch
from opacus import PrivacyEngine
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

SCALE = 100.0  # a bound known beforehand: scaling by the data's own mean would leak it


def load():
    """All records: features and integer labels."""
    return load_breast_cancer(return_X_y=True)


def fit(x, y, *, seed, device):
    """Train on exactly these records and return a model from raw features to logits."""
    network = nn.Sequential(nn.Linear(x.shape[1], 16), nn.Tanh(), nn.Linear(16, 2)).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    scaled = torch.as_tensor(x) / SCALE
    loader = DataLoader(TensorDataset(scaled, torch.as_tensor(y)), batch_size=32)
    private, optimizer, loader = PrivacyEngine().make_private(
        module=network, optimizer=optimizer, data_loader=loader, noise_multiplier=1.2, max_grad_norm=1.0
    )
    for _ in range(20):
        for features, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(private(features.to(device)), labels.to(device)).backward()
            optimizer.step()
    return lambda raw: network(raw / SCALE)
