"""Models of studies of every task: two networks of folds, and their average prediction by hand."""

import torch

from monai_mil_ext.apps.study import Task, write_study_model
from monai_mil_ext.data import InstanceSource
from monai_mil_ext.losses import ordinal_probabilities, survival_curve
from monai_mil_ext.networks.nets import ABMIL, CORAL, StandardizedNet

TASKS = {
    "binary": Task("classification", ["benign", "malignant"]),
    "classes": Task("classification", ["a", "b", "c"]),
    "multilabel": Task("multilabel", ["bleeding", "tumor"]),
    "ordinal": Task("ordinal", ["low", "middle", "high"]),
    "regression": Task("regression"),
    "survival": Task("survival", bin_edges=[6.0, 12.5, torch.inf]),
    "cox": Task("cox"),
}
COLUMNS = {  # of a table of predictions
    "binary": ["probability_0", "probability_1"],
    "classes": ["probability_0", "probability_1", "probability_2"],
    "multilabel": ["probability_0", "probability_1"],
    "ordinal": ["probability_0", "probability_1", "probability_2"],
    "regression": ["value"],
    "survival": ["survival_6", "survival_12.5", "survival_inf"],
    "cox": ["risk"],
}
NAMES = {"regression": "value", "survival": "survival", "cox": "risk"}  # in a record; others: probability
TITLES = {
    "binary": "probability of malignant",
    "classes": ", probability",
    "multilabel": "probabilities",
    "ordinal": ", probability",
    "regression": "value",
    "survival": "survival",
    "cox": "risk",
}


def fold_networks(name, in_features):
    """Return untrained networks of two folds, with statistics that change every feature."""
    torch.manual_seed(0)
    task, nets = TASKS[name], []
    for fold in range(2):
        net = ABMIL(in_features, 1 if name == "ordinal" else task.num_logits, hidden_size=4, attention_size=3)
        net = CORAL(net, 3) if name == "ordinal" else net
        scale = torch.arange(in_features) / in_features + 0.2 * (1 + fold)
        unit = {"output_mean": 60.0 + fold, "output_scale": 10.0} if name == "regression" else {}
        nets.append(StandardizedNet(net, in_features).set_statistics(scale - 0.7, scale, **unit).eval())
    return nets


def write_models(folder, name, in_features, **values):
    """Write the model of a study of a task, and return the networks of its folds."""
    nets = fold_networks(name, in_features)
    write_study_model(folder, nets, TASKS[name], "study", **{"sources": [InstanceSource(width=in_features)], **values})
    return nets


def average(name, nets, features):
    """Return the mean prediction (C,) of networks for the features (N, F) of a bag, by the formula of its loss."""
    outputs = {
        "multilabel": torch.sigmoid,
        "ordinal": ordinal_probabilities,
        "regression": lambda z: z,
        "survival": survival_curve,
        "cox": lambda z: z,
    }
    with torch.no_grad():
        each = [outputs.get(name, lambda z: z.softmax(1))(net(features[None])) for net in nets]
    return torch.stack(each).mean(0)[0].tolist()
