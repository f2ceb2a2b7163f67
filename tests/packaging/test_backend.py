# SPDX-License-Identifier: MIT
"""Which library runs is never a secret: what is said when one is missing or broken."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import seq2seq_ext

PROGRAM = """
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import seq2seq_ext, torch
    from seq2seq_ext import ops
    at_import = len([w for w in caught if w.category is seq2seq_ext.BackendWarning])
    arguments = torch.ones(2, 3), torch.ones(2, 4), [torch.ones(12, 3), torch.ones(12, 4)]
    try:
        shapes = [list(ops.gru_step(*arguments).shape) for _ in range(3)]
    except RuntimeError as error:
        shapes = str(error)
said = [str(w.message) for w in caught if w.category is seq2seq_ext.BackendWarning]
where = [w.filename for w in caught if w.category is seq2seq_ext.BackendWarning]
print(json.dumps([at_import, shapes, said, where, seq2seq_ext.backend_info()]))
"""


COMPILED = """
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import seq2seq_ext, torch
    module = seq2seq_ext.nn.GRU(3, 4)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    x, lengths = torch.ones(2, 3, 3), torch.tensor([2, 0, 1])
    try:
        compiled(x)
        compiled(x, lengths=lengths)
        result = torch.equal(compiled(x, lengths=lengths)[0], module(x, lengths=lengths)[0])
    except RuntimeError as error:
        result = str(error)
said = [str(w.message) for w in caught if w.category is seq2seq_ext.BackendWarning]
print(json.dumps([result, said]))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with the Python files of the package and no library."""
    source = Path(seq2seq_ext.__file__).parent
    shutil.copytree(
        source,
        tmp_path / "seq2seq_ext",
        ignore=shutil.ignore_patterns("*.so", "__pycache__"),
    )
    return tmp_path


def _run(package: Path, strict: str = "0", program: str = PROGRAM) -> list:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(package), "SEQ2SEQ_EXT_STRICT": strict},
        cwd=package,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_missing_library_warns_once_and_the_reference_runs(package: Path):
    at_import, shapes, said, where, info = _run(package)
    assert at_import == 0
    assert shapes == [[2, 4]] * 3
    assert len(said) == 1
    assert "_C.abi3.so is not built" in said[0]
    assert where == ["<string>"], "the warning points at the caller's line"
    assert info["cpu"]["available"] is False
    assert info["cpu"]["problem"] == "_C.abi3.so is not built"


def test_missing_library_is_an_error_when_strict(package: Path):
    _, message, said, _, info = _run(package, strict="1")
    assert "SEQ2SEQ_EXT_STRICT is set: _C.abi3.so is not built" in message
    assert said == []
    assert info["strict"] is True


@pytest.mark.parametrize("strict", ["0", "1"])
def test_missing_library_is_no_secret_of_compiled_code(package: Path, strict: str):
    result, said = _run(package, strict, COMPILED)
    if strict == "1":
        assert "SEQ2SEQ_EXT_STRICT is set: _C.abi3.so is not built" in result
        assert said == []
    else:
        assert result is True
        assert len(said) == 1


def test_broken_library_is_reported(package: Path):
    (package / "seq2seq_ext" / "_C.abi3.so").write_text("this is no library" * 1000)
    _, shapes, said, _, info = _run(package)
    assert shapes == [[2, 4]] * 3
    assert len(said) == 1
    assert "_C.abi3.so does not load" in said[0]
    assert "invalid ELF header" in info["cpu"]["problem"]


@pytest.mark.skipif(not seq2seq_ext.backend_info()["cpu"]["available"], reason="library not built")
def test_backend_info_says_what_runs():
    info = seq2seq_ext.backend_info()
    assert info["version"] == seq2seq_ext.__version__
    assert Path(info["cpu"]["library"]).is_file()
    assert info["cpu"]["isa"] in {"avx512", "avx2", "baseline"}
    assert info["cpu"]["problem"] is None
    json.dumps(info)  # plain data
