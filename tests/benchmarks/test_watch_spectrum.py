"""The spectra at the shapes of Llama-3-8B: what all layers take follows from what was measured, and the musts hold."""

import pytest
from benchmarks.watch import spectrum as bench

from rankwise.observe.catalogue import find_architecture


def test_the_shapes_are_those_of_the_model() -> None:
    known = find_architecture("llama-3-8b")
    assert known is not None
    config = known.config
    assert (config["hidden_size"], config["intermediate_size"]) == (bench.HIDDEN, bench.INNER)
    assert config["num_hidden_layers"] == bench.LAYERS
    heads = config["num_attention_heads"] // config["num_key_value_heads"]
    assert bench.HIDDEN // heads == bench.KEYS and len(bench.SHAPES) == 7


def test_all_layers_are_the_work_so_often_and_the_start_once() -> None:
    row = bench._row("x", 7, 32, {"seconds": 5.0, "watch_seconds": 2.0})
    assert row["seconds_all_layers"] == 3.0 + 32 * 2.0 and row["measured_times"] == 32


@pytest.mark.prove
def test_the_adapter_alone_keeps_its_musts() -> None:
    alone, computed, remembered, live = bench.spectrum_rows()
    assert alone["matrices"] == 224 and alone["seconds"] < bench.MOST_SECONDS and alone["peak_bytes"] < bench.MOST_BYTES
    assert remembered["watch_seconds"] < computed["watch_seconds"] and live["matrices"] == 210
