"""An Opacus script that knows nothing of audits: `dpaudit trace examples/train_digits.py` looks at it."""

import argparse

import torch
from opacus import PrivacyEngine
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def network():
    """A small convolutional network for images of 8 by 8."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def main():
    """Train privately, and print what a user would print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--noise-multiplier", type=float, default=1.0)
    arguments = parser.parse_args()
    x, y = load_digits(return_X_y=True)
    x, test_x, y, test_y = train_test_split(x / 16.0, y, random_state=0)
    data = TensorDataset(torch.tensor(x, dtype=torch.float32), torch.tensor(y))
    model, loader = network(), DataLoader(data, batch_size=64, shuffle=True)
    engine = PrivacyEngine()
    model, optimizer, loader = engine.make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.5),
        data_loader=loader,
        noise_multiplier=arguments.noise_multiplier,
        max_grad_norm=1.0,
    )
    for _ in range(arguments.epochs):
        for features, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(features), labels).backward()
            optimizer.step()
    with torch.no_grad():
        right = model(torch.tensor(test_x, dtype=torch.float32)).argmax(1) == torch.tensor(test_y)
    print(f"accuracy {right.float().mean():.3f}, epsilon {engine.get_epsilon(1e-5):.3f} at delta 1e-5")


if __name__ == "__main__":
    main()
