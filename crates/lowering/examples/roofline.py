#!/usr/bin/env python3
"""What NVIDIA's compiler makes of AlexNet's training step, and how long a GPU would take for it if it came near its limits.

    cargo run -p lowering --example launches -- FOLDER 1024 bf16
    python crates/lowering/examples/roofline.py FOLDER [--arch sm_90] [--gpu h100] [--kernels]

Needs no GPU: NVRTC (`pip install nvidia-cuda-nvrtc`, or --nvrtc FILE) compiles, cuobjdump (of the CUDA toolkit, or of `pip install triton`)
tells registers, stack and shared memory, and the instructions. Times are predictions: the longer of bytes over the memory's bandwidth and
operations over what tensor cores give to `mma.sync`, in whole waves of blocks, plus a launch within a recorded graph.
"""

import argparse
import collections
import csv
import ctypes
import glob
import math
import pathlib
import re
import shutil
import subprocess
import sysconfig
import tempfile

# Multiprocessors; bytes per second that plain kernels come to, of the data sheet's; FLOP per second of bf16 by `mma.sync`, which comes to about
# 62 % of what `wgmma` does on Hopper, and of that what tiles through shared memory leave; seconds between launches of a recorded graph.
GPUS = {
    "h100": dict(processors=132, bandwidth=0.85 * 3.35e12, products=0.62 * 0.75 * 990e12, launch=1.5e-6),
    "h200": dict(processors=132, bandwidth=0.85 * 4.8e12, products=0.62 * 0.75 * 990e12, launch=1.5e-6),
    "a100": dict(processors=108, bandwidth=0.85 * 2.0e12, products=0.75 * 312e12, launch=1.5e-6),
}
# Registers, bytes of shared memory, and threads of a multiprocessor of compute capability 8.0 and 9.0.
REGISTERS, MOST_THREADS = 65536, 2048
SHARED = {"sm_75": 64 << 10, "sm_80": 164 << 10, "sm_86": 100 << 10, "sm_90": 228 << 10}


def site(pattern):
    found = glob.glob(f"{sysconfig.get_path('purelib')}/{pattern}")
    return found[0] if found else None


def compile_source(source, arch, library):
    nvrtc = ctypes.CDLL(library)
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"step.cu", 0, None, None) == 0
    options = (ctypes.c_char_p * 2)(f"--gpu-architecture={arch}".encode(), b"--std=c++17")
    status = nvrtc.nvrtcCompileProgram(program, 2, options)
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    if status != 0 or log.value:
        raise SystemExit(log.value.decode())
    nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
    image = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetCUBIN(program, image)
    return image.raw


def inspect(image):
    """By kernel: registers, stack, static shared memory in bytes; counts of instructions."""
    tool = shutil.which("cuobjdump") or site("triton/backends/nvidia/bin/cuobjdump")
    if not tool:
        raise SystemExit("no cuobjdump: install the CUDA toolkit, or `pip install triton`")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(image)
        file.flush()
        ask = lambda option: subprocess.run([tool, option, file.name], check=True, capture_output=True, text=True).stdout
        usage, code = ask("--dump-resource-usage"), ask("--dump-sass")
    kernels = {}
    for name, numbers in re.findall(r"Function (\w+):\s*\n\s*(REG:.*)", usage):
        of = dict(pair.split(":")[:2] for pair in numbers.split() if pair.count(":") == 1)
        kernels[name] = dict(registers=int(of["REG"]), stack=int(of["STACK"]), shared=int(of["SHARED"]), local=int(of["LOCAL"]))
    for part in code.split("Function : ")[1:]:
        name = part.split(None, 1)[0]
        counts = collections.Counter(re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", part, re.M))
        kernels[name]["counts"] = counts
    return kernels


def count(kernel, *beginnings):
    return sum(n for name, n in kernel["counts"].items() if name.startswith(beginnings))


def blocks_per_processor(kernel, arch, threads):
    # Registers are given to warps by 256, shared memory of a block by 128 bytes; the 1024 that the system takes are counted by cuobjdump.
    by_registers = REGISTERS // (math.ceil(kernel["registers"] * 32 / 256) * 256 * (threads // 32))
    shared = math.ceil(kernel["shared"] / 128) * 128
    return min(by_registers, SHARED.get(arch, SHARED["sm_90"]) // max(shared, 1), MOST_THREADS // threads)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--gpu", choices=GPUS, default="h100")
    parser.add_argument("--nvrtc", default=site("nvidia/cu13/lib/libnvrtc.so.1?") or site("nvidia/cuda_nvrtc/lib/libnvrtc.so.1?"))
    parser.add_argument("--kernels", action="store_true", help="registers, occupancy and instructions of each kernel")
    arguments = parser.parse_args()
    gpu = GPUS[arguments.gpu]

    source = (arguments.folder / "step.cu").read_text()
    kernels = inspect(compile_source(source, arguments.arch, arguments.nvrtc))
    launches = list(csv.DictReader((arguments.folder / "launches.csv").open()))
    kinds = collections.defaultdict(lambda: collections.defaultdict(float))
    seen = {}
    for launch in launches:
        kernel = kernels[launch["kernel"]]
        threads = int(launch["threads"])
        blocks = math.prod(int(launch[f"blocks_{side}"]) for side in "xyz")
        slots = gpu["processors"] * blocks_per_processor(kernel, arguments.arch, threads)
        moved = int(launch["read_bytes"]) + int(launch["written_bytes"])
        flop = float(launch["flop"])
        # The last wave of blocks takes as long as a full one; memory is shared by fewer.
        full = math.ceil(blocks / slots) * slots / blocks if blocks > slots else 1 / min(1, blocks / gpu["processors"])
        by_memory, by_products = moved / gpu["bandwidth"], flop / gpu["products"] * (full if flop else 1)
        seconds = max(by_memory, by_products) + gpu["launch"]
        kind = kinds[launch["what"]]
        for key, value in dict(launches=1, moved=moved, flop=flop, seconds=seconds).items():
            kind[key] += value
        seen.setdefault(launch["kernel"], (launch, threads))

    if arguments.kernels:
        print("| kernel | threads | registers | stack | shared KB | blocks per SM | occupancy | HMMA | LDSM | LDGSTS | loads 128/64/32 | stores 128/64/32 |")
        print("| --- |" + " ---: |" * 11)
        for name, (launch, threads) in seen.items():
            kernel = kernels[name]
            resident = blocks_per_processor(kernel, arguments.arch, threads)
            wide = lambda op: "/".join(
                str(sum(n for i, n in kernel["counts"].items() if i.startswith(op) and (bits in i if bits else not re.search(r"\.(128|64)\b", i))))
                for bits in [".128", ".64", ""]
            )
            print(
                f"| {name} | {threads} | {kernel['registers']} | {kernel['stack']} | {kernel['shared'] / 1024:.1f} | {resident} "
                f"| {resident * threads / MOST_THREADS:.0%} | {count(kernel, 'HMMA')} | {count(kernel, 'LDSM')} | {count(kernel, 'LDGSTS')} "
                f"| {wide('LDG.')} | {wide('STG.')} |"
            )
        spilled = [name for name in seen if count(kernels[name], "LDL", "STL")]
        print("\nSpilled: " + (", ".join(spilled) or "none"))
        return

    total = sum(kind["seconds"] for kind in kinds.values())
    print("| kind | launches | GB moved | GFLOP | predicted ms | share |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for what, kind in sorted(kinds.items(), key=lambda item: -item[1]["seconds"]):
        print(
            f"| {what} | {kind['launches']:.0f} | {kind['moved'] / 1e9:.2f} | {kind['flop'] / 1e9:.0f} | {kind['seconds'] * 1e3:.2f} "
            f"| {kind['seconds'] / total:.0%} |"
        )
    moved, flop = (sum(kind[key] for kind in kinds.values()) for key in ("moved", "flop"))
    print(f"| all | {len(launches)} | {moved / 1e9:.2f} | {flop / 1e9:.0f} | {total * 1e3:.2f} | 100 % |")


main()
