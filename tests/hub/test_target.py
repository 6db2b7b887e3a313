from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import fsspec
import pytest
from datasets import Dataset, Features, List, Value, concatenate_datasets, load_dataset

from hf_evol.data.files import write_dataset
from hf_evol.errors import OutputError
from hf_evol.hub import target as module
from hf_evol.hub.record import PROVENANCE, read_provenance, write_provenance
from hf_evol.hub.target import Target, check_output, writing
from hf_evol.run.recipe import FILE_FORMATS


def check(output, overwrite):
    return check_output(output, overwrite, "method")


OLD, NEW = {"kind": "method", "run": "old"}, {"kind": "method", "run": "new"}


@pytest.fixture(autouse=True)
def here(tmp_path_factory, monkeypatch):
    """Where what can't be uploaded is kept."""
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


@pytest.fixture(params=["local", "memory"])
def output(request, tmp_path):
    """A place for a result that isn't there yet, on disk and in fsspec's memory."""
    if request.param == "local":
        yield str(tmp_path / "parent" / "out")
        return
    root = f"/{uuid.uuid4().hex}"
    yield f"memory:/{root}/out"
    memory = fsspec.filesystem("memory")
    if memory.exists(root):
        memory.rm(root, recursive=True)


def put(output, run, files=(), overwrite=True):
    with writing(check(output, overwrite)) as folder:
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(run["run"])
        write_provenance({**run}, folder)


def run_at(output):
    record = read_provenance(output)
    return {name: record[name] for name in ("kind", "run")}


def files_in(place):
    """Every file under a place, with its path from there."""
    fs, root = fsspec.url_to_fs(place)
    return sorted(path.removeprefix(root).lstrip("/") for path in fs.find(root))


def read(output, name):
    with fsspec.open(f"{output}/{name}", "r") as file:
        return file.read()


def beside(output):
    return files_in(output.rpartition("/")[0])


def test_a_result_is_written_with_its_folders(output):
    check(output, overwrite=False)
    put(output, NEW, ["README.md", "round_1/rows.jsonl"])
    assert files_in(output) == sorted(["README.md", PROVENANCE, "round_1/rows.jsonl"])
    assert run_at(output) == NEW
    assert beside(output) == sorted(["out/README.md", f"out/{PROVENANCE}", "out/round_1/rows.jsonl"])


def test_an_existing_result_is_refused(output):
    put(output, OLD)
    with pytest.raises(OutputError, match=r"exists.*--output.*--overwrite"):
        check(output, overwrite=False)


def test_an_earlier_result_is_replaced_on_request_with_all_its_files(output):
    put(output, OLD, ["README.md", "round_3/rows.jsonl"])
    check(output, overwrite=True)
    put(output, NEW, ["README.md", "round_1/rows.jsonl"])
    assert files_in(output) == sorted(["README.md", PROVENANCE, "round_1/rows.jsonl"])
    assert run_at(output) == NEW and "\nnew\n" in read(output, "README.md")


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_earlier_result_is_left_alone(output, overwrite):
    with fsspec.open(f"{output}/thesis.txt", "w", auto_mkdir=True) as file:
        file.write("mine")
    with pytest.raises(OutputError, match=f"{PROVENANCE} is missing" if overwrite else "exists"):
        check(output, overwrite)
    assert read(output, "thesis.txt") == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path, overwrite):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        check(str(tmp_path / "out"), overwrite)
    assert (tmp_path / "out").read_text() == "mine"


def test_an_upload_has_never_stopped_in_a_folder(tmp_path):
    listed = {"kind": "method", "unfinished": "x", "files": {"mine": {"bytes": 4, "sha256": "x"}}}
    write(str(tmp_path), PROVENANCE, json.dumps(listed | {"earlier": {"kind": "method"}}))
    write(str(tmp_path), "mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="exists"):
            check(str(tmp_path), overwrite)


@pytest.mark.parametrize("what", ["set", "recipe"])
def test_something_else_of_ours_is_refused(output, what):
    put(output, OLD)
    with pytest.raises(OutputError, match=f"holds a method, no {what}"):
        check_output(output, True, what)


@pytest.mark.parametrize("reads", ["", "/round_1", "/round_1/rows.jsonl"])
def test_what_is_read_from_is_not_replaced(tmp_path, reads):
    output = str(tmp_path / "out")
    put(output, OLD, ["round_1/rows.jsonl"])
    with pytest.raises(OutputError, match="is where the rows are read from"):
        check_output(output, True, "method", reads=output + reads)
    check_output(output, True, "method", reads=str(tmp_path / "output"))


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    check(str(tmp_path / "out"), overwrite=False)
    put(str(tmp_path / "out"), NEW)
    assert run_at(str(tmp_path / "out")) == NEW


def test_a_check_leaves_nothing_behind(tmp_path):
    check(str(tmp_path / "parent" / "out"), overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_relative_folder_and_a_home_folder_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    put("here", OLD)
    put("~/there", NEW)
    assert run_at(str(tmp_path / "here")) == OLD
    assert run_at(str(tmp_path / "there")) == NEW


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()], ids=repr)
def test_a_failure_leaves_the_old_result_whole_and_nothing_beside_it(output, error):
    put(output, OLD, ["README.md", "round_1/rows.jsonl"])
    before = beside(output)
    with pytest.raises(type(error)):
        with writing(check(output, overwrite=True)) as folder:
            (folder / "README.md").write_text("half")
            raise error
    assert beside(output) == before
    assert (run_at(output), read(output, "README.md")) == (OLD, "old")


def test_a_full_disk_is_told_with_what_to_do_and_leaves_the_old_result_whole(output):
    put(output, OLD)
    with pytest.raises(OutputError, match=r"No space left.*journal.*--output"):
        with writing(check(output, overwrite=True)):
            raise OSError(28, "No space left on device")
    assert run_at(output) == OLD


def test_a_failure_without_an_old_result_leaves_nothing(output):
    with pytest.raises(RuntimeError), writing(Target(output)) as folder:
        (folder / "README.md").write_text("half")
        raise RuntimeError
    assert not fsspec.filesystem(fsspec.utils.get_protocol(output)).exists(output)


def without_exchange(monkeypatch):
    """As on a system that can't exchange two folders at one stroke."""
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: object())


def test_a_failed_rename_puts_the_old_result_back_and_keeps_the_new_one(tmp_path, monkeypatch):
    output, rename = tmp_path / "out", Path.replace
    put(str(output), OLD)

    def fails_for_the_new_one(self, target):
        if (self / "new").exists():
            raise OSError(5, "Input/output error")
        return rename(self, target)

    without_exchange(monkeypatch)
    monkeypatch.setattr(Path, "replace", fails_for_the_new_one)
    with pytest.raises(OutputError, match=r"Input/output error.*result of this run is in .*out-2'"):
        put(str(output), NEW, ["new"])
    assert run_at(str(output)) == OLD and run_at(f"{output}-2") == NEW
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out-2"]


def test_a_failed_upload_does_not_pass_for_a_finished_set_and_can_be_repeated(monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    output, put_file = f"memory://{uuid.uuid4().hex}/out", MemoryFileSystem.put_file

    def fails_for_rows(self, lpath, rpath, **options):
        if rpath.endswith("rows.jsonl"):
            self.pipe_file(rpath, b"half")
            raise OSError(104, "Connection reset by peer")
        put_file(self, lpath, rpath)

    for overwrite in (False, True):  # into nothing, and over a result
        with monkeypatch.context() as broken:
            broken.setattr(MemoryFileSystem, "put_file", fails_for_rows)
            with pytest.raises(OutputError, match="Connection reset"):
                put(output, OLD, ["README.md", "rows.jsonl", "old"], overwrite=overwrite)
        with pytest.raises(OutputError, match="an upload has not ended"):
            read_provenance(output)
        put(output, NEW, ["README.md", "rows.jsonl"], overwrite=False)
        assert (run_at(output), read(output, "rows.jsonl")) == (NEW, "new")
        assert files_in(output) == ["README.md", PROVENANCE, "rows.jsonl"]


def write(output, name, text="mine"):
    with fsspec.open(f"{output}/{name}", "w", auto_mkdir=True) as file:
        file.write(text)


@pytest.mark.parametrize("name", ["notes.md", "seeds.jsonl", "round_1/more.jsonl", ".env", "run/checkpoint-1/weights"])
def test_files_beside_a_result_are_never_removed(output, name):
    put(output, OLD, ["README.md", "round_1/rows.jsonl"])
    write(output, name)
    before = files_in(output)
    with pytest.raises(OutputError, match=rf"holds '{name}', which hf_evol has not written.*move that file.*--output"):
        put(output, NEW, ["round_1/rows.jsonl"])
    assert files_in(output) == before and read(output, name) == "mine" and run_at(output) == OLD


def test_a_changed_file_is_not_removed(output):
    put(output, OLD, ["rows.jsonl"])
    write(output, "rows.jsonl", "of the user")
    with pytest.raises(OutputError, match=r"'rows.jsonl', which has been changed since"):
        put(output, NEW)
    assert read(output, "rows.jsonl") == "of the user"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_link_in_a_result_points_to_stays(tmp_path, kind):
    output, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    put(str(output), OLD, ["rows.jsonl"])
    elsewhere.mkdir()
    (elsewhere / "data").write_text("mine")
    (output / "link").symlink_to(elsewhere if kind == "folder" else elsewhere / "data")
    with pytest.raises(OutputError, match="'link'"):
        put(str(output), NEW)
    assert (elsewhere / "data").read_text() == "mine" and (output / "link").is_symlink()


FOREIGN = [
    "{}", "[]", "null", '{"kind": "evolved"}', '{"kind": "method", "files": 3}', '{"kind": "method", "files": {"../x": {"bytes": 1, "sha256": "a"}}}',
    '{"kind": "method", "files": {"/etc/passwd": {"bytes": 1, "sha256": "a"}}}', '{"kind": "method", "files": {"x": {}}}', '{"unfinished": true}',
    '{"kind": "recipe", "files": 1}', '{"kind": "../../secret", "files": {}}', '{"kind": "evolved", "files": {}, "title": "x"}',
]  # fmt: skip


@pytest.mark.parametrize("text", FOREIGN)
def test_any_file_called_provenance_makes_no_result(output, text):
    write(output, PROVENANCE, text)
    write(output, "projects/thesis.txt")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"is not the result of an earlier run|exists"):
            check(output, overwrite)
    with pytest.raises(OutputError, match="holds no finished set"):
        read_provenance(output)
    assert read(output, "projects/thesis.txt") == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_two_runs_with_one_output_the_second_does_not_replace_the_first(output, overwrite):
    if overwrite:
        put(output, OLD | {"run": "former"})
    first, second = check(output, overwrite), check(output, overwrite)
    with writing(first) as folder:
        write_provenance({**NEW}, folder)
    with pytest.raises(OutputError, match=r"Another run has written|exists and is not"):
        with writing(second) as folder:
            write_provenance({**OLD}, folder)
    assert run_at(output) == NEW
    if output.startswith("/"):  # the second's is beside it, whole
        assert run_at(f"{output}-2") == OLD


def test_a_last_step_that_is_started_again_finds_its_own_result(output):
    target = check(output, False)
    for _ in range(2):
        with writing(target) as folder:
            (folder / "rows.jsonl").write_text("new")
            write_provenance({**NEW}, folder)
    assert run_at(output) == NEW and beside(output) == [f"out/{PROVENANCE}", "out/rows.jsonl"]


def test_a_file_that_comes_at_the_last_moment_stays(tmp_path, monkeypatch):
    output, exchange = str(tmp_path / "out"), module._exchange
    put(output, OLD)

    def after_a_note(new, place, old):
        if old.name == "old":
            (tmp_path / "out" / "notes").write_text("mine")
        exchange(new, place, old)

    monkeypatch.setattr(module, "_exchange", after_a_note)
    with pytest.raises(OutputError, match=r"All is as it was.*out-2"):
        put(output, NEW)
    assert run_at(output) == OLD and read(output, "notes") == "mine" and run_at(f"{output}-2") == NEW
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out-2"}


@pytest.mark.parametrize("number", [1, 2])
def test_an_interruption_while_a_result_is_put_in_place_leaves_the_old_one(tmp_path, monkeypatch, number):
    output, rename, calls = str(tmp_path / "out"), Path.replace, []
    put(output, OLD, ["rows.jsonl"])

    def interrupted(self, place):
        calls.append(self)
        if len(calls) == number:
            raise KeyboardInterrupt
        return rename(self, place)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        without_exchange(patch)
        patch.setattr(Path, "replace", interrupted)
        put(output, NEW)
    assert run_at(output) == OLD and read(output, "rows.jsonl") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


KILLED = """
import os, sys
from hf_evol.hub import target as module
from hf_evol.hub import target as module
from hf_evol.hub.record import write_provenance

output, moment, exchanges = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
if not exchanges:
    module.ctypes.CDLL = lambda name: object()
rename, calls = module.Path.replace, []

def killed(self, place):
    calls.append(self)
    if moment == f"rename {len(calls)}":
        os.kill(os.getpid(), 9)
    return rename(self, place)

module.Path.replace = killed
with module.writing(module.check_output(output, True, "method")) as folder:
    (folder / "rows").write_text("new")
    write_provenance({"kind": "method", "run": "new"}, folder)
    if moment == "before":
        os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems can't exchange two folders")
@pytest.mark.parametrize(
    ("moment", "exchanges", "left"),
    [("before", True, OLD), ("rename 1", True, NEW), ("rename 1", False, OLD), ("rename 2", False, None)],
)
def test_a_kill_leaves_the_old_result_or_the_new_one(tmp_path, moment, exchanges, left):
    output = str(tmp_path / "out")
    put(output, OLD, ["rows"])
    subprocess.run([sys.executable, "-c", KILLED, output, moment, str(exchanges)], check=False)
    if left is not None:
        assert run_at(output) == left and read(output, "rows") == left["run"]
    check(output, overwrite=True)  # puts back what was away, and clears up
    assert run_at(output) == (left or OLD)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_another_run_that_writes_at_this_moment_is_not_cleared_up(tmp_path):
    output = str(tmp_path / "out")
    with writing(check(output, overwrite=False)) as folder:
        check(output, overwrite=False)
        write_provenance({**NEW}, folder)
    assert run_at(output) == NEW


def test_a_card_that_is_a_link_to_another_place_is_not_read(tmp_path):
    output, secret = tmp_path / "out", tmp_path / "secret"
    secret.write_text("mine")
    put(str(output), OLD, ["README.md"])
    (output / "README.md").unlink()
    (output / "README.md").symlink_to(secret)
    with pytest.raises(OutputError, match="is a link to another place"):
        put(str(output), NEW, ["README.md"])
    assert secret.read_text() == "mine"


def test_a_mount_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path / "out")
    with pytest.raises(OutputError, match="where a disk is mounted"):
        check(str(tmp_path / "out"), overwrite=True)


def test_a_file_url_is_a_local_folder(tmp_path):
    output = (tmp_path / "out").as_uri()
    put(output, OLD, ["rows.jsonl"])
    (tmp_path / "out" / "notes").write_text("mine")
    with pytest.raises(OutputError, match="'notes'"):
        put(output, NEW)
    (tmp_path / "out" / "notes").unlink()
    put(output, NEW)
    assert beside(output) == [f"out/{PROVENANCE}"]


def test_a_linked_folder_is_written_through_its_link(tmp_path):
    (tmp_path / "big-disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "big-disk", target_is_directory=True)
    put(str(tmp_path / "out"), NEW)
    assert run_at(str(tmp_path / "big-disk")) == NEW
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big-disk", "out"]


@pytest.mark.parametrize("act", [lambda output: check(output, overwrite=True), lambda output: put(output, NEW)])
def test_a_parent_that_is_a_file_is_told(tmp_path, act):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"written.*file/out|file/out.*written"):
        act(str(tmp_path / "file" / "out"))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_parent_is_told(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OutputError, match="can't be written"):
            check(str(tmp_path / "out"), overwrite=False)
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize("output", ["nothing://out", "a\0b", "x" * 300], ids=["protocol", "NUL", "long"])
def test_an_impossible_place_is_told(tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match=r"can't be (used|written)"):
        check(output, overwrite=False)
    assert list(tmp_path.iterdir()) == []


FEATURES = Features({"id": Value("string"), "text": Value("string"), "n": Value("int32"), "score": Value("float64")})
ROWS = [
    {"id": "a-0", "text": 'quotes " and , and {braces}\nand é 🌊 \x00', "n": 1, "score": 0.1},
    {"id": "a-1", "text": None, "n": None, "score": None},
    {"id": "a-2", "text": "", "n": 2**31 - 1, "score": 1e-20},
]


@pytest.mark.parametrize("file_format", FILE_FORMATS)
def test_each_file_format_reads_back(tmp_path, file_format):
    rows = Dataset.from_list(ROWS, features=FEATURES)
    write_dataset(rows, tmp_path / "selected", file_format)
    (file,) = (tmp_path / "selected").iterdir()
    assert file.name == f"train-00000-of-00001.{FILE_FORMATS[file_format]}"
    loaded = load_dataset(str(tmp_path / "selected"), split="train")
    assert loaded.to_list() == ROWS
    if file_format != "json":
        assert loaded.features == FEATURES


@pytest.mark.parametrize("file_format", FILE_FORMATS)
def test_a_selected_and_shuffled_dataset_is_written_as_it_is_seen(tmp_path, file_format):
    rows = Dataset.from_list(ROWS, features=FEATURES).select([2, 0])
    write_dataset(rows, tmp_path, file_format)
    assert load_dataset(str(tmp_path), split="train").to_list() == [ROWS[2], ROWS[0]]


@pytest.mark.parametrize("file_format", FILE_FORMATS)
def test_nested_columns_read_back(tmp_path, file_format):
    rows = [{"turns": [{"role": "user", "content": "{x}"}]}, {"turns": []}]
    features = Features({"turns": List({"role": Value("string"), "content": Value("string")})})
    write_dataset(Dataset.from_list(rows, features=features), tmp_path, file_format)
    assert load_dataset(str(tmp_path), split="train").to_list() == rows


def test_a_finished_set_reads_back_beside_its_card_and_provenance(output):
    with writing(Target(output)) as folder:
        write_dataset(Dataset.from_list(ROWS, features=FEATURES), folder / "selected", "parquet")
        (folder / "README.md").write_text("# A card")
        write_provenance({**NEW}, folder)
    loaded = load_dataset("parquet", data_files=f"{output}/selected/*.parquet", split="train")
    assert loaded.to_list() == ROWS


def test_provenance_is_json_without_nan(tmp_path):
    write_provenance({"name": "wörter 🌊"}, tmp_path)
    assert "wörter 🌊" in (tmp_path / PROVENANCE).read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_provenance({"mean": float("nan")}, tmp_path)
    assert json.loads((tmp_path / PROVENANCE).read_text(encoding="utf-8")) == {"name": "wörter 🌊", "files": {}}


@pytest.mark.parametrize("content", [None, "{half", "\x00"], ids=["missing", "broken", "binary"])
def test_a_place_without_a_finished_set_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / PROVENANCE).write_text(content)
    with pytest.raises(OutputError, match=f"holds no finished set: {PROVENANCE}"):
        read_provenance(str(tmp_path))


@pytest.mark.parametrize("file_format", FILE_FORMATS)
@pytest.mark.parametrize("order", ["as made", "selected", "shuffled"])
def test_many_rows_are_written_in_several_files(tmp_path, file_format, order):
    made = Dataset.from_dict({"id": [f"a-{n}" for n in range(1000)], "text": ["x" * (n % 50) for n in range(1000)]})
    rows = {"as made": made, "selected": made.select(range(0, 1000, 3)), "shuffled": made.shuffle(seed=1)}[order]
    write_dataset(rows, tmp_path / "rows", file_format, max_bytes=rows._estimate_nbytes() // 4)
    files = sorted((tmp_path / "rows").iterdir())
    names = [f"train-{n:05}-of-{len(files):05}.{FILE_FORMATS[file_format]}" for n in range(len(files))]
    assert [file.name for file in files] == names and len(files) in (4, 5)
    assert load_dataset(str(tmp_path / "rows"), split="train").to_list() == rows.to_list()


def test_files_are_never_more_than_rows(tmp_path):
    write_dataset(Dataset.from_list(ROWS, features=FEATURES), tmp_path, "parquet", max_bytes=1)
    assert [file.name for file in sorted(tmp_path.iterdir())] == [f"train-{n:05}-of-00003.parquet" for n in range(3)]


def test_rows_of_several_tables_are_gathered_in_their_order(tmp_path):
    pieces = [Dataset.from_list(ROWS, features=FEATURES).select([place, 2]) for place in (1, 0)]
    rows = concatenate_datasets(pieces).select([3, 0, 2, 3])
    write_dataset(rows, tmp_path, "parquet")
    loaded = load_dataset(str(tmp_path), split="train")
    assert loaded.to_list() == [ROWS[2], ROWS[1], ROWS[0], ROWS[2]] and loaded.features == FEATURES
