"""Each rule of `tidy.py` on a file that breaks it and on one that does not."""

import shutil
import subprocess
from pathlib import Path

import generate_pb
import pytest
import tidy

HEADER = "//! What this is.\n"
DOCSTRING = '"""What this is."""\n'


def check(rule: str, path: str, text: str, breaches: int) -> None:
    """The only place that calls rules."""
    found = list(getattr(tidy, rule)(tidy.Source(path, text)))
    assert len(found) == breaches, found
    assert all(breach.startswith(path) for breach in found)


@pytest.mark.parametrize(
    ("path", "lines", "breaches"),
    [
        ("router/src/prompt/mod.rs", 400, 0),
        ("router/src/prompt/mod.rs", 401, 1),
        ("router/src/prompt/tests.rs", 600, 0),
        ("server/tests/test_batch.py", 601, 1),
        ("server/text_generation_server/pb/shard_pb2.py", 5000, 0),
        ("docs/performance.md", 5000, 0),
    ],
)
def test_file_sizes(path: str, lines: int, breaches: int) -> None:
    check("file_sizes", path, "x\n" * lines, breaches)


@pytest.mark.parametrize(("lines", "breaches"), [(60, 0), (61, 1)])
def test_function_lengths(lines: int, breaches: int) -> None:
    check("function_lengths", "tools/a.py", "def f() -> None:\n" + "    x = 1\n" * (lines - 1), breaches)


@pytest.mark.parametrize(
    ("path", "text", "breaches"),
    [
        ("router/src/a.rs", HEADER + "use b;\n", 0),
        ("router/src/a.rs", "use b;\n", 1),
        ("router/src/a/tests.rs", "use super::*;\n", 0),
        ("server/a.py", DOCSTRING, 0),
        ("server/a.py", "import b\n", 1),
        ("server/a/__init__.py", "", 0),
        ("proto/shard.proto", "syntax", 0),
    ],
)
def test_header_docs(path: str, text: str, breaches: int) -> None:
    check("header_docs", path, text, breaches)


@pytest.mark.parametrize(
    ("path", "text", "breaches"),
    [
        ("a.rs", "    // let x = 1;\n" * 3, 0),
        ("a.rs", "    // let x = 1;\n" * 4, 1),
        ("a.rs", "/// let x = 1;\n" * 4, 0),
        ("a.rs", "// Why this is so, in words.\n" * 4, 0),
        ("a.py", "# x = f(1)\n" * 4, 1),
        ("a.py", "# for x in y:\n# f(x)\n# return x\n# import z\n", 1),
        ("a.py", "# Why this is so, in words.\n" * 4, 0),
    ],
)
def test_dead_code(path: str, text: str, breaches: int) -> None:
    check("dead_code", path, text, breaches)


@pytest.mark.parametrize(
    ("path", "text", "breaches"),
    [
        ("a.rs", "// TODO: later", 1),
        ("a.rs", "// TODO(#12): later", 0),
        ("a.rs", "todo!()", 1),
        ("a.py", "raise NotImplementedError", 1),
        ("a/tests.rs", "#[ignore]", 1),
        ("a/tests.rs", '#[ignore = "takes an hour: make soak"]', 0),
        ("tests/test_a.py", "    pytest.skip()", 1),
        ("tests/test_a.py", '    pytest.skip("needs a GPU")', 0),
        ("tests/test_a.py", "@pytest.mark.skip()", 1),
        ("tests/test_a.py", "    if not path.exists():\n        return\n", 1),
        ("a.py", "    if not path.exists():\n        return\n", 0),
    ],
)
def test_loose_ends(path: str, text: str, breaches: int) -> None:
    check("loose_ends", path, text, breaches)


@pytest.mark.parametrize(
    ("path", "text", "breaches"),
    [
        ("router/src/a.rs", "unsafe { f() }", 1),
        ("router/src/a.rs", "#[allow(unsafe_code)]", 1),
        ("router/src/a.rs", "// nothing unsafe here", 0),
        ("router/src/images/resize/simd.rs", "unsafe { f() }", 0),
    ],
)
def test_unsafe_code(path: str, text: str, breaches: int) -> None:
    check("unsafe_code", path, text, breaches)


@pytest.mark.parametrize(
    ("path", "breaches"), [("router/src/api/mod.rs", 1), ("router/src/args/mod.rs", 0), ("launcher/src/main.rs", 0)]
)
def test_environment(path: str, breaches: int) -> None:
    check("environment", path, 'let home = std::env::var("HOME");', breaches)


@pytest.mark.parametrize(("path", "breaches"), [("router/src/engine/mod.rs", 1), ("router/src/shard/mod.rs", 0)])
def test_protobuf(path: str, breaches: int) -> None:
    check("protobuf", path, "use text_generation_proto as pb;", breaches)


@pytest.mark.parametrize(
    ("path", "text", "breaches"),
    [
        ("router/src/api/mod.rs", "use crate::engine::Engine;", 0),
        ("router/src/engine/mod.rs", "use crate::api::Error;", 1),
        ("router/src/families/llava.rs", "use crate::images::Image;", 1),
        ("router/src/families/llava.rs", "// see crate::images", 0),
        ("router/src/engine/tests.rs", "use crate::api::Error;", 0),
        ("router/src/lib.rs", "use crate::api::Error;", 0),
        ("router/src/unheard_of.rs", "", 1),
    ],
)
def test_router_edges(path: str, text: str, breaches: int) -> None:
    check("router_edges", path, text, breaches)


@pytest.mark.parametrize(
    ("text", "breaches"), [("see /home/ann/notes", 1), ("/tmp/text-generation", 0), ("https://a.org/work/b", 0)]
)
def test_machine_paths(text: str, breaches: int) -> None:
    check("machine_paths", "docs/a.md", text, breaches)


def test_generated_types_are_compared(tmp_path: Path) -> None:
    generate_pb.generate(tmp_path / "server")
    assert list(tidy.generated_types(tmp_path)) == []
    stale = tmp_path / "server" / generate_pb.PACKAGE / "shard_pb2.pyi"
    stale.write_text(stale.read_text() + "\n")
    assert len(list(tidy.generated_types(tmp_path))) == 1


def test_runtime_and_reference_are_part_of_what_was_tested(tmp_path: Path) -> None:
    locks = tmp_path / "requirements"
    locks.mkdir()
    (locks / "test.lock").write_text("a==1 \\\n    --hash=x\nb==2 ; sys_platform == 'linux' \\\n")
    for name in ("runtime", "reference"):
        (locks / f"{name}.lock").write_text("b==2 \\\n    --hash=x\n")
    assert list(tidy.lock_files(tmp_path)) == []
    for number, name in enumerate(("runtime", "reference"), 1):
        (locks / f"{name}.lock").write_text("b==3 \\\n    --hash=x\n")
        assert len(list(tidy.lock_files(tmp_path))) == number


def test_large_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(tidy.MAX_FILE_BYTES + 1))
    (tmp_path / "b").write_bytes(bytes(tidy.MAX_FILE_BYTES))
    assert len(list(tidy.large_files(tmp_path, ["a", "b", "gone"]))) == 1


def test_every_rule_has_its_test() -> None:
    tests = Path(__file__).read_text()
    for rule in tidy.RULES:
        assert f"def test_{rule.__name__}(" in tests, rule.__name__


def test_rules_run_over_new_files_too(tmp_path: Path) -> None:
    git = shutil.which("git")
    assert git is not None
    subprocess.run([git, "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "new.py").write_text("import os\n")
    (tmp_path / "picture").write_bytes(b"\xff\xfe\x00")
    found = [source.path for source in tidy.sources(tmp_path, tidy.tracked(tmp_path))]
    assert found == ["new.py"]
