"""House rules that no linter knows: `make check-rules`. Prints one line for each breach and fails when there is any.

Each rule is a generator over the tracked files, in the order of `RULES`. A rule without a test in `tools/tests` is no
rule. This file neither mends nor measures anything.
"""

import ast
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

MAX_LINES = 400
MAX_TEST_LINES = 600
MAX_FUNCTION_LINES = 60
MAX_DEAD_LINES = 3
MAX_FILE_BYTES = 1 << 20

# Files that outgrow a limit for a reason that will not go away.
LARGE_FILES = {
    "server/text_generation_server/embedded/model.safetensors",
    # Goes when a run of the recipe ships.
    "tools/embedded_model/start.safetensors",
}
# The only modules that may switch the lint off, each with its proof obligations in its header.
UNSAFE_FILES = ("router/src/images/resize/",)
# Where Rust may look at flags and environment: the programs, and what parses for them.
ENVIRONMENT_FILES = ("router/src/args/", "launcher/src/args", "launcher/src/main.rs", "launcher/src/bin/")
# Who may use protobuf types in the router, and what only the API may use.
PROTOBUF_FILES = ("router/src/shard/", "proto/", "router/benches/", "router/tests/")
GENERATED = ("server/text_generation_server/pb/",)

# Router modules from top to bottom: a module uses those below it, never those above. Those on one line are neighbours.
ROUTER_LAYERS = (
    ("run", "config"),
    ("server",),
    ("api",),
    ("telemetry",),
    ("engine",),
    ("shard",),
    ("grammar",),
    ("prompt", "sampling", "detokenize"),
    ("images",),
    ("families", "prepared"),
    ("args", "timeline"),
)

MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:work|farm|home/[a-z]+|Users/[A-Za-z]+)/|/opt/(?:pypi|wheels)|/tmp/bash_")
TODO = re.compile(r"\b(?:TODO|FIXME|XXX)\b(?!\(#\d+\))")
UNFINISHED = re.compile(r"\btodo!\(|\bunimplemented!\(|raise NotImplementedError")
IGNORED_TEST = re.compile(r"#\[ignore\]")
BARE_SKIP = re.compile(r"pytest\.(?:skip\(\s*\)|mark\.(?:skip|skipif|xfail)\s*$)|mark\.(?:skip|xfail)\(\s*\)")
EARLY_RETURN = re.compile(r"if not .*(?:exists\(\)|is_file\(\))\s*[:{]\s*return\b|if !.*exists\(\) \{ return")
DEAD_RUST = re.compile(r"^\s*//(?![/!]).*(?:[;{}]|\)\?|=> .*,)\s*$")
DEAD_PYTHON = re.compile(
    r"^\s*#\s*(?:(?:def|class|if|for|while|with|return|import|from|try)\b.*[:)]?\s*$"
    r"|\w[\w.\[\]]*\s*=\s*\S|\w[\w.]*\(.*\)$)"
)


@dataclass(frozen=True)
class Source:
    """One tracked text file."""

    path: str
    text: str

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def is_test(self) -> bool:
        """Tests, benchmarks and examples: they may be longer, and set their own scene."""
        pattern = r"(^|/)(tests?|benches|examples|integration-tests)(/|\.rs$)|(^|/)test_\w+\.py$"
        return re.search(pattern, self.path) is not None

    @property
    def is_code(self) -> bool:
        return self.path.endswith((".rs", ".py")) and not self.path.startswith(GENERATED)

    def matches(self, pattern: re.Pattern[str]) -> Iterator[int]:
        """Numbers of the lines that match."""
        return (number for number, line in enumerate(self.lines, 1) if pattern.search(line))


Breaches = Iterator[str]


def file_sizes(source: Source) -> Breaches:
    limit = MAX_TEST_LINES if source.is_test else MAX_LINES
    if source.is_code and len(source.lines) > limit:
        yield f"{source.path}: {len(source.lines)} lines, at most {limit}: which name is missing?"


def function_lengths(source: Source) -> Breaches:
    """Python only: clippy counts the lines of Rust functions."""
    if not source.path.endswith(".py") or not source.is_code:
        return
    for node in ast.walk(ast.parse(source.text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > MAX_FUNCTION_LINES:
            yield f"{source.path}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}"


def header_docs(source: Source) -> Breaches:
    """Every module says what it is, in its first lines. A `tests.rs` is part of the module beside it."""
    if not source.is_code or not source.text.strip() or source.path.endswith("/tests.rs"):
        return
    if source.path.endswith(".py"):
        documented = ast.get_docstring(ast.parse(source.text)) is not None
    else:
        documented = source.text.lstrip().startswith("//!")
    if not documented:
        yield f"{source.path}: no header that says what this module is"


def dead_code(source: Source) -> Breaches:
    """Runs of comment lines that read like statements."""
    if not source.is_code:
        return
    pattern = DEAD_PYTHON if source.path.endswith(".py") else DEAD_RUST
    run = 0
    for number, line in enumerate([*source.lines, ""], 1):
        if pattern.match(line):
            run += 1
            continue
        if run > MAX_DEAD_LINES:
            yield f"{source.path}:{number - run}: {run} lines of code in comments"
        run = 0


def loose_ends(source: Source) -> Breaches:
    """TODO with an issue number only; nothing unfinished; no test that is silently left out."""
    if not source.is_code or source.path in RULE_FILES:
        return
    for number in source.matches(TODO):
        yield f"{source.path}:{number}: TODO without an issue number, as in TODO(#12)"
    for number in source.matches(UNFINISHED):
        yield f"{source.path}:{number}: unfinished"
    for number in source.matches(IGNORED_TEST):
        yield f"{source.path}:{number}: a test is ignored without a reason"
    for number in source.matches(BARE_SKIP):
        yield f"{source.path}:{number}: a test is skipped without a reason"
    if source.is_test:
        for match in EARLY_RETURN.finditer(source.text):
            number = source.text.count("\n", 0, match.start()) + 1
            yield f"{source.path}:{number}: a test that ends early when something is missing; let it fail"


def unsafe_code(source: Source) -> Breaches:
    if not source.path.endswith(".rs") or source.path.startswith(UNSAFE_FILES):
        return
    for number in source.matches(re.compile(r"\bunsafe\s*(?:\{|fn\b|impl\b)|allow\(unsafe_code\)")):
        yield f"{source.path}:{number}: unsafe code outside {', '.join(UNSAFE_FILES)}"


def environment(source: Source) -> Breaches:
    if not source.path.endswith(".rs") or source.is_test or source.path.startswith(ENVIRONMENT_FILES):
        return
    for number in source.matches(re.compile(r"\benv::(?:var|vars|var_os|args|args_os)\b")):
        yield f"{source.path}:{number}: flags and environment are read in args; everything below receives values"


def protobuf(source: Source) -> Breaches:
    if not source.path.endswith(".rs") or source.path.startswith(PROTOBUF_FILES) or source.is_test:
        return
    for number in source.matches(re.compile(r"\btext_generation_proto\b|\bprost::")):
        yield f"{source.path}:{number}: protobuf types stay in router/src/shard"


def router_edges(source: Source) -> Breaches:
    """Modules of the router use what is below them."""
    place = re.match(r"router/src/(\w+)", source.path)
    if place is None or not source.path.endswith(".rs") or source.is_test or place[1] in {"lib", "main"}:
        return
    height = router_height(place[1])
    if height is None:
        yield f"{source.path}: module {place[1]} has no place in ROUTER_LAYERS"
        return
    for number, line in enumerate(source.lines, 1):
        for used in re.findall(r"\bcrate::(\w+)", line.split("//")[0]):
            other = router_height(used)
            if other is not None and other < height:
                yield f"{source.path}:{number}: {place[1]} is below {used} and must not use it"


def router_height(module: str) -> int | None:
    """Line of a module in `ROUTER_LAYERS`; smaller is higher."""
    return next((height for height, row in enumerate(ROUTER_LAYERS) if module in row), None)


def machine_paths(source: Source) -> Breaches:
    if source.path in RULE_FILES:
        return
    for number in source.matches(MACHINE_PATHS):
        yield f"{source.path}:{number}: a path of one machine"


RULES: tuple[Callable[[Source], Breaches], ...] = (
    file_sizes,
    function_lengths,
    header_docs,
    dead_code,
    loose_ends,
    unsafe_code,
    environment,
    protobuf,
    router_edges,
    machine_paths,
)
# These name what they forbid.
RULE_FILES = {"tools/tidy.py", "tools/tests/test_tidy.py"}


def generated_types(repository: Path) -> Breaches:
    """The committed protobuf types are what the generator makes of the proto file today."""
    from generate_pb import GENERATED as FILES
    from generate_pb import PACKAGE, generate

    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        for name in FILES:
            committed = repository / "server" / PACKAGE / name
            if not committed.is_file() or committed.read_bytes() != (Path(folder) / PACKAGE / name).read_bytes():
                yield f"server/{PACKAGE}/{name}: not what proto/shard.proto says; run make proto"


def lock_files(repository: Path) -> Breaches:
    """What `make run` installs, and what goldens are made with, is a part of what the tests ran with."""
    names = ("runtime", "reference", "test")
    pins = {name: pinned((repository / "requirements" / f"{name}.lock").read_text()) for name in names}
    for name in names[:2]:
        for requirement in sorted(pins[name] - pins["test"]):
            yield f"requirements/{name}.lock: {requirement} is not what test.lock has; run make lock"


def pinned(lock: str) -> set[str]:
    """Pins of a lock file."""
    return set(re.findall(r"^[\w.-]+==[\w.+!-]+", lock, re.MULTILINE))


def large_files(repository: Path, paths: list[str]) -> Breaches:
    for path in paths:
        size = (repository / path).stat().st_size if (repository / path).is_file() else 0
        if size > MAX_FILE_BYTES and path not in LARGE_FILES:
            yield f"{path}: {size >> 20} MiB in git"


def tracked(repository: Path) -> list[str]:
    """Files that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True)
    return sorted(set(listed.stdout.splitlines()))


def sources(repository: Path, paths: list[str]) -> Iterator[Source]:
    """The text files among them."""
    for path in paths:
        try:
            yield Source(path, (repository / path).read_text(encoding="utf-8"))
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            # Weights and pictures, and files that were deleted a moment ago.
            continue


def breaches(repository: Path) -> Breaches:
    """Everything that is wrong in a repository."""
    paths = tracked(repository)
    for source in sources(repository, paths):
        for rule in RULES:
            yield from rule(source)
    yield from large_files(repository, paths)
    yield from lock_files(repository)
    yield from generated_types(repository)


def main() -> int:
    found = list(breaches(REPOSITORY))
    for breach in found:
        print(breach)
    print(f"tidy: {len(found)} breaches" if found else "tidy: nothing to say")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
