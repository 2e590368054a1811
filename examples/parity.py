"""Odd and even digits by a network of one hidden layer, with and without privacy."""

import numpy as np
import torch
from opacus import PrivacyEngine
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


def load():
    """Digits of all writers: pixels less their mean over other digits, and whether they are odd."""
    digits = load_digits()
    x, y = digits.data / 16.0, digits.target % 2
    chosen = np.arange(len(x)) % 9 == 0
    return (x - x[~chosen].mean(axis=0))[chosen], y[chosen].astype(np.int64)


def network(x, hidden):
    """Two dense layers, fed with the pixels as they are."""
    first, last = torch.nn.Linear(x.shape[1], hidden), torch.nn.Linear(hidden, 2)
    return torch.nn.Sequential(first, torch.nn.ReLU(), last)


def fit(x, y, *, seed, device, steps=4000, hidden=200):
    """Gradient descent from small weights until the loss is all but zero."""
    torch.manual_seed(seed)
    model = network(x, hidden)
    parameters = list(model.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.mul_(0.03)
    x, sign = torch.as_tensor(x, dtype=torch.float32), 2 * torch.as_tensor(y) - 1
    for _ in range(steps):
        logits = model(x)
        margin = sign * (logits[:, 1] - logits[:, 0])
        # The logarithm of each loss does not underflow: steps stay as long however small the loss is.
        each = torch.where(margin > 15, -margin, torch.nn.functional.softplus(-margin.clamp(max=15)).log())
        slopes = torch.autograd.grad(torch.logsumexp(each, 0), parameters)
        length = sum(slope.square().sum() for slope in slopes) ** 0.5
        with torch.no_grad():
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter.sub_(0.1 * slope / length.clamp(min=1.0))
    return model


def fit_private(x, y, *, seed, device, epochs=60, hidden=200):
    """The same network by DP-SGD."""
    torch.manual_seed(seed)
    model = network(x, hidden)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    data = TensorDataset(torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y))
    private, optimizer, loader = PrivacyEngine().make_private(
        module=model,
        optimizer=optimizer,
        data_loader=DataLoader(data, batch_size=10),
        noise_multiplier=2.0,
        max_grad_norm=1.0,
    )
    for _ in range(epochs):
        for features, labels in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(private(features), labels).backward()
            optimizer.step()
    return model
