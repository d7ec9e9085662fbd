"""Runs exported networks in onnxruntime and compares their logits with the program's own. README.md describes the arguments.

usage: check_onnx.py FOLDER...           folders that `pipeline export RUN --out FOLDER --sample N` wrote
       check_onnx.py --program PIPELINE  trains one small network of each kind with the program, exports and checks them
Exit codes: 0 all logits agree to 1e-4, 1 some do not, 2 something is missing.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import onnx
import onnxruntime
from safetensors.numpy import load_file

TOLERANCE = 1e-4
OPSET = 17

EXPERIMENT = """
name = "check"
[dataset]
train_images = 60
test_images = 20
[train]
epochs = 1
batch_size = 8
learning_rate = 0.001
"""
ALEXNET = ["model.architecture=alexnet", "model.width=0.125"]
RGB = ["dataset.color=rgb"]
# One of each operator and attribute that the exporter writes.
VARIANTS = {
    "lenet5": [],
    "lenet5-sigmoid-batch": ["model.activation=sigmoid", "model.normalization=batch"],
    "alexnet-batch": [*ALEXNET, *RGB],
    "alexnet-local-response": [*ALEXNET, *RGB, "model.normalization=local-response"],
    "alexnet-towers": [*ALEXNET, *RGB, "model.normalization=none", "model.towers=2"],
    "alexnet-plain-pooling": [*ALEXNET, "model.overlapping_pooling=false", "model.activation=tanh"],
    "alexnet-large-stem": [*ALEXNET, *RGB, "dataset.image_size=72", "augment.crop=67"],
    "alexnet-torchvision": ["model.architecture=alexnet", "model.layout=torchvision", *RGB, "dataset.image_size=224"],
}


def run(*command, **options):
    """Runs the program; its messages are shown where it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr}")


def make(program, folder):
    """Trains and exports every variant; yields the folders of the exports."""
    (folder / "check.toml").write_text(EXPERIMENT, encoding="utf-8")
    for name, overrides in VARIANTS.items():
        common = ["--quiet", "--db", folder / f"{name}.db", "--cache", folder / "cache"]
        run(program, "train", folder / "check.toml", *overrides, *common)
        names = "torchvision" if name.endswith("torchvision") else "layers"
        run(program, "export", 1, "--out", folder / name, "--sample", 5, "--names", names, *common)
        yield folder / name


def torchvision_logits(folder, card, images):
    """The logits of torchvision's own network from the exported weights, or None where they are not for it."""
    if card["tensor_names"] != "torchvision":
        return None
    try:
        import torch
        import torchvision
        from safetensors.torch import load_file as load_tensors
    except ImportError:
        print(f"{folder.name}: torchvision is not installed: its own network is not compared", file=sys.stderr)
        return None
    network = torchvision.models.alexnet(num_classes=len(card["classes"]))
    network.load_state_dict(load_tensors(folder / "weights.safetensors"))
    with torch.no_grad():
        return network.eval()(torch.from_numpy(images)).numpy()


def check(folder):
    """Compares one export; true where all logits agree."""
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    path = str(folder / "model.onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    if model.opset_import[0].version != OPSET:
        print(f"{folder.name}: opset {model.opset_import[0].version}, must be {OPSET}")
        return False
    sample = load_file(folder / "sample.safetensors")
    images, expected = sample["input"], sample["logits"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    got = session.run(["logits"], {"images": images})[0]
    # Any number of images: one alone must come out as among the others.
    alone = session.run(["logits"], {"images": images[:1]})[0]
    compared = {"onnxruntime": (got, expected), "onnxruntime, one image": (alone, expected[:1])}
    theirs = torchvision_logits(folder, card, images)
    if theirs is not None:
        compared["torchvision"] = (theirs, expected)
    right = True
    for title, (values, wanted) in compared.items():
        difference = numpy.abs(values - wanted).max() if values.shape == wanted.shape else numpy.inf
        agrees = bool(difference <= TOLERANCE)  # false for NaN
        right &= agrees
        largest = numpy.abs(wanted).max()
        print(f"{folder.name}: {title}: largest difference {difference:.2e} of logits up to {largest:.2e}: {'equal' if agrees else 'DIFFERENT'}")
    return right


def main(arguments):
    if len(arguments) == 2 and arguments[0] == "--program":
        with tempfile.TemporaryDirectory() as folder:
            return all([check(export) for export in make(pathlib.Path(arguments[1]).resolve(), pathlib.Path(folder))])
    if not arguments or arguments[0].startswith("-"):
        raise ValueError(__doc__)
    return all([check(pathlib.Path(folder)) for folder in arguments])


if __name__ == "__main__":
    try:
        sys.exit(0 if main(sys.argv[1:]) else 1)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
