"""Models, as generation and scoring share them: named, loaded once, told apart; and the journal of what they have said."""

from hf_evol.models.identity import model_identity, weights_identity
from hf_evol.models.loading import (
    CAUSAL,
    CLASSIFIER,
    check_device,
    choose_device,
    context_length,
    is_out_of_memory,
    load_config,
    load_embedder,
    load_model,
    load_tokenizer,
    n_parameters,
    precision,
    release,
    set_rank,
)
from hf_evol.models.spec import DEMO, DEMO_PACKAGE, ModelSpec, as_spec

__all__ = [
    "CAUSAL",
    "CLASSIFIER",
    "DEMO",
    "DEMO_PACKAGE",
    "ModelSpec",
    "as_spec",
    "check_device",
    "choose_device",
    "context_length",
    "is_out_of_memory",
    "load_config",
    "load_embedder",
    "load_model",
    "load_tokenizer",
    "model_identity",
    "n_parameters",
    "precision",
    "release",
    "set_rank",
    "weights_identity",
]
