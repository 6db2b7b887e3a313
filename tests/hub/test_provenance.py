import importlib.metadata
import json
import platform
import shutil

import numpy as np
import pytest
from hub_server import TOKEN
from safetensors.numpy import save

from hf_evol.hub.provenance import describe_source, library_versions
from hf_evol.models.record import ModelRecord, describe_model, human_number

COUNTED = "counted from the headers of the weights' files"
ON_HUB = "safetensors metadata on the Hub"
CARD = b"---\nlicense: apache-2.0\n---\n# A model\n"
FIRST = {"embed.weight": np.zeros((10, 4), np.float16), "norm.weight": np.ones(4, np.float32)}
SECOND = {"head.weight": np.zeros((4, 3), np.float16)}
N_FIRST, N_SECOND = 10 * 4 + 4, 4 * 3
SHARDS = {"model-00001-of-00002.safetensors": FIRST, "model-00002-of-00002.safetensors": SECOND}
INDEX = json.dumps(
    {"metadata": {}, "weight_map": {key: file for file, part in SHARDS.items() for key in part}}
).encode()
WHOLE = {"README.md": CARD, "model.safetensors": save(FIRST)}
SHARDED = {name: save(part) for name, part in SHARDS.items()} | {"model.safetensors.index.json": INDEX}


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return str(folder)


def size_of(path, **settings):
    record = describe_model("evolver", "mine", str(path), **settings)
    return record.n_parameters, record.n_parameters_from


# Local folders


def test_a_local_model_in_full(hub, tmp_path):
    path = write(tmp_path / "mine", WHOLE)
    assert describe_model("scorer", "./mine", path, dtype="float32", revision="v1") == ModelRecord(
        role="scorer",
        name="./mine",
        revision="local files",
        n_parameters=N_FIRST,
        n_parameters_from=COUNTED,
        dtype="float32",
        license="apache-2.0",
    )
    assert hub.requests == []


def test_shards_are_added_up(tmp_path):
    assert size_of(write(tmp_path, SHARDED)) == (N_FIRST + N_SECOND, COUNTED)


def test_tied_weights_are_counted_once(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    sizes = {}
    for tied in (False, True):
        model = LlamaForCausalLM(LlamaConfig(**shape, **heads, tie_word_embeddings=tied))
        model.save_pretrained(tmp_path / str(tied))
        unique = {weight.data_ptr(): weight.numel() for weight in model.parameters()}
        sizes[tied], origin = size_of(tmp_path / str(tied))
        assert (sizes[tied], origin) == (sum(unique.values()), COUNTED)
    assert sizes[False] - sizes[True] == 32 * 8


@pytest.mark.parametrize("copy", ["consolidated.safetensors", "model.fp16.safetensors"])
@pytest.mark.parametrize("model", [{"model.safetensors": save(FIRST | SECOND)}, SHARDED], ids=["whole", "sharded"])
def test_a_second_copy_of_the_weights_is_not_counted(tmp_path, model, copy):
    assert size_of(write(tmp_path, model | {copy: save(FIRST | SECOND)})) == (N_FIRST + N_SECOND, COUNTED)


def test_a_folder_without_weights_has_an_unknown_size(tmp_path):
    record = describe_model("evolver", "mine", write(tmp_path, {"config.json": b"{}", "pytorch_model.bin": b"\0" * 64}))
    assert (record.n_parameters, record.n_parameters_from, record.license) == (None, "unknown", "unknown")
    assert record.size == "unknown size"


DAMAGED = {
    "a pointer to LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "cut off": save(FIRST)[:40],
    "empty": b"",
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_damaged_weights_have_an_unknown_size(tmp_path, data):
    assert size_of(write(tmp_path, {"model.safetensors": data})) == (None, "unknown")


def test_a_link_to_nothing_has_an_unknown_size(tmp_path):
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "gone")
    assert size_of(tmp_path) == (None, "unknown")


def test_a_model_with_a_missing_shard_has_an_unknown_size(tmp_path):
    path = write(tmp_path, SHARDED)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert size_of(path) == (None, "unknown")


def test_the_user_is_believed(hub, tmp_path):
    assert size_of(write(tmp_path / "mine", WHOLE), stated=7) == (7, "stated by the user")
    assert size_of(write(tmp_path / "empty", {}), stated=7) == (7, "stated by the user")
    hub.add_repo("model", "org/tiny", WHOLE)
    assert size_of("org/tiny", stated=7) == (7, "stated by the user")
    assert size_of("org/missing", stated=7) == (7, "stated by the user")


@pytest.mark.parametrize(
    ("card", "license"),
    [
        (b"---\nlicense:\n- mit\n- apache-2.0\n---\n", "mit, apache-2.0"),
        (b"---\nlicense: []\n---\n", "unknown"),
        (b"---\ntags: [x]\n---\n", "unknown"),
        (b"no front matter; license: mit", "unknown"),
        (b"---\nlicense: [mit\n---\n", "unknown"),
        (b"---\n- mit\n---\n", "unknown"),
        (b"---\n1: mit\n---\n", "unknown"),
        (b"---\nlicense: m\xfct\n---\n", "unknown"),
    ],
)
def test_licence_of_a_local_card(tmp_path, card, license):
    assert describe_model("evolver", "mine", write(tmp_path, {"README.md": card})).license == license


# Models on the Hub


def test_a_model_on_the_hub_in_full(hub):
    repo = hub.add_repo("model", "org/tiny", WHOLE)
    assert describe_model("evolver", "org/tiny", "org/tiny", dtype="bfloat16") == ModelRecord(
        role="evolver",
        name="org/tiny",
        revision=repo.commits[-1].sha,
        n_parameters=N_FIRST,
        n_parameters_from=ON_HUB,
        dtype="bfloat16",
        license="apache-2.0",
    )


def test_only_the_headers_are_read(hub, tmp_path):
    data = save({"w": np.zeros(200_000, np.float32)})
    hub.add_repo("model", "org/tiny", {"model.safetensors": data})
    assert size_of("org/tiny") == (200_000, ON_HUB)
    assert not list(tmp_path.glob("**/*.safetensors"))


def test_a_header_longer_than_the_first_request(hub):
    names = {f"layer.{number}.{'x' * 100}": np.zeros(2, np.float16) for number in range(1000)}
    hub.add_repo("model", "org/deep", {"model.safetensors": save(names)})
    assert size_of("org/deep") == (2000, ON_HUB)


def test_a_sharded_model_on_the_hub(hub):
    hub.add_repo("model", "org/tiny", SHARDED)
    assert size_of("org/tiny") == (N_FIRST + N_SECOND, ON_HUB)


def test_the_revision_asked_for_is_described(hub):
    repo = hub.add_repo("model", "org/tiny", WHOLE)
    old = repo.commits[-1].sha
    repo.commit("Grow", {"model.safetensors": save(FIRST | SECOND), "README.md": b"---\nlicense: mit\n---\n"})
    record = describe_model("evolver", "org/tiny", "org/tiny", revision=old)
    assert (record.revision, record.n_parameters, record.license) == (old, N_FIRST, "apache-2.0")
    record = describe_model("evolver", "org/tiny", "org/tiny")
    assert (record.revision, record.n_parameters, record.license) == (
        repo.commits[-1].sha,
        N_FIRST + N_SECOND,
        "mit",
    )


@pytest.mark.parametrize(
    "files", [{"pytorch_model.bin": b"\0" * 99}, {"model.safetensors": b"\xff" * 99}], ids=["none", "bad"]
)
def test_a_repository_whose_weights_cannot_be_counted(hub, files):
    repo = hub.add_repo("model", "org/old-7b", files | {"README.md": CARD})
    record = describe_model("evolver", "org/old-7b", "org/old-7b")
    assert (record.n_parameters, record.n_parameters_from) == (None, "unknown")
    assert (record.revision, record.license) == (repo.commits[-1].sha, "apache-2.0")


def test_a_gated_model_keeps_what_is_public(hub):
    repo = hub.add_repo("model", "org/gated-7b", WHOLE)
    hub.fail_next("/resolve/", 403)
    record = describe_model("evolver", "org/gated-7b", "org/gated-7b")
    assert (record.n_parameters, record.revision, record.license) == (None, repo.commits[-1].sha, "apache-2.0")


def test_a_private_model_needs_the_token(hub, monkeypatch):
    hub.add_repo("model", "org/mine", WHOLE, private=True)
    assert size_of("org/mine") == (N_FIRST, ON_HUB)
    monkeypatch.delenv("HF_TOKEN")
    assert size_of("org/mine") == (None, "unknown")


def out_of_reach(hub, monkeypatch, how):
    if how == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    elif how == "nobody listens":
        hub.__exit__()
    else:
        hub.fail_next("/", how)


OUT_OF_REACH = ["offline", "nobody listens", "reset", 401, 404, 429, 500]


@pytest.mark.parametrize("how", OUT_OF_REACH)
def test_a_model_out_of_reach_is_unknown(hub, monkeypatch, how):
    hub.add_repo("model", "org/model-7b", WHOLE)
    out_of_reach(hub, monkeypatch, how)
    record = describe_model("judge", "org/model-7b", "org/model-7b")
    assert record == ModelRecord("judge", "org/model-7b", "unknown", None, "unknown", "auto", "unknown")
    assert describe_model("judge", "org/model-7b", "org/model-7b", revision="v2").revision == "v2"


@pytest.mark.parametrize("path", ["org/missing-7b", "not a name", "a/b/c", "./gone"])
def test_a_model_that_does_not_exist_is_unknown(hub, monkeypatch, tmp_path, path):
    monkeypatch.chdir(tmp_path)
    record = describe_model("judge", "x", path)
    assert (record.n_parameters, record.n_parameters_from) == (None, "unknown")
    assert (record.revision, record.license) == ("unknown", "unknown")


@pytest.mark.parametrize("how", ["offline", "nobody listens", "reset", 500])
@pytest.mark.parametrize("by", ["the default branch", "its commit"])
def test_out_of_reach_but_in_the_cache(hub, monkeypatch, tmp_path, how, by):
    sha = "0123456789abcdef0123456789abcdef01234567"
    store = tmp_path / "hub-cache" / "models--org--tiny"
    write(store / "snapshots" / sha, WHOLE)
    write(store / "refs", {"main": sha.encode()})
    out_of_reach(hub, monkeypatch, how)
    record = describe_model("evolver", "org/tiny", "org/tiny", revision=None if by == "the default branch" else sha)
    assert (record.n_parameters, record.n_parameters_from) == (N_FIRST, COUNTED)
    assert (record.revision, record.license) == (sha, "apache-2.0")


# The source set


def test_a_bundled_set(hub):
    record = describe_source("demo/general", config=None, split="train", revision=None)
    assert (record.name, record.license, record.on_hub) == ("demo/general", "apache-2.0", False)
    assert record.revision == f"bundled with hf_evol {library_versions()['hf_evol']}"
    assert hub.requests == []


def test_local_files(hub, monkeypatch, tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}")
    monkeypatch.chdir(tmp_path)
    shown = {
        str(tmp_path / "rows.jsonl"): "rows.jsonl",
        "rows.jsonl": "rows.jsonl",
        "parts/*.parquet": "parts/*.parquet",
        "https://me:secret@host/rows.json?token=1": "https://host/rows.json",
    }
    for given, name in shown.items():
        record = describe_source(given, config="c", split="train[:5]", revision=None)
        assert (record.name, record.config, record.split) == (name, "c", "train[:5]")
        assert (record.license, record.on_hub) == ("unknown", False)
    assert hub.requests == []


def test_a_set_on_the_hub(hub):
    repo = hub.add_repo("dataset", "org/seeds", {"README.md": b"---\nlicense: cc-by-4.0\n---\n"})
    old = repo.commits[-1].sha
    repo.commit("Relicense", {"README.md": b"---\nlicense:\n- mit\n- cc0-1.0\n---\n"})
    record = describe_source("org/seeds", config="main", split="test", revision=None)
    assert (record.revision, record.license, record.on_hub) == (repo.commits[-1].sha, "mit, cc0-1.0", True)
    assert (record.name, record.config, record.split) == ("org/seeds", "main", "test")
    record = describe_source("org/seeds", config=None, split="train", revision=old)
    assert (record.revision, record.license) == (old, "cc-by-4.0")


@pytest.mark.parametrize("how", OUT_OF_REACH)
def test_a_set_out_of_reach_is_unknown(hub, monkeypatch, how):
    hub.add_repo("dataset", "org/seeds", {"README.md": CARD})
    out_of_reach(hub, monkeypatch, how)
    record = describe_source("org/seeds", config=None, split="train", revision=None)
    assert (record.revision, record.license, record.on_hub) == ("unknown", "unknown", True)
    assert describe_source("org/seeds", config=None, split="train", revision="v2").revision == "v2"


def test_no_record_holds_the_token(hub, caplog):
    caplog.set_level("DEBUG")
    hub.add_repo("model", "org/tiny", WHOLE)
    hub.fail_next("/resolve/", 500)
    records = [describe_model("evolver", "x", path) for path in ("org/tiny", "org/missing")]
    records.append(describe_source("org/missing", config=None, split="train", revision=None))
    assert TOKEN in hub.tokens
    assert TOKEN not in repr(records)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("hf_evol")]
    assert ours and not [message for message in ours if TOKEN in message]


# Numbers and versions


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1K"),
        (1234, "1.23K"),
        (999_499, "999K"),
        (999_999, "1M"),
        (5_065_472, "5.07M"),
        (494_032_768, "494M"),
        (999_999_999, "1B"),
        (7_615_616_512, "7.62B"),
        (999_900_000_000, "1T"),
        (1_026_000_000_000, "1.03T"),
    ],
)
def test_human_number(number, text):
    assert human_number(number) == text
    assert ModelRecord("evolver", "x", "main", number, COUNTED, "auto", "mit").size == text


def test_library_versions():
    import hf_evol

    versions = library_versions()
    assert versions.pop("python") == platform.python_version()
    assert versions.pop("hf_evol") == hf_evol.__version__
    assert versions == {
        name: importlib.metadata.version(name)
        for name in ("datasets", "transformers", "torch", "huggingface_hub", "tokenizers")
    }


def test_quantized_weights_count_as_parameters(tiny_model, tmp_path):
    """Packed elements are not parameters: the architecture is counted instead."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "packed"
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    packed = {name: torch.zeros(3, dtype=torch.uint8) if "proj" in name else value for name, value in weights.items()}
    save_file(packed, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    record = describe_model("evolver", "packed", str(folder))
    assert record.n_parameters == AutoModelForCausalLM.from_pretrained(tiny_model).num_parameters()
    assert record.n_parameters_from.startswith("counted in the architecture")


def test_an_adapter_names_its_base(tiny_model, tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    n_base = base.num_parameters()
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path / "adapter")
    record = describe_model("evolver", "adapter", str(tmp_path / "adapter"))
    own = sum(parameter.numel() for name, parameter in adapted.named_parameters() if "lora_" in name)
    assert (record.base, record.n_parameters) == ("tiny", n_base + own)


SET_CARD = b"---\nlicense: cc-by-4.0\n---\nA set.\n"


def test_the_licence_of_files_on_the_hub_is_that_of_their_set(hub):
    commit = hub.add_repo("dataset", "org/set", {"README.md": SET_CARD, "rows.jsonl": b"{}"}).commits[-1].sha
    for name in (
        "hf://datasets/org/set/rows.jsonl",
        f"hf://datasets/org/set@{commit}/*.jsonl",
        "hf://datasets/org/set@main/r.csv",
    ):
        record = describe_source(name, config=None, split="train", revision=None)
        assert (record.name, record.revision, record.license, record.on_hub) == ("org/set", commit, "cc-by-4.0", True)


def test_a_licence_that_only_the_card_states_is_found(hub, monkeypatch):
    hub.add_repo("dataset", "org/set", {"README.md": SET_CARD})
    from huggingface_hub import HfApi

    plain = HfApi.dataset_info

    def without_card(self, *args, **options):
        info = plain(self, *args, **options)
        info.card_data = None
        return info

    monkeypatch.setattr(HfApi, "dataset_info", without_card)
    assert describe_source("org/set", config=None, split="train", revision=None).license == "cc-by-4.0"


def test_the_licence_of_a_local_set_is_that_of_its_card(tmp_path):
    (tmp_path / "README.md").write_bytes(SET_CARD)
    record = describe_source(str(tmp_path), config=None, split="train", revision=None)
    assert (record.revision, record.license, record.on_hub) == ("local files", "cc-by-4.0", False)
