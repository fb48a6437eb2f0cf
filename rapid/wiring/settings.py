"""Settings of the roles.

Every setting has a default that suits one machine, can be given in the environment as ``RAPID_NAME``, and on
the command line. Secrets come from the environment or a file, never from the command line.
"""

import json
import socket
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError

from rapid.config import Settings, describe_settings, load_settings
from rapid.display.settings import Tolerance


class RoleSettings(Settings):
    """What every role is told."""

    camera: str = Field(default="LSSTCam", description="Name of a camera definition, or path of one.")
    redis_url: str = Field(default="redis://127.0.0.1:6379/0", description="Redis or Valkey that holds the board.")
    data: Path = Field(
        default=Path("rapid-data"),
        description="Folder of results, products and calibs, if they have no URL of their own.",
    )
    raws: str = Field(default="", description="Where raws arrive: a directory or s3://bucket/prefix.")
    results_url: str = Field(default="", description="Results store; SQLite below `data` if empty.")
    products_url: str = Field(default="", description="Products store; a folder below `data` if empty.")
    calibs_path: Path | None = Field(default=None, description="Certified calibs; a folder below `data` if empty.")
    templates: Path | None = Field(
        default=None, description="Templates that payload difference subtracts, where its pipeline names no others."
    )
    thresholds: Path | None = Field(
        default=None,
        description="A site's own thresholds of the verification of calibrations (YAML), beside the package's.",
    )
    name: str = Field(default="", description="Name of this process on the board; host and role if empty.")
    lease_ms: int = Field(
        default=10_000, ge=500, description="How long a worker may be silent before its job returns [ms]."
    )
    grace_ms: int = Field(
        default=1_500, ge=0, description="How long a job is kept for the worker with its calibs [ms]."
    )
    backlog_age_s: float = Field(
        default=43_200.0, gt=0, description="How long a job may wait before it leaves the backlog unprocessed [s]."
    )
    board_memory_s: float = Field(
        default=216_000.0,
        ge=60,
        description="How long the board remembers an exposure after its last change; its results are stored for good [s].",
    )
    drain_s: float = Field(
        default=25.0, ge=0, description="How long a job may still run when its worker is told to stop [s]."
    )
    outage_s: float = Field(
        default=60.0, gt=0, description="How long to go on trying to reach a server that is away [s]."
    )
    gather_timeout_s: float = Field(default=5.0, gt=0, description="From the first result to the gather [s].")
    regather_timeout_s: float = Field(default=45.0, gt=0, description="From the first result to the re-gather [s].")
    deadline_s: float = Field(default=120.0, gt=0, description="From the post to a gather with whatever there is [s].")
    gather_lease_ms: int = Field(
        default=15_000, ge=500, description="How long a gather may be silent before another makes the summary [ms]."
    )
    wavefront_fit_s: float = Field(
        default=120.0, gt=0, description="Begin no further joint wavefront fit of an exposure after this [s]."
    )
    wavefront_pairs: int = Field(default=3, ge=1, description="Pairs of donuts fitted per corner or detector.")
    movie_period_s: float = Field(
        default=600.0, gt=0, description="How often the movie and the roll-up of a running night are made anew [s]."
    )
    plot_task_s: float = Field(default=300.0, gt=0, description="Plots or a movie that take longer are given up [s].")
    trend_interval_s: float = Field(
        default=30.0, gt=0, description="Least time between two searches of the trends for changes [s]."
    )
    lead_ttl_s: float = Field(default=3.0, gt=0.2, description="How soon a standby head takes over [s].")
    build_calibs: bool = Field(default=True, description="Build calibs when an afternoon sequence is whole.")
    pools: str = Field(default="science,wavefront,build", description="Worker groups a worker serves, by preference.")
    pinned: str = Field(
        default="",
        description="Detectors a worker is pinned to, comma separated, or its share of a group: `ordinal/N [of PATTERN]`.",
    )
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="Port of /metrics, /healthz and /readyz; 0 for none."
    )
    host: str = Field(default="127.0.0.1", description="Address the display listens on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port the display listens on; 0 for a free one.")
    token: SecretStr | None = Field(
        default=None, description="Token that changes over HTTP need; several, one a line, as name and token."
    )
    proxy_header: str = Field(default="", description="Header in which an auth proxy names the user; none if empty.")
    trusted_proxies: str = Field(default="", description="Addresses or networks of that proxy, comma separated.")
    title: str = Field(default="Rapid Analysis", description="Name shown in the titles of the display's pages.")
    cadence_s: float = Field(
        default=40.0, gt=0, description="Cadence the display assumes until the night has shown its own [s]."
    )
    tolerances: dict[str, Tolerance] = Field(
        default_factory=dict,
        description="Bands in which the display calls a number good, by tile: low, high, why, set_by, since. JSON in the "
        "environment.",
    )
    images_kept: int = Field(
        default=32, gt=0, description="Full-resolution images the display keeps on disk; 64 MB each."
    )
    image_s: float = Field(default=60.0, gt=0, description="A full-resolution image that takes longer is given up [s].")
    compare_s: float = Field(
        default=300.0,
        gt=0,
        description="A comparison of two runs, asked for on the page, that takes longer is given up [s].",
    )
    rubintv: bool = Field(
        default=True,
        description="Obey RubinTV's admin page. Its commands name no camera: one head on a Redis database may.",
    )
    publish_rubintv: str = Field(
        default="",
        description="Bucket that RubinTV reads: s3://bucket?endpoint_url=..., or a directory; none if empty.",
    )
    publish_channels: Path | None = Field(
        default=None,
        description="A site's own table of RubinTV's channels and columns, YAML, instead of the packaged one.",
    )
    publish_cluster: bool = Field(
        default=True,
        description="Write RubinTV's cluster status to Redis. Its streams name no camera: one role on a database may.",
    )
    publish_butler: str = Field(
        default="",
        description="Butler repository that results are put into, made if need be; none if empty. Needs the extra butler.",
    )
    publish_consdb: str = Field(default="", description="ConsDB's REST server, e.g. http://host/consdb; none if empty.")
    publish_consdb_token: SecretStr | None = Field(default=None, description="Bearer token for ConsDB.")
    publish_influx: dict[str, Any] = Field(
        default_factory=dict,
        description='InfluxDB that metrics go to, as a table: {"url": "http://host:8086", "database": "rapid"}, or with '
        '"org", "bucket" and "token". JSON in the environment.',
    )
    publish_sasquatch: dict[str, Any] = Field(
        default_factory=dict,
        description='Sasquatch\'s REST proxy, as a table: {"url": "https://host/proxy", "namespace": "lsst.rapid"}, "token". '
        "JSON in the environment.",
    )
    telemetry: dict[str, Any] = Field(
        default_factory=dict,
        description='InfluxDB with the mount\'s telemetry, as a table: {"url": "http://host:8086", "database": "efd"}; its '
        "motion is added to summaries by the publish role. JSON in the environment.",
    )
    publish_spool_mb: int = Field(
        default=200, gt=0, description="Metrics that wait on disk for a sink that is away; the oldest leave first [MB]."
    )
    publish_nights: int = Field(default=2, ge=0, description="Nights compared with the bucket at the start of publish.")
    publish_report_s: float = Field(
        default=120.0, ge=0, description="Shortest time between two versions of a night's report in RubinTV [s]."
    )
    publish_max_age_s: float = Field(
        default=86_400.0, gt=0, description="Give up sending what could not be sent for so long [s]."
    )
    publish_drain_s: float = Field(
        default=20.0, ge=0, description="How long publish still sends when told to stop [s]."
    )
    publish_display_url: str = Field(
        default="", description="Address of our display for people, linked from RubinTV's night report; none if empty."
    )
    butler_repo: str = Field(
        default="",
        description="Root of the Butler repository that raws are ingested into; below `data` if empty. If it is given, "
        "`rapid up` runs ingest.",
    )
    butler_db: str = Field(
        default="",
        description="Database of a new Butler repository, e.g. postgresql+psycopg://user@host/db, its password in "
        "PGPASSWORD or ~/.lsst/db-auth.yaml; SQLite if empty.",
    )
    butler_schema: str = Field(default="", description="Schema of a new Butler repository in a PostgreSQL database.")
    butler_instrument: str = Field(
        default="",
        description="Python class a new instrument is registered with, e.g. lsst.obs.lsst.LsstCam; none if empty.",
    )
    ingest_run: str = Field(
        default="", description="RUN collection that raws are ingested into; CAMERA/raw/all if empty."
    )
    ingest_transfer: str = Field(
        default="direct",
        pattern="^(direct|copy|link|hardlink|symlink|move)$",
        description="What becomes of an ingested file; direct leaves it where it is.",
    )
    ingest_formatter: str = Field(
        default="",
        description="Class that reads raws in a repository with a `raw` of its own; the repository's if empty.",
    )
    ingest_buckets: str = Field(
        default="",
        description="Further buckets, comma separated, whose objects may be told of over HTTP; `raws` always may.",
    )
    ingest_queues: str = Field(
        default="",
        description="Buckets, comma separated, of which embargo-butler's lists QUEUE:bucket tell, in the same Redis.",
    )
    ingest_rules: Path | None = Field(
        default=None, description="Rules for files that are no raws (YAML): pattern and handler."
    )
    ingest_files: str = Field(
        default="", description="Where files that are no raws arrive: a directory or s3://bucket/prefix; none if empty."
    )
    ingest_secret: SecretStr | None = Field(
        default=None, description="What opaqueData of bucket notifications must say; nothing if unset."
    )
    ingest_days: int = Field(
        default=0,
        ge=0,
        description="List only the newest so many YYYYMMDD folders of a bucket of raws; 0 lists all.",
    )
    kafka: dict[str, Any] = Field(
        default_factory=dict,
        description='Kafka broker and topics, as a table: {"servers": "host:9092", "notifications": ["raws"], "visits": '
        '["lsst.sal.ScriptQueue.logevent_nextVisit"]}; ingest reads the former, heads the latter. JSON in the environment.',
    )
    ingest_batch: int = Field(default=250, ge=1, le=5000, description="Most files ingested in one transaction.")
    ingest_linger_s: float = Field(
        default=0.05, ge=0, le=60, description="How long the first file of a batch waits for others [s]."
    )
    ingest_attempts: int = Field(
        default=5, ge=1, description="A file that the repository refused so often is set aside."
    )
    ingest_max_age_s: float = Field(
        default=86_400.0, gt=0, description="Set a file aside that could not be ingested for so long [s]."
    )
    log_format: str = Field(default="json", pattern="^(json|text)$", description="json for machines, text for people.")
    log_level: str = Field(
        default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severe level logged."
    )

    @field_validator("kafka", "publish_influx", "publish_sasquatch", "telemetry", mode="before")
    @classmethod
    def _from_a_secret_file(cls, table: Any) -> Any:
        """Read a table that came as text, from a file named by ``RAPID_..._FILE``: it may have a password in it."""
        if not isinstance(table, str) or not table:
            return table or {}
        try:
            return json.loads(table)
        except ValueError:
            raise PydanticCustomError("json", "must be a table as JSON") from None

    @property
    def results(self) -> str:
        """URL or path of the results store."""
        return self.results_url or str(self.data / "results.sqlite")

    @property
    def products(self) -> str:
        """URL or path of the products store."""
        return self.products_url or str(self.data / "products")

    @property
    def calibs(self) -> Path:
        """Folder of certified calibs."""
        return self.calibs_path or self.data / "calibs"

    @property
    def butler(self) -> str:
        """Root of the Butler repository."""
        return self.butler_repo or str(self.data / "butler")

    @property
    def sinks_folder(self) -> Path:
        """Folder of what waits for metric sinks."""
        return self.data / "sinks"

    def process_name(self, role: str) -> str:
        """Return this process's name on the board."""
        return self.name or f"{role}.{socket.gethostname().split('.')[0]}"


def publishes(settings: RoleSettings) -> bool:
    """Whether there is anybody to publish to."""
    return bool(
        settings.publish_rubintv
        or settings.publish_butler
        or settings.publish_consdb
        or settings.publish_influx
        or settings.publish_sasquatch
        or settings.telemetry
    )


def ingests(settings: RoleSettings) -> bool:
    """Whether `rapid up` is to ingest raws: somebody has named the repository."""
    return bool(settings.butler_repo)


def make_settings(**given: Any) -> RoleSettings:
    """Return settings: what is given, else the environment, secret files, the YAML file, the defaults.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, for a value that is not valid.
    """
    return load_settings(RoleSettings, given)


def settings_table() -> list[tuple[str, str, str]]:
    """Return variable, default and description of every setting, for docs and `rapid config`."""
    return [(fact.variable, fact.default, fact.description) for fact in describe_settings(RoleSettings)]
