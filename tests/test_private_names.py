"""The names of other libraries that are not public and that we use all the same: where one moves, this says who has to follow."""

from __future__ import annotations

import asyncio
import inspect
import re
from copy import copy

import pytest
from datasets import Dataset


def test_of_python():
    """`hf_evol.prompts.patterns`: how a regular expression is parsed."""
    parser = re._parser
    a, b_or_cd, e = parser.parse("a(?:bd|cd)+e*")
    assert a == (parser.LITERAL, ord("a")) and e[0] is parser.MAX_REPEAT and e[1][0] == 0
    least, _, [[kind, (_, options)]] = b_or_cd[1]
    assert b_or_cd[0] is parser.MAX_REPEAT and least == 1 and kind is parser.BRANCH and len(options) == 2


def test_of_pytorch():
    """`hf_evol.models.packing`: where these move, models run as before, slowly."""
    import torch

    ops = torch.ops.mkldnn
    assert all(map(callable, (ops._reorder_linear_weight, ops._linear_pointwise, ops._is_mkldnn_bf16_supported)))


def test_of_datasets():
    """`hf_evol.data.selection`, `hf_evol.data.files`, `hf_evol.transform`, `hf_evol.cluster.run`, `hf_evol.hub.configs`."""
    from datasets.load import infer_module_for_data_files_list
    from datasets.utils._dill import Pickler, pklregister

    rows = Dataset.from_dict({"a": [1, 2, 3]})
    chosen = rows.select([2, 0])
    assert rows._indices is None and chosen._indices.column(0).to_pylist() == [2, 0]
    assert rows._estimate_nbytes() > 0 and rows._fingerprint != chosen._fingerprint
    assert callable(pklregister) and isinstance(Pickler.dispatch, dict)
    batches = []
    rows.map(batches.append, batched=True)
    assert copy(batches[0])["a"] == [1, 2, 3] and batches[0].keys_to_format == {"a"} and len(batches[0].pa_table) == 3
    assert infer_module_for_data_files_list(["a/rows.jsonl"])[0] == "json"


def test_what_transformers_calls_causal():
    """`hf_evol.scoring.local`: the architectures of causal language models."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    assert {"LlamaForCausalLM", "GPT2LMHeadModel"} <= set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())


def test_where_transformers_finds_files(tmp_path):
    """`hf_evol.models.loading`, `hf_evol.models.record`: the file of a model in a folder, on the Hub or in its cache."""
    from transformers.utils import cached_file, find_adapter_config_file

    assert find_adapter_config_file(str(tmp_path)) is None
    file = tmp_path / "adapter_config.json"
    file.touch()
    assert find_adapter_config_file(str(tmp_path), revision=None) == str(file)
    assert cached_file(str(tmp_path), file.name, revision=None, local_files_only=True) == str(file)


def test_of_huggingface_hub():
    """`hf_evol.generation.endpoint`: the session that a client sends its requests by, closed with the client."""
    from huggingface_hub import AsyncInferenceClient, get_async_session

    async def used() -> bool:
        async with AsyncInferenceClient() as client:
            client._async_client = session = await client.exit_stack.enter_async_context(get_async_session())
            assert {"request", "response"} <= set(session.event_hooks)
            chosen = await client._get_async_client()
        return chosen is session and session.is_closed

    assert asyncio.run(used())


def test_of_datatrove():
    """`hf_evol.cluster.local`: how a task is run in a process of ours."""
    executors = pytest.importorskip("datatrove.executor.base")
    parameters = list(inspect.signature(executors.PipelineExecutor._run_for_rank).parameters)
    assert parameters[:3] == ["self", "rank", "local_rank"]


def test_of_evaluate():
    """`hf_evol.hub.metric`: where modules lie that `evaluate.load` finds by their bare name."""
    from evaluate.loading import init_dynamic_modules

    assert callable(init_dynamic_modules)


def test_of_fsspec():
    """`hf_evol.hub.target`: a path as a store lists it."""
    import fsspec

    assert fsspec.filesystem("memory")._strip_protocol("memory://a/b") == "/a/b"
