"""Loads weights that the program exported into PyTorch and compares logits. README.md describes the arguments.

usage: check_weights.py RUN.safetensors ARCH CONFIG.json INPUT.safetensors
Exit codes: 0 equal to 1e-4 of the largest logit, 1 not equal, 2 the files do not fit each other.
"""

import json
import math
import sys

import torch
from safetensors.torch import load_file

import networks
from networks import ACTIVATIONS, NORMALIZATIONS, AlexNet, LeNet5

TOLERANCE = 1e-4
# Every key of `[model]`; those that do not touch inference are allowed and ignored.
IGNORED = {"architecture", "dropout", "width", "initialization"}
DEFAULTS = {
    "lenet5": {"activation": "tanh", "normalization": "none"},
    "alexnet": {"activation": "relu", "normalization": "batch", "overlapping_pooling": True, "towers": 1, "layout": "paper", "stem": None},
}
ALLOWED = {
    "activation": set(ACTIVATIONS),
    "normalization": set(NORMALIZATIONS),
    "overlapping_pooling": {True, False},
    "towers": {1, 2},
    "layout": {"paper", "torchvision"},
    "stem": {None, "large", "small"},
}


class Misfit(Exception):
    """The files do not fit each other, or the configuration is not one of `[model]`."""


def settings(architecture, config):
    """The configuration with the program's defaults filled in."""
    if architecture not in DEFAULTS:
        raise Misfit(f"architecture is {architecture!r}, must be lenet5 or alexnet")
    if config.get("architecture") not in (None, architecture):
        raise Misfit(f"the configuration is of {config['architecture']!r}, not of {architecture!r}")
    unknown = set(config) - IGNORED - set(ALLOWED)
    if unknown:
        raise Misfit(f"unknown keys: {', '.join(sorted(unknown))}")
    for key, value in config.items():
        if key in ALLOWED and value is not None and value not in ALLOWED[key]:
            raise Misfit(f"{key} is {value!r}, must be one of {sorted(map(str, ALLOWED[key] - {None}))}")
    given = {key: value for key, value in config.items() if value is not None}
    return {key: given.get(key, default) for key, default in DEFAULTS[architecture].items()}


def our_names(weights):
    """The weights under the program's names; torchvision's names are translated."""
    back = {theirs: ours for ours, theirs in networks.TORCHVISION_NAMES.items()}
    renamed = {}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        renamed[f"{back.get(layer, layer)}.{kind}"] = value
    return renamed


def build(architecture, config, weights, shape):
    """The network for `weights`; widths, classes and the first kernel come from the weights' shapes."""
    names = [f"conv{i}" for i in range(1, 4 if architecture == "lenet5" else 6)]
    names += ["fc4", "fc5"] if architecture == "lenet5" else ["fc6", "fc7", "fc8"]
    for name in names:
        if f"{name}.weight" not in weights:
            raise Misfit(f"{name}.weight is missing; the file has {', '.join(sorted(weights))}")
    *widths, classes = (weights[f"{name}.weight"].shape[0] for name in names)
    common = {"input": shape, "classes": classes, "widths": tuple(widths), "activation": config["activation"], "normalization": config["normalization"]}
    if architecture == "lenet5":
        wanted = weights["fc4.weight"].shape[1]
        for pad in (2, 0):
            try:
                network = LeNet5(pad=pad, **common)
            except RuntimeError:  # the image is too small for this padding
                continue
            if network.fc4.in_features == wanted:
                return network
        raise Misfit(f"fc4 takes {wanted} features, which neither padding 2 nor 0 of conv1 makes of images {shape}")
    kernel = weights["conv1.weight"].shape[-1]
    stem = {11: "large", 3: "small"}.get(kernel)
    if stem is None or config["stem"] not in (None, stem):
        raise Misfit(f"conv1's kernel is {kernel}, the stem of the configuration {config['stem']!r}")
    return AlexNet(towers=config["towers"], overlapping_pooling=config["overlapping_pooling"], layout=config["layout"], stem=stem, **common)


def fill(network, weights):
    """Loads `weights`, all of them and no others, but for PyTorch's counter of batches."""
    expected = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    given = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    if expected.keys() != given.keys():
        raise Misfit(f"missing: {sorted(expected.keys() - given.keys())}; not of this network: {sorted(given.keys() - expected.keys())}")
    for name, value in expected.items():
        if value.shape != given[name].shape:
            raise Misfit(f"{name} is {list(given[name].shape)}, must be {list(value.shape)}")
    network.load_state_dict(given, strict=False)
    return network


def torchvision_logits(config, network, weights, images):
    """The logits of torchvision's own network where it is the same as ours, else None."""
    widths = tuple(weights[f"{n}.weight"].shape[0] for n in list(networks.TORCHVISION_NAMES)[:-1])
    same = config["layout"] == "torchvision" and config["normalization"] == "none" and config["activation"] == "relu"
    if not same or config["towers"] != 1 or not config["overlapping_pooling"] or widths != networks.TORCHVISION_WIDTHS or network.conv1.kernel_size != (11, 11):
        return None
    try:
        import torchvision
    except ImportError:
        print("torchvision is not installed: its own network is not compared", file=sys.stderr)
        return None
    theirs = torchvision.models.alexnet(num_classes=network.fc8.out_features)
    rename = lambda name: f"{networks.TORCHVISION_NAMES[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}"
    theirs.load_state_dict({rename(name): value for name, value in weights.items()})
    return theirs.double().eval()(images)


def compare(title, expected, got):
    """Prints the differences; true where they are within the tolerance."""
    absolute = (expected - got).abs().max().item()
    largest = expected.abs().max().item()
    relative = absolute / largest if largest > 0 else math.inf if absolute > 0 else 0.0
    right = relative <= TOLERANCE  # false for NaN
    print(f"{title}: largest difference {absolute:.3e}, relative to the largest logit {relative:.3e}: {'equal' if right else 'DIFFERENT'}")
    return right


def main(run, architecture, config_path, input_path):
    with open(config_path, encoding="utf-8") as file:
        config = settings(architecture, json.load(file))
    weights, data = our_names(load_file(run)), load_file(input_path)
    for name in ("input", "logits"):
        if name not in data:
            raise Misfit(f"{input_path} has no tensor {name!r}")
    images, got = data["input"].double(), data["logits"].double()
    if images.dim() != 4:
        raise Misfit(f"input is {list(images.shape)}, must be [N, C, H, W]")
    network = build(architecture, config, weights, tuple(images.shape[1:]))
    network = fill(network, weights).double().eval()
    with torch.no_grad():
        expected = network(images)
        theirs = torchvision_logits(config, network, weights, images) if architecture == "alexnet" else None
    if got.shape != expected.shape:
        raise Misfit(f"logits are {list(got.shape)}, must be {list(expected.shape)}")
    right = compare("PyTorch", expected, got)
    if theirs is not None:
        right &= compare("torchvision", theirs, got)
    return 0 if right else 1


if __name__ == "__main__":
    if len(sys.argv) != 5:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    try:
        sys.exit(main(*sys.argv[1:]))
    except (Misfit, OSError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
