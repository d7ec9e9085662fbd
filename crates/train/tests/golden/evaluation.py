"""Writes evaluation.json: golden cases for crates/train/src/assessment.rs, from scikit-learn, and the calibration error from numpy.

    pip install numpy scikit-learn
    python crates/train/tests/golden/evaluation.py            # writes the file anew
    python crates/train/tests/golden/evaluation.py --check    # exit code 1 if it is not what is computed now
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import sklearn
from sklearn import metrics

PATH = Path(__file__).with_name("evaluation.json")
BINS = 15


def softmax(logits):
    """Probabilities [N, K], in 64 bits."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def cross_entropy(logits, labels):
    """Mean −ln p of the labels. Not by scikit-learn, which clips probabilities; the same where it does not."""
    largest = logits.max(axis=1)
    losses = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    probabilities = softmax(logits)
    if probabilities.min() > 1e-12:
        assert np.isclose(losses.mean(), metrics.log_loss(labels, probabilities, labels=range(logits.shape[1])), rtol=1e-12)
    return float(losses.mean())


def calibration_error(probabilities, labels):
    """Guo et al. 2017, equation 3: the average over the images of |accuracy − confidence| of their bin."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    # Bin m holds confidences in ((m − 1)/15, m/15].
    bins = np.digitize(confidence, np.linspace(0, 1, BINS + 1), right=True)
    return float(sum(abs(right[bins == m].mean() - confidence[bins == m].mean()) * (bins == m).mean() for m in np.unique(bins)))


def case(name, logits, labels):
    # Three decimals, then 32 bits, as the program is given them.
    logits = np.round(logits, 3).astype(np.float32).astype(np.float64)
    classes = logits.shape[1]
    probabilities = softmax(logits)
    predicted = logits.argmax(axis=1)
    every = list(range(classes))
    # NaN where nothing can be shared out; JSON has null for it.
    precision, recall, f1, support = metrics.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=np.nan)
    shares = {"precision": precision, "recall": recall, "f1": f1}
    # The average of scikit-learn's own report: over the classes that occur or are predicted, undefined shares counted as 0.
    average = metrics.precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    return {
        "name": name,
        "logits": [[round(float(value), 3) for value in row] for row in logits],
        "labels": [int(label) for label in labels],
        "loss": cross_entropy(logits, labels),
        "top1": float(metrics.accuracy_score(labels, predicted)),
        "top5": float(metrics.top_k_accuracy_score(labels, logits, k=5, labels=every)) if classes > 5 else 1.0,
        "confusion": metrics.confusion_matrix(labels, predicted, labels=every).tolist(),
        **{name: [None if np.isnan(share) else float(share) for share in values] for name, values in shares.items()},
        "support": [int(count) for count in support],
        "macro": [float(value) for value in average[:3]],
        "calibration_error": calibration_error(probabilities, labels),
    }


def cases():
    random = np.random.default_rng(20261126)

    def noisy(images, classes, signal, scale):
        labels = random.integers(0, classes, images)
        return scale * (random.normal(size=(images, classes)) + signal * np.eye(classes)[labels]), labels

    yield case("ten classes, half of them right", *noisy(150, 10, 1.5, 1.0))
    yield case("sure of itself, and often wrong", *noisy(100, 7, 1.0, 12.0))
    yield case("hardly better than chance", *noisy(100, 3, 0.2, 0.1))
    logits, labels = noisy(90, 8, 2.0, 1.0)
    logits[:, 2] -= 50  # occurs, is never predicted
    labels[labels == 5] = 6  # is predicted, never occurs
    labels[labels == 7] = 0
    logits[:, 7] -= 50  # neither
    yield case("classes that are missing", logits, labels)
    yield case("certain", 1800 * np.eye(6)[[0, 1, 2, 3, 4, 5, 0, 1]] - 900 - np.arange(6), np.array([0, 1, 2, 3, 4, 5, 1, 1]))
    yield case("one image", *noisy(1, 6, 3.0, 1.0))


def main():
    # One image has classes that others lack, as is meant.
    warnings.filterwarnings("ignore", category=UserWarning)
    found = {"scikit-learn": sklearn.__version__, "numpy": np.__version__, "cases": list(cases())}
    if sys.argv[1:] != ["--check"]:
        PATH.write_text(json.dumps(found, separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n", encoding="utf-8")
        return 0

    def same(a, b):
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        if isinstance(a, list):
            return len(a) == len(b) and all(map(same, a, b))
        return abs(a - b) <= 1e-12 if isinstance(a, float) and isinstance(b, float) else a == b

    committed = json.loads(PATH.read_text(encoding="utf-8"))
    right = same(committed["cases"], found["cases"])
    print("equal" if right else "DIFFERENT")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
