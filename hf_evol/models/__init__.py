"""Models, as generation and scoring share them: named, loaded once, told apart; and the journal of what they have said."""

from hf_evol.models.identity import model_identity as model_identity
from hf_evol.models.identity import weights_identity as weights_identity
from hf_evol.models.loading import CAUSAL as CAUSAL
from hf_evol.models.loading import CLASSIFIER as CLASSIFIER
from hf_evol.models.loading import base_of_adapter as base_of_adapter
from hf_evol.models.loading import check_device as check_device
from hf_evol.models.loading import choose_device as choose_device
from hf_evol.models.loading import context_length as context_length
from hf_evol.models.loading import is_out_of_memory as is_out_of_memory
from hf_evol.models.loading import is_small as is_small
from hf_evol.models.loading import load_config as load_config
from hf_evol.models.loading import load_embedder as load_embedder
from hf_evol.models.loading import load_model as load_model
from hf_evol.models.loading import load_tokenizer as load_tokenizer
from hf_evol.models.loading import loaded as loaded
from hf_evol.models.loading import n_parameters as n_parameters
from hf_evol.models.loading import precision as precision
from hf_evol.models.loading import release as release
from hf_evol.models.loading import set_rank as set_rank
from hf_evol.models.spec import DEMO as DEMO
from hf_evol.models.spec import DEMO_PACKAGE as DEMO_PACKAGE
from hf_evol.models.spec import ModelSpec as ModelSpec
from hf_evol.models.spec import as_spec as as_spec
