"""Settings: which layer wins, which names are refused, and what a message says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from forex_core.config import MEMBERS, Settings, TreasuryConfig, known_names, load_settings
from forex_core.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty current folder and no setting in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FOREX_DATA_DIR", raising=False)
    return tmp_path


def refusal(**overrides: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(**overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


class TestPrecedence:
    LAYERS = ("command line", "environment", ".env", "forex.toml")

    @pytest.mark.parametrize("highest", range(len(LAYERS) + 1), ids=[*LAYERS, "default"])
    def test_command_line_over_environment_over_dotenv_over_toml_over_default(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, highest: int
    ) -> None:
        """All layers below the highest one are set to something else."""
        (folder / "forex.toml").write_text('pair = "USDTRY"\n' if highest <= 3 else "")
        (folder / ".env").write_text("FOREX_PAIR=USDJPY\n" if highest <= 2 else "")
        if highest <= 1:
            monkeypatch.setenv("FOREX_PAIR", "EURUSD")
        found = load_settings(pair="USDCLP" if highest == 0 else None).pair
        assert found == ("USDCLP", "EURUSD", "USDJPY", "USDTRY", "USDMXN")[highest]

    def test_holds_for_each_nested_setting_by_itself(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path
    ) -> None:
        (folder / "forex.toml").write_text(
            "[engine]\nmin_members = 4\ngrid_every = 7\nwarmup_origins = 9\nmin_scored_origins = 33\n"
        )
        (folder / ".env").write_text("FOREX_ENGINE__GRID_EVERY=8\nFOREX_ENGINE__WARMUP_ORIGINS=10\n")
        monkeypatch.setenv("FOREX_ENGINE__WARMUP_ORIGINS", "11")
        engine = load_settings(engine={"min_scored_origins": 44}).engine
        assert (engine.min_members, engine.grid_every, engine.warmup_origins) == (4, 8, 11)
        assert engine.min_scored_origins == 44
        assert engine.grid_origins == 260  # the default

    def test_none_leaves_the_layer_to_the_others_and_false_does_not(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FOREX_SKIP_EMAIL", "true")
        assert load_settings(skip_email=None).skip_email is True
        assert load_settings(skip_email=False).skip_email is False

    def test_names_of_the_environment_may_be_in_lower_case(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("forex_pair", "EURUSD")
        assert load_settings().pair == "EURUSD"

    def test_lists_and_tables_are_json_in_the_environment_and_toml_in_the_file(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path
    ) -> None:
        (folder / "forex.toml").write_text('source = "csv"\n[columns]\nPrice = "USDCLP"\n')
        monkeypatch.setenv("FOREX_PATHS", '["a.csv", "b.csv"]')
        monkeypatch.setenv("FOREX_ENGINE__MEMBERS", '["random_walk", "ets"]')
        found = load_settings()
        assert found.paths == (Path("a.csv"), Path("b.csv"))
        assert found.columns == {"Price": "USDCLP"}
        assert found.engine.members == ("random_walk", "ets")
        assert found.source == "csv"

    def test_defaults_need_no_file_and_no_network(self) -> None:
        found = load_settings()
        assert (found.pair, found.source, found.paths) == ("USDMXN", "ecb", ())
        assert found.engine.members == MEMBERS
        assert found.chronos.model == "embedded"

    def test_are_frozen(self) -> None:
        found: Settings = load_settings()
        with pytest.raises(ValidationError, match="frozen"):
            found.pair = "EURUSD"
        with pytest.raises(ValidationError, match="frozen"):
            found.engine.min_members = 1


class TestUnknownNames:
    @pytest.mark.parametrize(
        ("name", "nearest"),
        [
            ("FOREX_PIAR", "FOREX_PAIR"),
            ("FOREX_DATADIR", "FOREX_DATA_DIR"),
            ("forex_sorce", "FOREX_SOURCE"),
            ("FOREX_ENGINE__MIN_MEMBER", "FOREX_ENGINE__MIN_MEMBERS"),
            ("FOREX_ENGINE_MIN_MEMBERS", "FOREX_ENGINE__MIN_MEMBERS"),
            ("FOREX_CHRONOS__MODLE", "FOREX_CHRONOS__MODEL"),
        ],
    )
    @pytest.mark.parametrize("layer", ["environment", ".env"])
    def test_of_variables_are_refused_with_the_nearest_known_one(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, layer: str, name: str, nearest: str
    ) -> None:
        if layer == "environment":
            monkeypatch.setenv(name, "1")
        else:
            (folder / ".env").write_text(f"{name}=1\n")
        message = refusal()
        assert f"{name} in {'the environment' if layer == 'environment' else '.env'}" in message
        assert f"did you mean {nearest}?" in message

    @pytest.mark.parametrize(
        ("text", "name", "nearest"),
        [
            ('piar = "USDCLP"', "piar", "pair"),
            ("[engine]\nmin_membrs = 3", "engine.min_membrs", "engine.min_members"),
            ("[chronos]\ncontexts = 128", "chronos.contexts", "chronos.context"),
            ("[engin]\nmin_members = 3", "engin", "engine"),
            ("engine.grid_evry = 3", "engine.grid_evry", "engine.grid_every"),
            ("[tracking]\nenable = true", "tracking.enable", "tracking.enabled"),
            ("[tracking.mlflow]\nrunname = 'x'", "tracking.mlflow.runname", "tracking.mlflow.run_name"),
            ("tracking_uri = 'x'", "tracking_uri", "tracking.mlflow.tracking_uri"),
        ],
    )
    def test_of_the_toml_file_are_refused_with_the_nearest_known_one(
        self, folder: Path, text: str, name: str, nearest: str
    ) -> None:
        (folder / "forex.toml").write_text(text)
        message = refusal()
        assert f"{name} in forex.toml" in message
        assert f"did you mean {nearest}?" in message

    def test_of_a_nested_json_value_are_refused_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FOREX_ENGINE", '{"min_membrs": 3}')
        assert "did you mean engine.min_members?" in refusal()

    @pytest.mark.parametrize(
        ("overrides", "nearest"), [({"piar": "USDCLP"}, "pair"), ({"engine": {"min_mebers": 3}}, "engine")]
    )
    def test_of_the_call_are_refused_too(self, overrides: Mapping[str, Any], nearest: str) -> None:
        assert f"did you mean {nearest}" in refusal(**overrides)

    def test_that_resemble_nothing_are_refused_with_the_list_of_all(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FOREX_QQQXXX", "1")
        message = refusal()
        assert all(name in message for name in known_names())

    def test_the_folder_of_an_installation_is_tolerated(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path
    ) -> None:
        monkeypatch.setenv("FOREX_HOME", "/opt/forex")
        (folder / ".env").write_text("FOREX_HOME=/opt/forex\nFOREX_PAIR=USDJPY\n")
        assert load_settings().pair == "USDJPY"

    def test_of_other_programs_are_none_of_ours(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        monkeypatch.setenv("PAIR", "EURUSD")
        (folder / ".env").write_text("PREFECT_HOME=/srv/prefect\npair=EURUSD\n")
        assert load_settings().pair == "USDMXN"


class TestValues:
    @pytest.mark.parametrize(
        ("name", "value", "told"),
        [
            ("FOREX_ENGINE__MIN_MEMBERS", "many", ("engine.min_members", "many", "integer")),
            ("FOREX_ENGINE__MIN_MEMBERS", "0", ("engine.min_members", "0", "greater than or equal to 1")),
            ("FOREX_SOURCE", "yahoo", ("source", "yahoo", "'ecb', 'csv', 'store', 'live' or 'auto'")),
            ("FOREX_SKIP_EMAIL", "perhaps", ("skip_email", "perhaps", "boolean")),
            ("FOREX_LANG", "fr", ("lang", "fr", "'en' or 'es'")),
            ("FOREX_COLUMNS", "Close", ("columns", "JSON", 'FOREX_COLUMNS=\'{"Close": "USDCLP"}\'')),
            ("FOREX_ENGINE", "{", ("engine", "JSON")),
            (
                "FOREX_NOTIFY__URLS",
                '["json://a',
                ("notify.urls", 'expected one address, or a JSON list such as ["a", "b"]'),
            ),
        ],
    )
    def test_that_do_not_parse_are_refused_with_setting_and_value(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: tuple[str, ...]
    ) -> None:
        monkeypatch.setenv(name, value)
        message = refusal()
        assert all(part in message for part in told), message

    @pytest.mark.parametrize(
        "given",
        [
            "mailto://a/?to=x@b,y@b, json://c/d",
            "mailto://a/?to=x@b,y@b json://c/d",
            '["mailto://a/?to=x@b,y@b", "json://c/d"]',
        ],
    )
    def test_several_addresses_are_several(self, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
        """Of those that one of them has inside, none."""
        monkeypatch.setenv("FOREX_NOTIFY__URLS", given)
        urls = [url.get_secret_value() for url in load_settings().notify.urls]
        assert urls == ["mailto://a/?to=x@b,y@b", "json://c/d"]

    def test_of_the_toml_file_are_checked_as_well(self, folder: Path) -> None:
        (folder / "forex.toml").write_text("[engine]\ngrid_origins = 3\n")
        assert "engine.grid_origins" in refusal()

    @pytest.mark.parametrize("content", [b"pair = = 3", b"pair = '\xff'", b"[engine\n"])
    def test_a_file_that_is_not_toml_is_refused_by_name(self, folder: Path, content: bytes) -> None:
        (folder / "forex.toml").write_bytes(content)
        assert "forex.toml is not TOML" in refusal()

    def test_a_dotenv_file_that_is_not_text_is_refused(self, folder: Path) -> None:
        (folder / ".env").write_bytes(b"FOREX_PAIR=\xff\n")
        assert "cannot be read" in refusal()


class TestTreasury:
    def test_is_of_the_pair_of_the_settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FOREX_PAIR", "USDCLP")
        monkeypatch.setenv("FOREX_TREASURY__BUDGET_RATE", "950")
        monkeypatch.setenv("FOREX_TREASURY__EXPOSURE", "-2000000")
        for pair in (None, "USDCLP", "usd/clp"):
            found = load_settings(pair=pair).treasury
            assert (found.budget_rate, found.exposure) == (950.0, -2e6)
        assert load_settings(pair="EURUSD").treasury == TreasuryConfig()
        assert load_settings(pair="DOLLARS").treasury == TreasuryConfig()

    def test_what_is_given_with_another_pair_is_of_that(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FOREX_PAIR", "USDCLP")
        monkeypatch.setenv("FOREX_TREASURY__BUDGET_RATE", "950")
        given = load_settings(pair="EURUSD", treasury={"exposure": 5.0}).treasury
        assert (given.budget_rate, given.exposure) == (None, 5.0)
        own = load_settings(treasury={"exposure": 5.0}).treasury
        assert (own.budget_rate, own.exposure) == (950.0, 5.0)

    @pytest.mark.parametrize("value", ["0", "-1", "inf", "nan", "much"])
    def test_a_budget_rate_is_a_positive_number(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("FOREX_TREASURY__BUDGET_RATE", value)
        assert "treasury.budget_rate" in refusal()


class TestPlaces:
    def test_a_relative_data_folder_is_below_the_current_one(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = load_settings(data_dir="here/data")
        assert found.root == folder / "here" / "data"
        assert found.root.is_absolute()
        assert found.reports_dir == folder / "here" / "data" / "reports"
        assert load_settings().root == folder / "data"
        (folder / "elsewhere").mkdir()
        monkeypatch.chdir(folder / "elsewhere")
        assert load_settings().root == folder / "elsewhere" / "data"

    def test_an_absolute_one_and_one_at_home_are_kept(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(folder / "home"))
        assert load_settings(data_dir="~/forex").root == folder / "home" / "forex"
        assert load_settings(data_dir=folder / "x").root == folder / "x"

    def test_tracking_lies_below_it_unless_named(self, folder: Path) -> None:
        found = load_settings()
        assert found.mlflow_uri == f"sqlite:///{folder / 'data' / 'mlflow' / 'mlflow.db'}"
        assert found.mlflow_artifacts == (folder / "data" / "mlflow" / "mlruns").as_uri()
        assert (found.spool_dir, found.backups_dir) == (
            folder / "data" / "spool",
            folder / "data" / "backups",
        )
        places = {"tracking_uri": "postgresql://db/mlflow", "artifact_uri": "s3://bucket/runs"}
        named = load_settings(tracking={"mlflow": places})
        assert (named.mlflow_uri, named.mlflow_artifacts) == ("postgresql://db/mlflow", "s3://bucket/runs")


class TestTracking:
    SECRET = "very-hidden"

    def test_is_a_table_of_the_file(self, folder: Path) -> None:
        (folder / "forex.toml").write_text(
            '[tracking]\nbackend = "noop"\nenabled = false\n'
            '[tracking.mlflow]\nexperiment_name = "mine"\nauto_start_run = true\nrun_name = "first"\n'
        )
        found = load_settings().tracking
        assert (found.backend, found.enabled) == ("noop", False)
        assert (found.mlflow.experiment_name, found.mlflow.auto_start_run) == ("mine", True)
        assert found.mlflow.run_name == "first"

    LAYERS = ("FOREX_TRACKING__MLFLOW__TRACKING_URI", "FOREX_TRACKING_URI", "MLFLOW_TRACKING_URI")

    @pytest.mark.parametrize("highest", range(7))
    def test_a_place_is_said_by_its_path_over_its_short_name_over_mlflows_in_each_layer(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, highest: int
    ) -> None:
        for name in self.LAYERS[highest:]:
            monkeypatch.setenv(name, f"sqlite:///environment/{name}")
        dotenv = self.LAYERS[max(0, highest - 3) :]
        (folder / ".env").write_text("".join(f"{name}=sqlite:///dotenv/{name}\n" for name in dotenv))
        (folder / "forex.toml").write_text('[tracking.mlflow]\ntracking_uri = "sqlite:///toml"\n')
        wanted = [f"sqlite:///environment/{name}" for name in self.LAYERS]
        wanted += [f"sqlite:///dotenv/{name}" for name in self.LAYERS]
        assert load_settings().mlflow_uri == [*wanted, "sqlite:///toml"][highest]

    @pytest.mark.parametrize("layer", ["environment", ".env"])
    def test_takes_mlflows_names(self, monkeypatch: pytest.MonkeyPatch, folder: Path, layer: str) -> None:
        given = {
            "MLFLOW_ARTIFACT_URI": "s3://bucket/runs",
            "MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9000",
            "MLFLOW_S3_ACCESS_KEY_ID": "me",
            "MLFLOW_S3_SECRET_ACCESS_KEY": self.SECRET,
            "MLFLOW_EXPERIMENT_NAME": "mine",
            "MLFLOW_TRACKING_URI": "",
        }
        if layer == "environment":
            for name, value in given.items():
                monkeypatch.setenv(name, value)
        else:
            (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in given.items()))
        found = load_settings()
        mlflow = found.tracking.mlflow
        assert (found.mlflow_artifacts, mlflow.experiment_name) == ("s3://bucket/runs", "mine")
        assert (mlflow.s3_endpoint_url, mlflow.s3_access_key_id) == ("http://127.0.0.1:9000", "me")
        assert mlflow.s3_secret_access_key is not None
        assert mlflow.s3_secret_access_key.get_secret_value() == self.SECRET
        assert mlflow.tracking_uri is None, "an empty name says nothing"

    @pytest.mark.parametrize("layer", ["environment", "forex.toml"])
    @pytest.mark.parametrize("setting", ["registry_uri", "backend_store_uri"])
    def test_the_store_has_other_names(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, setting: str, layer: str
    ) -> None:
        """Alone, and beside its own where they agree; another place for the registry there is not."""
        if layer == "environment":
            monkeypatch.setenv(f"MLFLOW_{setting.upper()}", "postgresql+psycopg://me:hunter2@db/runs")
        else:
            text = f'[tracking.mlflow]\n{setting} = "postgresql+psycopg://me:hunter2@db/runs"\n'
            (folder / "forex.toml").write_text(text)
        assert load_settings().mlflow_uri == "postgresql+psycopg://me:hunter2@db/runs"
        monkeypatch.setenv("FOREX_TRACKING_URI", "postgresql://me:hunter2@db/runs")
        assert load_settings().mlflow_uri == "postgresql://me:hunter2@db/runs"
        monkeypatch.setenv("FOREX_TRACKING_URI", "sqlite:////srv/mlflow.db")
        said = refusal()
        assert "tracking_uri is sqlite:////srv/mlflow.db" in said
        assert f"{setting} is postgresql+psycopg://me:***@db/runs" in said
        assert f"take {setting} away (MLFLOW_{setting.upper()}, FOREX_TRACKING__MLFLOW__" in said
        assert "hunter2" not in said

    def test_backend_and_registry_agree_as_well(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FOREX_TRACKING__MLFLOW__BACKEND_STORE_URI", "http://127.0.0.1:5000/")
        monkeypatch.setenv("FOREX_TRACKING__MLFLOW__REGISTRY_URI", "http://127.0.0.1:5000")
        assert load_settings().mlflow_artifacts == "mlflow-artifacts:/"
        monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://127.0.0.1:5001")
        assert load_settings().mlflow_uri == "http://127.0.0.1:5000/", "the path of a setting comes first"
        monkeypatch.delenv("FOREX_TRACKING__MLFLOW__REGISTRY_URI")
        assert "registry_uri is http://127.0.0.1:5001" in refusal()

    def test_what_lies_behind_a_server_is_its_own_affair(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
        monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "postgresql://me@db/runs")
        assert load_settings().mlflow_uri == "http://127.0.0.1:5000"
        monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://127.0.0.1:5001")
        assert "registry_uri is http://127.0.0.1:5001" in refusal()

    @pytest.mark.parametrize("name", ["MLFLOW_RUN_NAME_PREFIX", "FOREX_TRACKING__MLFLOW__RUN_NAME_PREFIX"])
    def test_takes_a_prefix_of_names(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        assert load_settings().tracking.mlflow.run_name_prefix == ""
        monkeypatch.setenv(name, "desk-")
        assert load_settings().tracking.mlflow.run_name_prefix == "desk-"

    def test_shows_no_secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_S3_SECRET_ACCESS_KEY", self.SECRET)
        found = load_settings()
        assert self.SECRET not in f"{found} {found!r} {found.model_dump()} {found.model_dump_json()}"
        monkeypatch.setenv("FOREX_TRACKING__MLFLOW__S3_SECRET_ACCESS_KEY", '["very-hidden"]')
        assert self.SECRET not in refusal(tracking={"mlflow": {"s3_secret_access_key": [self.SECRET]}})

    @pytest.mark.parametrize(
        ("name", "nearest"),
        [
            ("FOREX_TRACKING__BACKND", "FOREX_TRACKING__BACKEND"),
            ("FOREX_TRACKING__MLFLOW__RUNNAME", "FOREX_TRACKING__MLFLOW__RUN_NAME"),
            ("FOREX_TRACKING_BACKEND", "FOREX_TRACKING__BACKEND"),
        ],
    )
    def test_knows_its_names(self, monkeypatch: pytest.MonkeyPatch, name: str, nearest: str) -> None:
        monkeypatch.setenv(name, "1")
        assert f"did you mean {nearest}?" in refusal()

    def test_refuses_a_backend_that_it_does_not_know(self, folder: Path) -> None:
        (folder / "forex.toml").write_text('[tracking]\nbackend = "wandb"\n')
        assert "'mlflow' or 'noop'" in refusal()


@pytest.mark.parametrize("text", ["market.csv", '["market.csv"]'])
def test_paths_of_the_environment_mean_csv(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREX_PATHS", text)
    settings = load_settings()
    assert (settings.source, settings.paths) == ("csv", (Path("market.csv"),))
    monkeypatch.setenv("FOREX_SOURCE", "ecb")
    assert load_settings().source == "ecb"
    assert load_settings(source="ecb", paths=[]).paths == ()


def test_paths_know_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert load_settings(paths=["~/x.csv"]).paths == (Path("/somewhere/x.csv"),)


def test_files_go_through_the_server_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().mlflow_artifacts.startswith("file:///")
    monkeypatch.setenv("FOREX_TRACKING_URI", "http://127.0.0.1:5000")
    assert load_settings().mlflow_artifacts == "mlflow-artifacts:/"
    monkeypatch.setenv("FOREX_ARTIFACT_URI", "s3://bucket/mlflow")
    assert load_settings().mlflow_artifacts == "s3://bucket/mlflow"
