import pytest
from test_card import provenance

from hf_evol.cli.main import main
from hf_evol.hub.card import card_text
from hf_evol.hub.merge import BEGIN, END
from hf_evol.hub.record import write_provenance


@pytest.fixture
def folder(tmp_path):
    """A finished set with its card, as far as the card is concerned."""
    (tmp_path / "README.md").write_text(card_text(provenance(), repo_id="user/old"), encoding="utf-8")
    write_provenance(provenance(), tmp_path)
    return tmp_path


def edit(folder, old, new):
    text = (folder / "README.md").read_bytes().decode().replace(old, new, 1)
    (folder / "README.md").write_bytes(text.encode())
    return text


def state(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.parametrize("url", [False, True])
def test_the_difference_is_shown_and_nothing_is_written(folder, capsys, url):
    before = state(folder)
    place = folder.as_uri() if url else str(folder)
    assert main(["card", place, "--repo-id", "user/new", "--diff"]) == 0
    said = capsys.readouterr().out.splitlines()
    changed = [line for line in said if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert changed and {line[0] for line in changed if "user/old" in line or "user/new" in line} == {"+", "-"}
    assert all("user/old" in line for line in changed if line[0] == "-")
    assert state(folder) == before


def test_no_difference(folder, capsys):
    before = state(folder)
    assert main(["card", str(folder), "--repo-id", "user/old", "--diff"]) == 0
    assert capsys.readouterr().out == "The card would not change.\n"
    assert state(folder) == before


def test_the_difference_to_no_card(folder, capsys):
    (folder / "README.md").unlink()
    assert main(["card", str(folder), "--diff"]) == 0
    assert f"+{BEGIN}" in capsys.readouterr().out
    assert not (folder / "README.md").exists()


@pytest.mark.parametrize("line_break", ["\n", "\r\n"], ids=repr)
def test_what_people_wrote_stays(folder, line_break):
    edit(folder, "---\nannotations", "---\nlicense: mit\nannotations")
    edit(folder, f"\n{BEGIN}", f"\n# Mine{line_break}{line_break}Before.{line_break}{BEGIN}")
    edit(folder, END, f"{END}{line_break}After.  {line_break}")
    assert main(["card", str(folder), "--repo-id", "user/new"]) == 0
    text = (folder / "README.md").read_bytes().decode()
    head, _, rest = text.partition(BEGIN)
    assert head.endswith(f"\n# Mine{line_break}{line_break}Before.{line_break}") and "license: mit" in head
    assert rest.rpartition(END)[2].rstrip("\n") == f"{line_break}After.  {line_break}".rstrip("\n")
    assert "user/new" in rest and "user/old" not in rest
    assert main(["card", str(folder), "--repo-id", "user/new"]) == 0
    assert (folder / "README.md").read_bytes().decode() == text


@pytest.mark.parametrize("card", [b"---\nlicense: [mit\n---\nMine.\n", b"\xff\xfeMine.\n"], ids=repr)
@pytest.mark.parametrize("options", [[], ["--diff"]], ids=str)
def test_a_card_that_cannot_be_read_is_left_alone(folder, capsys, card, options):
    (folder / "README.md").write_bytes(card)
    assert main(["card", str(folder), *options]) == 1
    assert capsys.readouterr().err.startswith("Error: ")
    assert (folder / "README.md").read_bytes() == card
