"""tokenformer from Python: start the program, read what it writes.

    import tokenformer
    tokenformer.run("train", "input.txt", "--preset", "shakespeare-char", "--out", "runs/mine")
    rows = tokenformer.metrics("runs/mine", kind="eval")     # pandas.DataFrame(rows)
    tensors = tokenformer.load("runs/mine")                  # name -> numpy array

Pure Python over the program and its files. Only `load` needs numpy.
"""

import json as _json
import os
import shutil
import struct
import subprocess
import sysconfig

__all__ = ["Error", "load", "metrics", "program", "run"]

# Where a header is larger, it is no checkpoint: the limit of the safetensors library.
_LARGEST_HEADER = 100_000_000


class Error(subprocess.CalledProcessError):
    """A command that failed; `message` is the sentence that it ended with."""

    def __init__(self, returncode, command, message):
        super().__init__(returncode, command)
        self.message = message

    def __str__(self):
        return f"{self.message} (exit code {self.returncode})"


def program():
    """Path of the program: `TOKENFORMER`, else the one of this environment, else the first in PATH.

    Raises FileNotFoundError where there is none.
    """
    named = os.environ.get("TOKENFORMER")
    if named:
        return named
    here = shutil.which("tokenformer", path=sysconfig.get_path("scripts"))
    found = here or shutil.which("tokenformer")
    if found is None:
        raise FileNotFoundError("no program tokenformer in this environment or in PATH; name it in TOKENFORMER")
    return found


def run(*args, json=False, check=True, **options):
    """Runs the program with `args`, each of which is made a string, and waits for its end.

    With `json`, for the commands that have `--json`, returns the last line that it prints as a dict, and progress still goes to the
    terminal; else a `subprocess.CompletedProcess`. `options` go to `subprocess.run`. Where the exit code is not 0, unless `check`
    is false, raises `subprocess.CalledProcessError`, with `json` an `Error` that says what the program says.
    """
    command = [program(), *(os.fspath(a) if isinstance(a, os.PathLike) else str(a) for a in args)]
    if not json:
        return subprocess.run(command, check=check, **options)
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True, **options)
    try:
        answer = _json.loads(done.stdout.rstrip("\n").rpartition("\n")[2])
    except ValueError:
        # It was killed, or the command has no --json and said so.
        raise Error(done.returncode, command, "it ended without an answer; what it said is on standard error") from None
    if check and done.returncode != 0:
        raise Error(done.returncode, command, answer.get("error", "it ended without a reason"))
    return answer


def metrics(run, kind=None):
    """The lines of a run's metrics.jsonl as dicts, of all kinds or of one: train, eval, growth, sample, run, ...

    `run` is the directory of a run or the file. A last line that was cut off by a crash is left out. Raises FileNotFoundError
    where there is none.
    """
    path = os.path.join(run, "metrics.jsonl") if os.path.isdir(run) else run
    if not os.path.exists(path):
        raise FileNotFoundError(f"{run} is no run: there is no file {path}")
    rows = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            # The only line without an end is one that is being written.
            if not line.endswith("\n"):
                break
            row = _json.loads(line)
            if kind is None or row.get("kind") == kind:
                rows.append(row)
    return rows


def load(path, names=None):
    """Tensors of a checkpoint as numpy arrays, by name; with `names`, only those.

    `path` is a file, or the directory of a run, of which the newest checkpoint is taken. Arrays of 16-bit floats come as
    they are, bfloat16 as float32. Raises ValueError where it is no safetensors file and KeyError for a name that it lacks.
    """
    import numpy

    types = {
        "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
        "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
    }  # fmt: skip
    file = _newest(path) if os.path.isdir(path) else path
    if not os.path.exists(file):
        raise FileNotFoundError(f"there is no file or run {file}")
    size = os.path.getsize(file)
    with open(file, "rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(size - 8, _LARGEST_HEADER):
            raise ValueError(f"{file} is no safetensors file: it has no header")
        try:
            header = _json.loads(opened.read(length))
        except ValueError:
            raise ValueError(f"{file} is no safetensors file: its header is no JSON") from None
        header.pop("__metadata__", None)
        tensors = {}
        for name in header if names is None else names:
            entry = header[name]
            begin, end = entry["data_offsets"]
            opened.seek(8 + length + begin)
            data = opened.read(end - begin)
            if len(data) != end - begin:
                raise ValueError(f"{file} ends in the middle of {name}")
            if entry["dtype"] == "BF16":
                words = numpy.frombuffer(data, "<u2").astype("<u4") << 16
                array = words.view("<f4")
            else:
                array = numpy.frombuffer(bytearray(data), types[entry["dtype"]])
            tensors[name] = array.reshape(entry["shape"])
    return tensors


def _newest(run):
    folder = os.path.join(run, "checkpoints")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{run} is no run: there is no folder {folder}")
    steps = [name for name in os.listdir(folder) if name.startswith("step-") and name.endswith(".safetensors")]
    if not steps:
        raise FileNotFoundError(f"{folder} has no checkpoint of a step")
    return os.path.join(folder, max(steps))
