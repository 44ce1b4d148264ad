"""The module against the program: `TOKENFORMER=target/release/tokenformer python3 python/test_tokenformer.py`."""

import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tokenformer  # noqa: E402

try:
    import numpy
except ImportError:
    numpy = None

SETTINGS = """
[model]
num_layers = 1
hidden_size = 16
num_attention_heads = 2
seq_length = 16
qkv_slot_num = 8
proj_slot_num = 8
ffn_slot_num = 16
[train]
max_steps = 10
eval_interval = 5
warmup_fraction = 0.0
log_interval = 1
"""


class Module(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = lambda name: os.path.join(folder.name, name)

    def write(self, name, header, data=b""):
        text = json.dumps(header).encode()
        with open(self.path(name), "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text + data)
        return self.path(name)

    def test_a_run(self):
        run = self.path("run")
        with open(self.path("run.toml"), "w") as file:
            file.write(SETTINGS)
        tokenformer.run("train", "-c", self.path("run.toml"), "--out", run, "--tune", "off", "-q", stdout=subprocess.DEVNULL)
        losses = [row["loss"] for row in tokenformer.metrics(run, kind="train")]
        self.assertEqual(len(losses), 10)
        self.assertEqual([row["step"] for row in tokenformer.metrics(run, "eval")], [0, 5, 10])
        answer = tokenformer.run("eval", run, json=True, stderr=subprocess.DEVNULL)
        self.assertEqual(answer["step"], 10)
        self.assertTrue(0 < answer["loss"] < 10)
        with self.assertRaises(subprocess.CalledProcessError):
            tokenformer.run("eval", self.path("none"), stderr=subprocess.DEVNULL)
        with self.assertRaisesRegex(tokenformer.Error, "none.*exit code 2"):
            tokenformer.run("eval", self.path("none"), json=True, stderr=subprocess.DEVNULL)
        self.assertIn("none", tokenformer.run("eval", self.path("none"), json=True, check=False, stderr=subprocess.DEVNULL)["error"])
        with self.assertRaisesRegex(tokenformer.Error, "unexpected argument '--json'"):
            tokenformer.run("man", self.path("man"), json=True, stderr=subprocess.DEVNULL)
        with self.assertRaisesRegex(FileNotFoundError, "is no run"):
            tokenformer.metrics(self.path("none"))
        if numpy is not None:
            tensors = tokenformer.load(run)
            self.assertEqual(tensors["layers.0.mlp.key_param_tokens"].shape, (16, 16))
            self.assertTrue(all(numpy.isfinite(tensor).all() for tensor in tensors.values()))

    def test_a_line_that_is_being_written(self):
        with open(self.path("metrics.jsonl"), "w") as file:
            file.write('{"kind": "train", "step": 1}\n{"kind": "eval", "step": 1}\n{"kind": "tra')
        self.assertEqual(len(tokenformer.metrics(self.path("metrics.jsonl"))), 2)

    @unittest.skipIf(numpy is None, "numpy is not installed")
    def test_types_and_damage(self):
        header = {
            "a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
            "b": {"dtype": "F16", "shape": [1, 1], "data_offsets": [4, 6]},
            "__metadata__": {"x": "y"},
        }
        path = self.write("ok", header, struct.pack("<HHe", 0x3F80, 0xC000, 0.5))
        tensors = tokenformer.load(path)
        self.assertEqual(tensors["a"].tolist(), [1.0, -2.0])
        self.assertEqual((tensors["b"].tolist(), tensors["b"].dtype), ([[0.5]], numpy.float16))
        self.assertEqual(list(tokenformer.load(path, ["b"])), ["b"])
        with self.assertRaises(KeyError):
            tokenformer.load(path, ["c"])
        with self.assertRaisesRegex(FileNotFoundError, "no file or run"):
            tokenformer.load(self.path("none"))
        with self.assertRaisesRegex(ValueError, "ends in the middle of b"):
            tokenformer.load(self.write("cut", header, b"12345"))
        with open(self.path("text"), "w") as file:
            file.write("This is no checkpoint at all.")
        with self.assertRaisesRegex(ValueError, "has no header"):
            tokenformer.load(self.path("text"))


if __name__ == "__main__":
    unittest.main()
