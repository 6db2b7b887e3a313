"""Tiny models, built here: nothing is downloaded."""

from __future__ import annotations

import signal
import uuid

import pytest
from tiny_models import build_llama, build_tokenizer

signal.signal(signal.SIGINT, signal.default_int_handler)  # what was started in the background ignores Ctrl-C

_LONG = {
    "test_study.py", "test_kills.py", "test_demo.py", "test_interrupt.py", "test_metric.py", "test_responders.py", "test_slurm.py",
    "test_by_step.py", "test_cluster_run.py", "test_card.py", "test_run_steps.py", "test_trainers.py",
}  # fmt: skip


def pytest_collection_modifyitems(items):
    """The files that take longest come first, as `make test` hands whole files to its processes."""
    items.sort(key=lambda item: item.path.name not in _LONG)


@pytest.fixture(autouse=True, scope="session")
def caches(tmp_path_factory):
    """No test touches the user's caches or the network, nor does what a module's tests share."""
    import datasets.config

    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(folder / "hf"))
        patch.setenv("HF_EVOL_CACHE", str(folder / "hf_evol"))
        patch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets")
        yield folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Each test reads what it wrote: ``load_dataset`` takes folders of one name and equal cards for the same set."""
    import datasets.config

    folder = tmp_path_factory.mktemp("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """A folder with a tiny Llama, and a tokenizer that has a chat template."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_llama().save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def wide_model(tmp_path_factory) -> str:
    """The tiny one with a context that holds the prompts with their worked examples."""
    folder = tmp_path_factory.mktemp("models") / "wide"
    build_llama(context=4096).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def bos_model(tmp_path_factory) -> str:
    """Another one, whose tokenizer puts a BOS token in front and has no chat template."""
    folder = tmp_path_factory.mktemp("models") / "bos"
    build_llama(seed=1).save_pretrained(folder)
    build_tokenizer(bos=True, template=None).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def seeds():
    from datasets import Dataset

    texts = [
        "Write a short poem about the sea.", "List three facts.", "Explain why rivers flow.", "How many apples are left?",
        "Sort {numbers} with <|end|> in it.", "Why?", "write a list of three rivers that flow to the sea",
    ]  # fmt: skip
    return Dataset.from_dict(
        {
            "id": [f"t-{i}" for i in range(len(texts))],
            "instruction": texts,
            "input": [""] * len(texts),
            "output": ["An answer."] * len(texts),
        }
    )


@pytest.fixture(scope="session")
def s3_server():
    """An S3 server in this process."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch, tmp_path):
    """The URL of a new bucket, which processes started by the test reach, too."""
    s3fs = pytest.importorskip("s3fs")
    for name, value in {
        "AWS_ENDPOINT_URL": "http://{}:{}".format(*s3_server.get_host_and_port()),
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem()
    name = f"bucket-{uuid.uuid4().hex}"  # `datasets` keeps what it has downloaded by its address
    fs.mkdir(name)
    yield f"s3://{name}"
    fs.rm(name, recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()
