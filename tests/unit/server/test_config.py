from __future__ import annotations

import pytest

from vectordb.errors import InvalidArgument
from vectordb.server.config import SETTINGS, load, misspelt


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "vectordb.toml"
        path.write_text(text)
        return path

    return write


def test_flag_over_environment_over_file_over_default(file):
    path = file('data = "from-file"\nlisten = "h:1"\nmax_workers = 3\n')
    environment = {"VECTORDB_LISTEN": "h:2", "VECTORDB_MAX_WORKERS": "4"}
    config = load({"max_workers": "5", "max_streams": None}, path, environment)
    assert (config.data, config.listen, config.max_workers, config.max_streams) == ("from-file", "h:2", 5, 16)
    assert config.origins["data"] == f"file {path}"
    assert config.origins["listen"] == "environment VECTORDB_LISTEN"
    assert config.origins["max_workers"] == "flag --max-workers"
    assert config.origins["max_streams"] == "default"


def test_the_file_may_be_named_by_the_environment(file):
    path = file('listen = "h:7"\n')
    assert load(environment={"VECTORDB_CONFIG": str(path)}).listen == "h:7"


def test_only_what_was_given_goes_to_the_engine(file):
    assert load(environment={}).engine == {}
    path = file("[engine]\nbuild_threads = 1\n")
    config = load({"durability": "async"}, path, {"VECTORDB_CACHE_BYTES": "64 MiB"})
    assert config.engine == {"durability": "async", "cache_bytes": 64 << 20, "build_threads": 1}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("lisen = 'h:1'", "lisen"),
        ("listen = 'nowhere'", "listen"),
        ("listen = 'h:99999'", "listen"),
        ("max_workers = 0", "max_workers"),
        ("max_workers = true", "max_workers"),
        ("max_workers = 1.5", "max_workers"),
        ("scan_idle_seconds = 'soon'", "scan_idle_seconds"),
        ("drain_seconds = nan", "drain_seconds"),
        ("drain_seconds = -1", "drain_seconds"),
        ("max_message_bytes = '3 parsecs'", "max_message_bytes"),
        ("durability = 'maybe'", "durability"),
        ("log_level = 3", "log_level"),
        ("metrics_listen = 'unix:/run/metrics'", "metrics_listen"),
        ("data = ''", "data"),
        ("engine = 3", "engine"),
    ],
)
def test_a_bad_file_names_the_key_and_itself(file, text, key):
    path = file(text + "\n")
    with pytest.raises(InvalidArgument) as caught:
        load(file=path, environment={})
    assert caught.value.field == key
    assert key in caught.value.message
    assert str(path) in caught.value.message


def test_a_bad_variable_and_a_bad_flag_are_named():
    with pytest.raises(InvalidArgument, match="environment VECTORDB_MAX_SCANS"):
        load(environment={"VECTORDB_MAX_SCANS": "many"})
    with pytest.raises(InvalidArgument, match="flag --max-scans"):
        load({"max_scans": "many"}, environment={})
    with pytest.raises(InvalidArgument, match="unknown setting 'colour'"):
        load({"colour": "red"}, environment={})


def test_what_is_no_number_is_told_as_all_else():
    for text in ("_", "1__0", "_1"):
        with pytest.raises(InvalidArgument, match="max_scans is a whole number from 1"):
            load({"max_scans": text}, environment={})
    assert load({"max_scans": "1_0"}, environment={}).max_scans == 10


def test_options_in_the_engines_table_are_what_the_settings_say(file):
    path = file('[engine]\ndurability = "async"\nmax_dim = 7\nbuild_threads = 1\n')
    config = load({"max_dim": "9"}, path, {})
    assert (config.durability, config.max_dim) == ("async", 9)
    assert config.engine == {"durability": "async", "max_dim": 9, "build_threads": 1}
    assert config.origins["durability"] == f"file {path}, table [engine]"
    assert config.origins["max_dim"] == "flag --max-dim"
    assert config.origins["engine.build_threads"] == f"file {path}"


def test_a_file_that_is_missing_or_no_toml(tmp_path, file):
    with pytest.raises(InvalidArgument, match="cannot read"):
        load(file=tmp_path / "no.toml", environment={})
    with pytest.raises(InvalidArgument, match="not TOML"):
        load(file=file("a = = b"), environment={})
    with pytest.raises(InvalidArgument, match="not TOML"):
        load(file=file(f"data = {'[' * 5000}"), environment={})


def test_every_default_is_a_value_that_may_be_given():
    for setting in SETTINGS:
        if setting.default is not None:
            assert setting.parse(setting.default) == setting.default
            assert setting.parse(str(setting.default)) == setting.default


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::1]:50051", "db.example.org:443", "unix:/run/vectordb.sock"])
def test_addresses(listen):
    assert load({"listen": listen}, environment={}).listen == listen


def test_variables_that_were_meant_for_a_setting_are_found():
    environment = {
        "VECTORDB_MAX_WORKER": "3",
        "VECTORDB_LISTENS": "0.0.0.0:1",
        "VECTORDB_LISTEN": "127.0.0.1:0",
        "VECTORDB_API_KEY": "a client's",
        "VECTORDB_DEMO_DATA": "another command's",
        "MAX_WORKERS": "anybody's",
    }
    assert misspelt(environment) == [
        ("VECTORDB_LISTENS", "VECTORDB_LISTEN"),
        ("VECTORDB_MAX_WORKER", "VECTORDB_MAX_WORKERS"),
    ]
    assert misspelt({setting.variable: "" for setting in SETTINGS}) == []
