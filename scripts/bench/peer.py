"""A contender in its own process, under any Python."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from vit_jax.errors import InputError


class Peer:
    """A script of this folder that answers each line of its input with a line of JSON, and ends with its input.

    Attributes:
        facts: what it says when it is ready.
    """

    def __init__(self, python: str, script: str, *arguments: str, needs: str):
        check_python(python)
        self._complaint = f"--peer={python}: its process ended, see above; it must be a Python that has {needs}"
        command = [python, str(Path(__file__).with_name(script)), *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = self._answer()

    def ask(self, question: Any = None) -> Any:
        """Return the answer to a question, which is sent as JSON."""
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> Any:
        """End its input, and return what it says last."""
        self._process.stdin.close()
        return self._answer()

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            raise InputError(self._complaint)
        return json.loads(line)


def check_python(python: str) -> None:
    """Raise `InputError` if there is no such program."""
    if shutil.which(python) is None:
        raise InputError(f"--peer={python}: no such Python")
