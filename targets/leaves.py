"""What data sets are made of: the parts that they join or choose from, and the memory that these read."""

from __future__ import annotations

from typing import Any

from torch.utils.data import ConcatDataset, Subset, TensorDataset


def sources(dataset: Any) -> set[int]:
    """Identities of a data set, of what it is a part of, and of the memory that it reads."""
    if dataset is None:
        return set()
    found = {id(dataset)}
    if isinstance(dataset, Subset):
        found |= sources(dataset.dataset)
    elif isinstance(dataset, ConcatDataset):
        found |= {source for part in dataset.datasets for source in sources(part)}
    elif isinstance(dataset, TensorDataset):
        found |= {tensor.data_ptr() for tensor in dataset.tensors if tensor.numel()}
    return found
