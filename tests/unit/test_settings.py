"""Where an installation's settings come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from module.model.errors import InvalidInput
from module.settings import Settings


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "saved"
    Settings(data_dir=folder, installation="saved", api_port=8123).save()
    return folder


def test_what_an_installation_saved_is_read_back(saved: Path) -> None:
    settings = Settings(data_dir=saved)
    assert (settings.installation, settings.api_port) == ("saved", 8123)


def test_the_environment_names_the_folder_where_nothing_else_does(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIFAP_DATA_DIR", str(saved))
    assert Settings().installation == "saved"


def test_another_installation_is_not_mixed_in(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIFAP_DATA_DIR", str(saved))
    assert Settings(data_dir=tmp_path / "other").installation == "local"


def test_the_environment_wins_over_what_was_saved(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIFAP_API_PORT", "8200")
    assert Settings(data_dir=saved).api_port == 8200


def test_a_broken_file_is_named(saved: Path) -> None:
    (saved / "settings.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"settings\.json is not valid JSON"):
        Settings(data_dir=saved)
