"""Labelled data from files that people have: data sets, transforms, batches. Nothing is downloaded.

    data = open_data({"dataset": {"MNIST": {"root": "mnist"}}, "transform": {"ToTensor": {}}})
    for images, labels in data: ...

docs/metrics_and_data.md defines every data set and transform.
"""

from lowprec.data.loader import Loader
from lowprec.data.specification import DataSpec, check_data, open_data

__all__ = ["DataSpec", "Loader", "check_data", "open_data"]
