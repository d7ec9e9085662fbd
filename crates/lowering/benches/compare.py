"""Training and evaluation steps of `pipeline bench` beside those of other frameworks, in turn in one sitting.

    cargo build && pip install torch numpy
    python crates/lowering/benches/compare.py [--rounds 3] [--only alexnet] [--program target/debug/pipeline]

Each round runs the program and then each configuration of each peer, every one as a process of its own; a row gives medians over the
rounds and the ratio to each peer's best configuration. Where others use the machine, times are two and three times as long in one round as in
the next; the last ratio compares the quickest step of all rounds on either side instead. PyTorch gets what helped it most: LeNet-5's whole step (gradients and SGD) compiled as
one function, AlexNet in channels_last with a fused optimizer, denormals flushed to zero, threads that spin, and an allocator that keeps
large blocks in large pages.

    --peers torch,keras,burn,candle

compares with Keras on TensorFlow (`pip install keras tensorflow-cpu`), burn and candle too, in the training steps with batch normalization
that their programs in `peers/` know. Those of burn and candle are built by

    RUSTFLAGS="-C target-cpu=native" cargo build --release --features burn,candle \\
        --manifest-path crates/lowering/benches/peers/Cargo.toml --target-dir target/peers
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {
    "GOMP_SPINCOUNT": "infinity",
    "OMP_PROC_BIND": "true",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=8000000000:glibc.malloc.mmap_threshold=8000000000",
}
# Network, batch, threads, normalization, forward only, precision.
CASES = [
    ("lenet5", 64, 1, "none", False, "f32"),
    ("lenet5", 64, 2, "none", False, "f32"),
    ("lenet5", 512, 1, "none", False, "f32"),
    ("lenet5", 512, 2, "none", False, "f32"),
    ("lenet5", 256, 2, "none", True, "f32"),
    ("alexnet", 32, 1, "batch", False, "f32"),
    ("alexnet", 32, 2, "batch", False, "f32"),
    ("alexnet", 128, 2, "batch", False, "f32"),
    ("alexnet", 32, 2, "local-response", False, "f32"),
    ("alexnet", 32, 2, "batch", True, "f32"),
    ("alexnet", 32, 1, "batch", False, "bf16"),
    ("alexnet", 32, 2, "batch", False, "bf16"),
    ("alexnet", 32, 2, "batch", True, "bf16"),
]
PEERS = ["torch", "keras", "burn", "candle"]
# Of PyTorch, for each network; the others have one.
CONFIGURATIONS = {"lenet5": ["compiled", "eager"], "alexnet": ["channels_last", "eager"]}


def step_of_torch(model, batch, threads, normalization, forward, precision, configuration):
    """Measures one PyTorch configuration in this process and prints it."""
    import time

    import torch
    from torch.nn import functional as F

    sys.path.insert(0, str(ROOT / "tests/golden"))
    import networks

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    if model == "lenet5":
        net, shape, classes = networks.LeNet5(), (1, 28, 28), 10
    else:
        net, shape, classes = networks.AlexNet(normalization=normalization), (3, 227, 227), 1000
    x, y = torch.randn(batch, *shape), torch.randint(0, classes, (batch,))
    if configuration == "channels_last":
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)

    # Weights stay in 32 bits, operands of convolutions and linear layers are rounded: what PyTorch calls mixed precision.
    rounded = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
    if forward:
        net.eval()
        run = torch.compile(net) if configuration == "compiled" else net

        def step():
            with torch.inference_mode(), rounded:
                run(x)
    elif configuration == "compiled":
        values = {name: value.detach().clone() for name, value in net.named_parameters()}
        moments = {name: torch.zeros_like(value) for name, value in values.items()}

        def loss(values):
            return F.cross_entropy(torch.func.functional_call(net, values, (x,)), y)

        def update(values, moments):
            gradients = torch.func.grad(loss)(values)
            moments = {k: 0.9 * moments[k] + gradients[k] + 5e-4 * values[k] for k in values}
            return {k: values[k] - 0.01 * moments[k] for k in values}, moments

        update = torch.compile(update)
        state = [values, moments]

        def step():
            with torch.no_grad():
                state[0], state[1] = update(*state)
    else:
        fused = True if configuration == "channels_last" else None
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=fused)

        def step():
            optimizer.zero_grad(set_to_none=True)
            with rounded:
                loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()

    for _ in range(3):
        step()
    times, start = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - start < 5:
        before = time.perf_counter()
        step()
        times.append(time.perf_counter() - before)
    print(json.dumps([batch / statistics.median(times), batch / min(times)]))


def measure(command, environment):
    """What a process printed as JSON: of a peer, images a second of its median and of its quickest step."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)


def median(rounds):
    """Of the rounds' median rates."""
    return statistics.median(rate for rate, _ in rounds)


def commands(peer, case, programs):
    """How each configuration of a peer is measured, by its name; none where the peer does not know the case."""
    model, batch, threads, normalization, forward, precision = case
    if peer == "torch":
        measured = [sys.executable, __file__, "--step", *map(str, case)]
        return {name: ([*measured, name], ENVIRONMENT) for name in CONFIGURATIONS[model]}
    if forward or normalization == "local-response" or precision != "f32":
        return {}
    if peer == "keras":
        program = [sys.executable, str(Path(__file__).parent / "peers/keras_step.py")]
        return {peer: ([*program, model, str(batch), str(threads)], {})}
    return {peer: ([str(programs / peer), model, str(batch)], {"RAYON_NUM_THREADS": str(threads)})}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--program", type=Path, default=ROOT / "target/debug/pipeline")
    parser.add_argument("--peers", default="torch", help=f"any of {','.join(PEERS)}")
    parser.add_argument("--peer-programs", type=Path, default=ROOT / "target/peers/release", help="where burn's and candle's are")
    parser.add_argument("--step", nargs=7, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        model, batch, threads, normalization, forward, *rest = arguments.step
        return step_of_torch(model, int(batch), int(threads), normalization, forward == "True", *rest)
    peers = arguments.peers.split(",")
    if unknown := set(peers) - set(PEERS):
        parser.error(f"--peers: no {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    columns = " | ".join(f"{peer} | ratio (of each round) | of the quickest steps" for peer in peers)
    print(f"| network, batch, threads | images/s | share of the FMA peak | {columns} |")
    print("| --- | ---: | ---: |" + " ---: | ---: | ---: |" * len(peers))
    for case in CASES:
        model, batch, threads, normalization, forward, precision = case
        name = f"{model}{'' if normalization in ('none', 'batch') else ' ' + normalization}{' forward' if forward else ''}{' bf16' if precision == 'bf16' else ''}"
        name = f"{name}, {batch}, {threads}"
        known = {peer: commands(peer, case, arguments.peer_programs) for peer in peers}
        if arguments.only not in name or not any(known.values()):
            continue
        ours, shares = [], []
        theirs = {peer: {configuration: [] for configuration in known[peer]} for peer in peers}
        for _ in range(arguments.rounds):
            command = [str(arguments.program), "bench", "--model", model, "--batch", str(batch), "--threads", str(threads)]
            command += ["--precision", precision, "--format", "json", *(["--forward"] if forward else [])]
            command += [f"model.normalization={normalization}"] if model == "alexnet" else []
            [row] = measure(command, {})
            ours.append([row["images_per_second"], batch * 1e3 / row["least_step_time_ms"]])
            shares.append(row["share_of_peak"])
            for peer in peers:
                for configuration, (command, environment) in known[peer].items():
                    theirs[peer][configuration].append(measure(command, environment))
        row = f"| {name} | {median(ours):,.1f} | {statistics.median(shares):.0%} |"
        for peer in peers:
            if not theirs[peer]:
                row += " – | – | – |"
                continue
            best = max(theirs[peer], key=lambda configuration: median(theirs[peer][configuration]))
            rates = theirs[peer][best]
            ratios = [a / b for (a, _), (b, _) in zip(ours, rates)]
            quickest = max(best for _, best in ours) / max(best for of in theirs[peer].values() for _, best in of)
            row += f" {median(rates):,.1f}{'' if best == peer else f' ({best})'} |"
            row += f" {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {quickest:.2f} |"
        print(row, flush=True)


main()
