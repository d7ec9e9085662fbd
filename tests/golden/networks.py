"""LeNet-5 and AlexNet in PyTorch, with the layer names that the program uses (conv1, norm1, fc6 ...).

References: LeCun et al. 1998; Krizhevsky et al. 2012; torchvision's `alexnet` (Krizhevsky 2014) as the other layout.
Activations are [N, C, H, W].
"""

import torch
from torch import nn
from torch.nn import functional as F

PAPER_WIDTHS = (96, 256, 384, 384, 256, 4096, 4096)
TORCHVISION_WIDTHS = (64, 192, 384, 256, 256, 4096, 4096)
# Our layer -> torchvision's.
TORCHVISION_NAMES = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "fc6": "classifier.1",
    "fc7": "classifier.4",
    "fc8": "classifier.6",
}
ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}
NORMALIZATIONS = ("batch", "local-response", "none")


def local_response_norm(x, k=2.0, n=5, alpha=1e-4, beta=0.75):
    """Krizhevsky et al. 2012, section 3.3: alpha multiplies the sum of squares. PyTorch divides it by n, hence alpha * n."""
    return F.local_response_norm(x, size=n, alpha=alpha * n, beta=beta, k=k)


class Network(nn.Module):
    """What both networks share: convolutions, each followed by normalization and activation, or activation and LRN, then pooling."""

    convolutions = 0
    local_response = ("conv1", "conv2")

    def normalise(self, i, x):
        """Normalization and activation after convolution `i` (from 1)."""
        if self.normalization == "batch":
            return self.activation(getattr(self, f"norm{i}")(x))
        x = self.activation(x)
        if self.normalization == "local-response" and i <= 2:
            x = local_response_norm(x)
        return x

    def pool(self, i, x):
        """Pooling after convolution `i`; the identity where there is none."""
        raise NotImplementedError

    def features(self, x):
        """All that comes before the first fully connected layer, flattened."""
        for i in range(1, self.convolutions + 1):
            x = self.pool(i, self.normalise(i, getattr(self, f"conv{i}")(x)))
        return torch.flatten(x, 1)

    def forward(self, x):
        x = self.features(x)
        for name in self.connected[:-1]:
            x = self.activation(getattr(self, name)(x))
        return getattr(self, self.connected[-1])(x)

    def add_norms(self, widths):
        """One batch normalization for each convolution, where asked for."""
        if self.normalization == "batch":
            for i, width in enumerate(widths, 1):
                setattr(self, f"norm{i}", nn.BatchNorm2d(width, eps=1e-5, momentum=0.1))


class LeNet5(Network):
    """6@5x5 - average pool 2 - 16@5x5 - average pool 2 - 120@5x5 - 84 - classes; 61,706 parameters on 1x28x28 with 10 classes."""

    convolutions = 3
    connected = ("fc4", "fc5")

    def __init__(self, input=(1, 28, 28), classes=10, widths=(6, 16, 120, 84), activation="tanh", normalization="none", pad=2):
        super().__init__()
        self.activation, self.normalization = ACTIVATIONS[activation], normalization
        self.conv1 = nn.Conv2d(input[0], widths[0], 5, padding=pad)
        self.conv2 = nn.Conv2d(widths[0], widths[1], 5)
        self.conv3 = nn.Conv2d(widths[1], widths[2], 5)
        self.add_norms(widths[:3])
        self.fc4 = nn.Linear(features_of(self, input), widths[3])
        self.fc5 = nn.Linear(widths[3], classes)

    def pool(self, i, x):
        return F.avg_pool2d(x, 2) if i <= 2 else x


class AlexNet(Network):
    """Five convolutions, three fully connected layers; dropout is left out, for the references are without it or in inference mode."""

    convolutions = 5
    connected = ("fc6", "fc7", "fc8")

    def __init__(
        self,
        input=(3, 227, 227),
        classes=1000,
        widths=PAPER_WIDTHS,
        activation="relu",
        normalization="batch",
        towers=1,
        overlapping_pooling=True,
        stem="large",
        layout="paper",
    ):
        super().__init__()
        self.activation, self.normalization = ACTIVATIONS[activation], normalization
        self.overlapping_pooling, self.layout = overlapping_pooling, layout
        w = widths
        if stem == "large":
            self.conv1 = nn.Conv2d(input[0], w[0], 11, stride=4, padding=2 if layout == "torchvision" else 0)
        else:
            self.conv1 = nn.Conv2d(input[0], w[0], 3, stride=1, padding=1)
        self.conv2 = nn.Conv2d(w[0], w[1], 5, padding=2, groups=towers)
        self.conv3 = nn.Conv2d(w[1], w[2], 3, padding=1)
        self.conv4 = nn.Conv2d(w[2], w[3], 3, padding=1, groups=towers)
        self.conv5 = nn.Conv2d(w[3], w[4], 3, padding=1, groups=towers)
        self.add_norms(w[:5])
        self.fc6 = nn.Linear(features_of(self, input), w[5])
        self.fc7 = nn.Linear(w[5], w[6])
        self.fc8 = nn.Linear(w[6], classes)

    def pool(self, i, x):
        if i in (1, 2, 5):
            x = F.max_pool2d(x, 3 if self.overlapping_pooling else 2, 2)
        if i == 5 and self.layout == "torchvision":
            x = F.adaptive_avg_pool2d(x, 6)
        return x


def features_of(network, input):
    """Number of features that the convolutions of `network` make of one image of shape `input` [C, H, W]."""
    training = network.training
    network.eval()
    with torch.no_grad():
        features = network.features(torch.zeros((1, *input), device=network.conv1.weight.device))
    network.train(training)
    return features.shape[1]


def layers(network, input):
    """Rows (layer, output shape [C, H, W], parameters, multiply-accumulates for one image) of a network, in the order of computation.

    A row per convolution, its batch normalization included in the parameters, per pooling and per fully connected layer.
    """
    rows = []
    device = network.conv1.weight.device
    count = lambda *modules: sum(p.numel() for m in modules for p in m.parameters())
    network.eval()
    with torch.no_grad():
        x = torch.zeros((1, *input), device=device)
        for i in range(1, network.convolutions + 1):
            conv, norm = getattr(network, f"conv{i}"), getattr(network, f"norm{i}", None)
            y = network.normalise(i, conv(x))
            macs = conv.weight.numel() * y.shape[2] * y.shape[3]
            rows.append((f"conv{i}", list(y.shape[1:]), count(conv, *([norm] if norm else [])), macs))
            x = network.pool(i, y)
            if x.shape != y.shape:
                rows.append((f"pool{i}", list(x.shape[1:]), 0, 0))
        for name in network.connected:
            fc = getattr(network, name)
            rows.append((name, [fc.out_features], count(fc), fc.weight.numel()))
    network.train()
    return rows
