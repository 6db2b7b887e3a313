import pytest
from datasets import Dataset

from hf_evol.data.sources import load_seeds
from hf_evol.errors import SourceError

CARD = """---
configs:
- config_name: rows
  data_files:
  - split: train
    path: rows/*.parquet
  default: true
- config_name: dropped
  data_files:
  - split: train
    path: dropped/*.parquet
---
"""


def write(folder, value):
    for name in ("rows", "dropped"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Dataset.from_dict({"x": [f"{name} {value}"]}).to_parquet(folder / name / "train.parquet")
    (folder / "README.md").write_text(CARD, encoding="utf-8")


def test_a_folder_is_read_as_it_is_now(tmp_path):
    """Not as another one of its name, nor as before it was overwritten."""
    for place, value in (("one", 1), ("two", 2), ("one", 3)):
        write(tmp_path / place / "set", value)
        folder = str(tmp_path / place / "set")
        assert load_seeds(folder)["x"][:] == load_seeds(folder, config="rows")["x"][:] == [f"rows {value}"]
        assert load_seeds(folder, config="dropped")["x"][:] == [f"dropped {value}"]
    assert load_seeds(folder)._fingerprint == load_seeds(folder)._fingerprint
    for wrong in ({"config": "none"}, {"split": "none"}):
        with pytest.raises(SourceError):
            load_seeds(folder, **wrong)


def test_a_folder_without_a_card(tmp_path):
    for value in (1, 2):
        Dataset.from_dict({"x": [value]}).to_json(tmp_path / "train.jsonl")
        assert load_seeds(str(tmp_path))["x"][:] == [value]
