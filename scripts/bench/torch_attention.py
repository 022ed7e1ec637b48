"""PyTorch's attention on the same work, in a process of its own."""

import json
import subprocess
from pathlib import Path
from typing import Any

from vit_jax.errors import InputError


class TorchAttention:
    """PyTorch's full attention, and its flex_attention with the masks of our patterns.

    Attributes:
        runs: by name, what of it runs there: "forward", "both" with the gradients.
    """

    def __init__(self, python: str, tokens: int, patterns: list[str], args: Any):
        peer = Path(__file__).with_name("torch_peer.py")
        facts = [str(x) for x in (tokens, args.batch, args.heads, args.head_dim)]
        options = [f"--pattern={each}" for each in patterns]
        command = [python, str(peer), *facts, f"--dtype={args.dtype}", f"--seconds={args.seconds}", *options]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.runs = self._answer()

    def seconds(self, name: str, what: str) -> float:
        """Return the seconds of a call, "forward" or "both" with its gradients."""
        print(json.dumps([name, what]), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            raise InputError("--vs=torch: its process ended, see above; --peer=PYTHON names a Python that has PyTorch")
        return json.loads(line)
