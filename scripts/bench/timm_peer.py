"""timm on the same work, in its own process, under any Python that has PyTorch and timm.

For each line "N" of its input it runs N steps and prints the seconds they took; it exits at the end of the input.
"""

import argparse
import json
import resource
import sys
import time

import timm
import torch

parser = argparse.ArgumentParser()
parser.add_argument("what", choices=["train", "infer"])
parser.add_argument("fields", type=json.loads, help="of VisionTransformer")
parser.add_argument("--batch", type=int, required=True)
parser.add_argument("--compile", action="store_true")
args = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
train = args.what == "train"
torch.manual_seed(0)
torch.set_float32_matmul_precision("high")
images = torch.randn(args.batch, 3, *args.fields["img_size"], device=device)
labels = torch.randint(1000, (args.batch,), device=device)


def build():
    model = timm.models.VisionTransformer(**args.fields, num_classes=1000).to(device).train(train)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True) if train else None
    if not train and device == "cuda":
        model = model.bfloat16()
    # On a CPU with AVX-512, PyTorch 2.14 corrupts its heap with "max-autotune" (nano/4 on 64 pictures of 32 pixels).
    mode = "max-autotune-no-cudagraphs" if train and device == "cuda" else None
    forward = torch.compile(model, mode=mode) if args.compile else model
    inputs = images if train or device == "cpu" else images.bfloat16()

    def step():
        if not train:
            with torch.inference_mode():
                return forward(inputs)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = torch.nn.functional.cross_entropy(forward(inputs), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss

    return step


def run(step, number):
    start = time.perf_counter()
    for _ in range(number):
        result = step()
    result.float().sum().item()  # Waits for the device.
    return time.perf_counter() - start


def fastest_backend():
    """Return PyTorch's fastest attention backend for this work, found by trying each."""
    if device == "cpu":
        return None
    from torch.nn.attention import SDPBackend, sdpa_kernel

    seconds = {}
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        torch._dynamo.reset()
        with sdpa_kernel(backend):
            try:
                step = build()
                run(step, 3)
                seconds[backend] = run(step, 5)
            except RuntimeError as error:
                print(f"{backend}: {error}", file=sys.stderr)
    backend = min(seconds, key=seconds.get)
    torch._dynamo.reset()
    sdpa_kernel(backend).__enter__()
    return backend.name


backend = fastest_backend()
step = build()
begin = time.perf_counter()
run(step, 1)
first = time.perf_counter() - begin
run(step, 2)
versions = {"torch": torch.__version__, "timm": timm.__version__}
print(json.dumps({"first": first, "attention": backend, "threads": torch.get_num_threads(), **versions}), flush=True)
for line in sys.stdin:
    print(run(step, int(line)), flush=True)
resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
peak = torch.cuda.max_memory_allocated() if device == "cuda" else resident
print(json.dumps({"peak": peak}), flush=True)
