"""Settings: command line over environment `FOREX_*` over `.env` over `forex.toml` over the defaults here.

Where the tracking store is may also be said by MLflow's own names (`MLFLOW_TRACKING_URI` and the others of
`OTHER_NAMES`), in the environment just below `FOREX_*` or in `.env` just below those there.

Constructed only at an entry point and handed down from there.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from dotenv import dotenv_values
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from forex_core.errors import ConfigError, InputError
from forex_core.secrecy import passwords_in, without_password
from forex_core.types import LanguageCode, Pair, RateKind

PREFIX = "FOREX_"
MEMBERS: tuple[str, ...] = (
    "random_walk",
    "arima_garch",
    "ets",
    "theta",
    "var",
    "drivers",
    "momentum",
    "gradient_boosting",
    "chronos",
)


SourceName = Literal["ecb", "csv", "store", "live", "auto"]


class EngineConfig(BaseModel):
    """How a forecast is made; part of the recipe, so that a change makes a new model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: tuple[str, ...] = MEMBERS
    min_members: int = Field(3, ge=1)
    grid_every: int = Field(5, ge=1, description="business days between two origins of the fixed grid")
    grid_origins: int = Field(260, ge=40, description="grid origins behind a published forecast")
    warmup_origins: int = Field(52, ge=0, description="first grid origins, which teach and are not scored")
    min_history_rows: int = Field(300, ge=120, description="rows before the first origin")
    min_scored_origins: int = Field(26, ge=10)
    weight_rate: float = Field(120.0, ge=0, description="how sharply weights follow past losses")


class ChronosConfig(BaseModel):
    """Which weights the Chronos member loads, by default those of this package; without any (null) it is left out.

    `context` and `trained_until` are for weights that do not state their own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = Field(
        "embedded",
        description="'embedded', a local directory, a hub name with a revision, or models:/NAME@champion",
    )
    revision: str | None = None
    context: int = Field(512, ge=64)
    device: str = "cpu"
    trained_until: date | None = Field(None, description="last date the weights have seen, where it is known")
    runtime: Literal["auto", "onnx", "torch"] = Field(
        "auto", description="what runs weights of this project: auto is onnx on a CPU where there is a graph"
    )
    drivers: bool = Field(True, description="show the drivers to weights of this project")


class DataConfig(BaseModel):
    """Where observations come from and are kept; for the sources store, live and auto."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store_url: str | None = Field(None, description="default: SQLite below data_dir; or postgresql://…")
    rate: RateKind = Field("close", description="which rate of the pair")
    drivers: tuple[str, ...] | None = Field(
        None, description="default: those that the register has for the pair"
    )
    required: tuple[str, ...] = Field((), description="drivers without which there is no forecast")
    max_age_business_days: int = Field(3, ge=0, description="business days without a close, at most")
    history_from: date = Field(date(2010, 1, 1), description="first day that is fetched")
    news_days: int = Field(7, ge=0, description="how far back headlines are shown; 0 for none")
    news_feeds: tuple[str, ...] | None = Field(None, description="addresses of RSS or Atom feeds")
    news_api_key: SecretStr | None = None
    fred_api_key: SecretStr | None = None
    bcch_user: SecretStr | None = None
    bcch_password: SecretStr | None = None
    contact: str | None = Field(None, description="mail or web address, told to the sources")
    timeout_s: float = Field(20.0, gt=0, description="for one answer of a source")
    addresses: dict[str, str] = Field({}, description="source to base address, for a mirror")


class NotifyConfig(BaseModel):
    """Who is told what happened, by addresses of Apprise (https://appriseit.com/services/)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    urls: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="one address, or a JSON list, such as mailto://user:password@example.com?to=desk@example.com",
    )
    prefect_block: str | None = Field(
        None, description="name of a Prefect Secret block that holds more of them, for flows"
    )
    timeout_s: float = Field(10.0, gt=0, description="for a connection, and for each answer")
    limit_s: float = Field(60.0, gt=0, description="for one target, with all attempts")
    attempts: int = Field(3, ge=1)
    retry_wait_s: float = Field(2.0, ge=0, description="before the second attempt; doubles from then on")

    @field_validator("urls", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return _listed(value)


class ReportConfig(BaseModel):
    """What a report is beside a page, and who is sent it: others than those whom `NotifyConfig` names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    urls: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="addresses as those of notify.urls; attempts and limits are those of notify"
    )
    prefect_block: str | None = Field(
        None, description="name of a Prefect Secret block that holds more of them, for flows"
    )
    pdf: bool = Field(False, description="also as PDF, which needs the extra pdf")

    @field_validator("urls", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return _listed(value)


STORE_NAMES = ("tracking_uri", "backend_store_uri", "registry_uri")
"""Settings of `MLflowSettings` that name the one store; whichever are given have to agree."""


class MLflowSettings(BaseModel):
    """Where runs are logged and how they begin."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tracking_uri: str | None = Field(None, description="default: SQLite below data_dir")
    artifact_uri: str | None = Field(
        None, description="default: files below data_dir, or through the server where tracking_uri is one"
    )
    experiment_name: str = Field("forex", description="of a tracker whose caller names none")
    auto_start_run: bool = Field(False, description="start a run when the tracker is built")
    run_name: str | None = None
    run_name_prefix: str = Field("", description="before the name of every run")
    backend_store_uri: str | None = Field(
        None,
        description="another name for tracking_uri; not read where that is a server, whose own store it is",
    )
    registry_uri: str | None = Field(
        None, description="another name for tracking_uri: models are registered where their runs are"
    )
    s3_endpoint_url: str | None = Field(None, description="of an S3-compatible store of artifacts")
    s3_access_key_id: str | None = None
    s3_secret_access_key: SecretStr | None = None

    @field_validator("artifact_uri")
    @classmethod
    def _holds_no_password(cls, address: str | None) -> str | None:
        if address and passwords_in(address):
            raise ValueError(
                "MLflow writes this address into its database, so it may hold no password; let the store find its "
                "own, as from its user's keys"
            )
        return address

    @model_validator(mode="after")
    def _has_one_store(self) -> Self:
        first, *others = self._stores or ("",)
        for name in others:
            one, other = str(getattr(self, first)), str(getattr(self, name))
            if _bare(one) != _bare(other):
                raise ValueError(
                    f"{first} is {without_password(one)} and {name} is {without_password(other)}, and runs and the "
                    f"models that are registered of them lie in one store; take {name} away "
                    f"({', '.join(_variables(name))}) or give it the same address"
                )
        return self

    @property
    def _stores(self) -> tuple[str, ...]:
        is_server = (self.tracking_uri or "").startswith(("http://", "https://"))
        of_server = {"backend_store_uri"} if is_server else set()
        return tuple(name for name in STORE_NAMES if getattr(self, name) and name not in of_server)

    @property
    def store_uri(self) -> str | None:
        """Where runs and models are, by whichever of its names."""
        return str(getattr(self, self._stores[0])) if self._stores else None


class TrackingConfig(BaseModel):
    """Whether and with what runs are tracked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    backend: Literal["mlflow", "noop"] = "mlflow"
    mlflow: MLflowSettings = MLflowSettings()
    orphaned_after_h: float = Field(
        24.0, gt=0, description="hours after which a run of another machine that has not ended is given up"
    )
    ui_auth: SecretStr | None = Field(
        None, min_length=3, description="user:password that whoever opens MLflow's pages is asked for"
    )

    @field_validator("ui_auth")
    @classmethod
    def _names_a_user(cls, given: SecretStr | None) -> SecretStr | None:
        if given is not None and not all(given.get_secret_value().partition(":")[::2]):
            raise ValueError("expected user:password")
        return given

    @property
    def is_on(self) -> bool:
        return self.enabled and self.backend == "mlflow"


class MonitorConfig(BaseModel):
    """When published forecasts and their data are an alarm."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    false_alarms_a_year: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="share of years in which one alarm of one horizon is raised and nothing is wrong",
    )
    min_forecasts: int = Field(
        30,
        ge=20,
        le=40,  # published once a week, the year that is looked at has 45 and holidays
        description="scored forecasts of a year below which skill is not judged",
    )
    silent_after_days: Mapping[str, int] = Field(
        default_factory=lambda: {"7d": 5, "15d": 7, "30d": 10, "90d": 10},
        description="days without a published forecast of each horizon",
    )
    unscored_after_days: int = Field(
        7, ge=3, description="days after a target date by which what came is to be recorded"
    )


class TreasuryConfig(BaseModel):
    """What the readers of forecasts of `Settings.pair` have at stake."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget_rate: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="rate that plans are made with, quote per base currency"
    )
    exposure: float | None = Field(
        None,
        allow_inf_nan=False,
        description="amount in base currency at the end of the horizon, 1e18 at most: positive is received, "
        "negative is paid",
    )


_MIN_TOKEN = 16
"""Characters of the dashboard's token, at least."""


class DashboardConfig(BaseModel):
    """Who may read the dashboard that is served, and by which names it is reached."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: SecretStr | None = Field(
        None,
        description=f"whoever reads the served dashboard is asked for it; {_MIN_TOKEN} characters or more",
    )
    hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="names that a proxy serves it under: one, or a JSON list; localhost and addresses go without",
    )

    @field_validator("token")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value) < _MIN_TOKEN:
            raise ValueError(
                f"it has {len(value)} characters, expected {_MIN_TOKEN} or more that nobody guesses, such as those of "
                "'openssl rand -hex 24'; 'forex dashboard --serve --token' without the setting makes one and prints it"
            )
        return value

    @field_validator("hosts", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return _listed(value)


class BackupConfig(BaseModel):
    """Where archives go and how long they are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    to: str | None = Field(
        None, description="default: backups below data_dir; or another folder, or s3://bucket/path"
    )
    keep_daily: int = Field(7, ge=0, description="the newest archive of each of so many days that have one")
    keep_weekly: int = Field(4, ge=0, description="the same of weeks")
    keep_monthly: int = Field(12, ge=0, description="the same of months")
    s3_endpoint_url: str | None = Field(
        None, description="default: that of tracking.mlflow; the keys as well"
    )
    s3_access_key_id: str | None = None
    s3_secret_access_key: SecretStr | None = None


OTHER_NAMES: dict[str, str] = {
    "MLFLOW_TRACKING_URI": "tracking_uri",
    "MLFLOW_ARTIFACT_URI": "artifact_uri",
    "MLFLOW_BACKEND_STORE_URI": "backend_store_uri",
    "MLFLOW_REGISTRY_URI": "registry_uri",
    "MLFLOW_EXPERIMENT_NAME": "experiment_name",
    "MLFLOW_RUN_NAME_PREFIX": "run_name_prefix",
    "MLFLOW_S3_ENDPOINT_URL": "s3_endpoint_url",
    "MLFLOW_S3_ACCESS_KEY_ID": "s3_access_key_id",
    "MLFLOW_S3_SECRET_ACCESS_KEY": "s3_secret_access_key",
    # Short forms; where both are set they count for more than MLflow's own.
    "FOREX_TRACKING_URI": "tracking_uri",
    "FOREX_ARTIFACT_URI": "artifact_uri",
}
"""Variables without a dot in their path: the setting below tracking.mlflow that they stand for."""


def _variables(setting: str) -> tuple[str, ...]:
    """The variables that a setting below tracking.mlflow is read from."""
    others = [name for name, stands_for in OTHER_NAMES.items() if stands_for == setting]
    return (*others, f"{PREFIX}TRACKING__MLFLOW__{setting.upper()}")


def _bare(store: str) -> str:
    """The address of a store without what may differ in addresses of the same: the name of the driver."""
    return re.sub(r"^postgres(ql)?(\+\w+)?:", "postgresql:", store).rstrip("/")


class _OtherNames(PydanticBaseSettingsSource):
    """What `OTHER_NAMES` say, of one layer: the environment or `.env`."""

    def __init__(self, settings: type[BaseSettings], variables: Mapping[str, str | None]) -> None:
        super().__init__(settings)
        self._variables = {name.upper(): value for name, value in variables.items()}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {
            setting: self._variables[name]
            for name, setting in OTHER_NAMES.items()
            if self._variables.get(name)
        }
        return {"tracking": {"mlflow": found}} if found else {}


class Settings(BaseSettings):
    """Everything that a deployment may choose."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        toml_file="forex.toml",
        extra="ignore",  # unknown names are refused below, with the nearest known one
        frozen=True,
        hide_input_in_errors=True,  # a trace in somebody's log would show it, secrets as well
    )

    data_dir: Path = Field(Path("data"), description="everything that the system writes lies below it")
    pair: str = "USDMXN"
    source: SourceName = Field("ecb", description="csv where paths are given and no source is")
    paths: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="files of source csv: one, or a JSON list"
    )
    columns: dict[str, str] = Field({}, description="CSV column name to series name or pair")
    environment: str = "development"
    lang: LanguageCode = Field("en", description="of reports, and of the mails that bring them")
    skip_email: bool = Field(
        False, description="send no report; without an address in report.urls none is sent anyway"
    )
    cache: bool = Field(
        True, description="keep the members' answers below data_dir, so that a run computes what is new"
    )
    auto_rollback: bool = Field(
        False,
        description="roll back when the champion fails a scheduled forecast; takes effect by make deploy",
    )
    engine: EngineConfig = EngineConfig()
    chronos: ChronosConfig = ChronosConfig()
    data: DataConfig = DataConfig()
    notify: NotifyConfig = NotifyConfig()
    report: ReportConfig = ReportConfig()
    tracking: TrackingConfig = TrackingConfig()
    treasury: TreasuryConfig = TreasuryConfig()
    backup: BackupConfig = BackupConfig()
    monitor: MonitorConfig = MonitorConfig()
    dashboard: DashboardConfig = DashboardConfig()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (
            init_settings,
            env_settings,
            _OtherNames(settings_cls, os.environ),
            dotenv_settings,
            _OtherNames(settings_cls, _dotenv()),
            TomlConfigSettingsSource(settings_cls),
        )

    @model_validator(mode="before")
    @classmethod
    def _paths_mean_csv(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {"source": "csv", **values} if values.get("paths") else values

    @field_validator("paths", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return _listed(value)

    @field_validator("paths")
    @classmethod
    def _from_home(cls, paths: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(path.expanduser() for path in paths)

    @field_validator("data_dir")
    @classmethod
    def _is_no_address(cls, folder: Path) -> Path:
        if set("?#") & set(str(folder)):
            raise ValueError("'?' and '#' mean something in a database address; name another folder")
        return folder

    @property
    def root(self) -> Path:
        """Absolute folder that everything is written below."""
        return self.data_dir.expanduser().absolute()

    @property
    def is_fetched(self) -> bool:
        """Whether a run begins by asking the network for data."""
        return self.source in ("live", "auto")

    @property
    def mlflow_uri(self) -> str:
        return self.tracking.mlflow.store_uri or f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> str:
        """Where artifacts go: below the data folder, or through the server where there is one."""
        by_server = self.mlflow_uri.startswith(("http:", "https:"))
        own = "mlflow-artifacts:/" if by_server else (self.root / "mlflow" / "mlruns").as_uri()
        return self.tracking.mlflow.artifact_uri or own

    @property
    def pending_dir(self) -> Path:
        """Forecasts that are published and that the ledger has not taken yet."""
        return self.root / "pending"

    @property
    def store_url(self) -> str:
        return self.data.store_url or f"sqlite:///{self.root / 'store' / 'forex.db'}"

    @property
    def reports_dir(self) -> Path:
        return self.root / "reports"

    @property
    def dashboard_dir(self) -> Path:
        """Pages that the flow `dashboard` writes."""
        return self.root / "dashboard"

    @property
    def training_dir(self) -> Path:
        """A folder of checkpoints and weights for each training run."""
        return self.root / "training"

    @property
    def spool_dir(self) -> Path:
        """Records of runs that the tracking store could not take."""
        return self.root / "spool"

    @property
    def backups_dir(self) -> Path:
        return self.root / "backups"

    @property
    def cache_dir(self) -> Path:
        """What may be deleted at any time, at the price of computing it again."""
        return self.root / "cache"

    @property
    def members_cache(self) -> Path | None:
        """Where the members' answers are kept, if they are."""
        return self.cache_dir / "members" if self.cache else None

    @property
    def secrets(self) -> frozenset[str]:
        """Every secret among the settings, passwords within addresses included; to be told to nobody."""
        found: set[str] = set()
        for value in _leaves(self):
            if isinstance(value, SecretStr):
                found.add(value.get_secret_value())
                found |= passwords_in(value.get_secret_value())
            elif isinstance(value, str):
                found |= passwords_in(value)
        return frozenset(found - {""})


def _leaves(value: object) -> Iterator[object]:
    """Every value in a tree of settings."""
    if isinstance(value, BaseModel):
        value = tuple(getattr(value, name) for name in type(value).model_fields)
    elif isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value


_NEXT_ADDRESS = re.compile(r"[,\s]+(?=[A-Za-z][\w+.-]*://)")


def _listed(value: object) -> object:
    """A list out of a variable: one address, several with a comma or a space between, or several as JSON."""
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith("["):
        return _NEXT_ADDRESS.split(value.strip())
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("""expected one address, or a JSON list such as ["a", "b"]""") from None


def load_settings(**overrides: Any) -> Settings:
    """Settings from every layer; an override of None leaves its layer to the others.

    What is at stake in one pair is not in another: overridden with another pair, of `treasury` the override alone
    counts.

    Raises:
        ConfigError: for a name that is not a setting, or a value that it cannot take.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        _refuse_unknown_names(overrides)
        settings = Settings(**given)
        if "pair" in given and not _is_same_pair(given["pair"], Settings().pair):
            own = TreasuryConfig.model_validate(given.get("treasury", {}))
            settings = settings.model_copy(update={"treasury": own})
        return settings
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(_unknown(where, "in the settings")) from error
        hidden = _may_hold_secret(first["loc"]) or passwords_in(str(first["input"]))
        found = "a value that is not shown" if hidden else repr(first["input"])
        raise ConfigError(
            f"setting '{where}': found {found}; {first['msg'].removeprefix('Value error, ')}"
        ) from error
    except SettingsError as error:  # an environment variable that is not JSON where JSON is due
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"the settings cannot be read: {reason}; expected a list or a table as JSON, such as "
            'FOREX_ENGINE__MEMBERS=\'["random_walk", "ets", "var"]\' or FOREX_COLUMNS=\'{"Close": "USDCLP"}\''
        ) from error
    except (ValueError, OSError) as error:  # a file that cannot be read
        raise ConfigError(f"the settings cannot be read: {error}") from error


def _is_same_pair(one: str, other: str) -> bool:
    try:
        return Pair.parse(one) == Pair.parse(other)
    except InputError:  # whoever uses it says so
        return False


def _may_hold_secret(place: tuple[int | str, ...]) -> bool:
    """Whether what was found at a place of the settings could be or hold a secret: where that is unknown, it could."""
    model: object = Settings
    for name in place:
        if isinstance(name, int):  # of a list, whose annotation names what it holds
            break
        if not (isinstance(model, type) and issubclass(model, BaseModel) and name in model.model_fields):
            return True
        model = model.model_fields[name].annotation
    return is_secret(model)


def is_secret(annotation: object) -> bool:
    """Whether a value of this type is, or holds, a secret."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return any(is_secret(field.annotation) for field in annotation.model_fields.values())
    return annotation is SecretStr or any(is_secret(inner) for inner in get_args(annotation))


def known_names() -> frozenset[str]:
    """Every setting, nested ones with a dot."""
    return frozenset(_names_of(Settings))


def _names_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    names = set()
    for name, field in model.model_fields.items():
        names.add(f"{prefix}{name}")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names |= _names_of(field.annotation, f"{prefix}{name}.")
    return names


def _refuse_unknown_names(overrides: Mapping[str, Any]) -> None:
    known = known_names()
    for name in overrides:
        if name not in known:
            raise ConfigError(_unknown(name, "in the call"))
    environment = {n: "in the environment" for n in os.environ if n.upper().startswith(PREFIX)}
    environment |= {n: "in .env" for n in _dotenv() if n.upper().startswith(PREFIX)}
    for name, where in environment.items():
        # FOREX_HOME is where a deployment is installed; read by its worker, not by us.
        if name.upper() == "FOREX_HOME" or name.upper() in OTHER_NAMES:
            continue
        dotted = name[len(PREFIX) :].lower().replace("__", ".")
        if dotted not in known:
            raise ConfigError(_unknown(dotted, where, spelled=name, as_variable=True))
    toml = Path("forex.toml")
    if toml.is_file():
        try:
            content = tomllib.loads(toml.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"forex.toml is not TOML: {error}") from error
        for name in _flat(content):
            if name not in known:
                raise ConfigError(_unknown(name, "in forex.toml"))


def _dotenv() -> dict[str, str | None]:
    return dotenv_values(".env") if Path(".env").is_file() else {}


def _flat(content: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the settings in a file; a table that is a value, such as columns, is one."""
    parents = {name.rpartition(".")[0] for name in known_names()}
    names = []
    for key, value in content.items():
        nested = isinstance(value, dict) and f"{prefix}{key}" in parents
        names += _flat(value, f"{prefix}{key}.") if nested else [f"{prefix}{key}"]
    return names


def _unknown(name: str, where: str, *, spelled: str | None = None, as_variable: bool = False) -> str:
    same = sorted(known for known in known_names() if known.endswith(f".{name}"))
    near = same or difflib.get_close_matches(name, known_names(), n=1, cutoff=0.5)
    suggestion = near[0] if near else None
    if suggestion and as_variable:
        suggestion = PREFIX + suggestion.upper().replace(".", "__")
    hint = (
        f"did you mean {suggestion}?" if suggestion else f"expected one of {', '.join(sorted(known_names()))}"
    )
    return f"unknown setting {spelled or name} {where}; {hint}"
