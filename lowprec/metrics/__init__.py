"""Scores of models: streaming, one file a family; docs/metrics_and_data.md defines every one.

score = make_evaluate(TopK(k=1), open_data({...}))   # a function from a model to a number
lowprec.quantize(model, samples, evaluate=score)
"""

from lowprec.metrics.classification import F1, ROC, Accuracy, CrossEntropy, MeanIoU, TopK
from lowprec.metrics.detection import COCOmAP, VOCmAP
from lowprec.metrics.evaluate import check_metric, make_evaluate, make_metrics
from lowprec.metrics.metric import Metric
from lowprec.metrics.regression import MAE, MSE, RMSE, Loss, Pearson, Spearman

__all__ = [
    "F1",
    "MAE",
    "MSE",
    "RMSE",
    "ROC",
    "Accuracy",
    "COCOmAP",
    "CrossEntropy",
    "Loss",
    "MeanIoU",
    "Metric",
    "Pearson",
    "Spearman",
    "TopK",
    "VOCmAP",
    "check_metric",
    "make_evaluate",
    "make_metrics",
]
