"""Epochs that cannot train anything."""

from __future__ import annotations

from pathlib import Path

from running import TINY

from reidcore.builtin.samplers import Identities
from reidcore.cli.main import main


def test_an_epoch_without_a_batch_is_refused(tmp_path, monkeypatch, session_cache, capsys):
    """Else the scores would be those of an untrained network, without a word about it."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(TINY)
    monkeypatch.setattr(Identities, "epoch", lambda *given: iter(()))
    assert main(["run", "tiny.toml", "--no-dry", "--out", "run"]) == 2
    told = capsys.readouterr().err
    assert "data.batch (core.identities) gives no batch of 32 pictures" in told
    assert not Path("run/weights.safetensors").exists()
