"""Settings from every place they can come from."""

from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from rapid.config import Settings, describe_settings, load_settings, unknown_variables
from rapid.errors import ConfigurationError


class Role(Settings):
    camera: str = Field(default="LSSTCam", description="Camera.")
    lease_ms: int = Field(default=10_000, ge=500, description="Lease [ms].")
    token: SecretStr | None = Field(default=None, description="Token.")
    folder: Path = Field(description="Folder.")


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "rapid.yaml"
        path.write_text(text)
        return path

    return write


def test_each_place_gives_way_to_the_one_before_it(write, tmp_path, monkeypatch):
    file = write("camera: FromYaml\nlease_ms: 1000\nfolder: /yaml\ntoken: yaml")
    (tmp_path / "token").write_text("from-file\n")
    monkeypatch.setenv("RAPID_CONFIG", str(file))
    monkeypatch.setenv("RAPID_LEASE_MS", "2000")
    monkeypatch.setenv("RAPID_FOLDER", "/environment")
    monkeypatch.setenv("RAPID_TOKEN_FILE", str(tmp_path / "token"))
    settings = load_settings(Role, {"folder": "/given", "camera": None})
    assert (settings.camera, settings.lease_ms, settings.folder) == ("FromYaml", 2000, Path("/given"))
    assert settings.token.get_secret_value() == "from-file"
    monkeypatch.setenv("RAPID_TOKEN", "environment")
    assert load_settings(Role).token.get_secret_value() == "environment"
    assert load_settings(Role).folder == Path("/environment")


def test_defaults_hold_where_nothing_is_said():
    settings = load_settings(Role, {"folder": "/x"})
    assert (settings.camera, settings.lease_ms, settings.token) == ("LSSTCam", 10_000, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lease_m: 5", "lease_m: is no setting .*did you mean lease_ms"),
        ("lease_ms: soon", "lease_ms: Input should be a valid integer"),
        ("lease_ms: 5", "lease_ms: .*greater than or equal to 500"),
        ("- a", "must hold a mapping"),
        ("a: [", "is not YAML in line 1"),
        ("camera: x", "folder: Field required"),
    ],
    ids=["misspelt", "no number", "out of range", "a list", "no YAML", "one missing"],
)
def test_what_is_wrong_is_said_by_its_field(write, text, message):
    with pytest.raises(ConfigurationError, match=message):
        load_settings(Role, file=write(text))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere"):
        load_settings(Role, file=tmp_path / "nowhere.yaml")


def test_a_given_name_that_is_unknown_is_refused():
    with pytest.raises(ConfigurationError, match="cameras: is no setting"):
        load_settings(Role, {"cameras": "x"})


def test_no_message_repeats_a_secret(write, tmp_path):
    for text in ("token: [hush]", "token: {a: hush}", "token: 'hush\nfolder: x"):
        with pytest.raises(ConfigurationError) as caught:
            load_settings(Role, {"folder": "/x"}, file=write(text))
        assert "hush" not in str(caught.value)
        assert caught.value.__cause__ is None
    assert "hush" not in repr(load_settings(Role, {"folder": "/x", "token": "hush"}))


def test_a_secret_file_that_cannot_be_read_is_an_error(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigurationError, match="token"):
            load_settings(Role, {"folder": "/x"}, environment={"RAPID_TOKEN_FILE": str(path)})
    (tmp_path / "long").write_bytes(b"x" * 100_000)
    with pytest.raises(ConfigurationError, match="too long"):
        load_settings(Role, {"folder": "/x"}, environment={"RAPID_TOKEN_FILE": str(tmp_path / "long")})


def test_settings_describe_themselves():
    facts = {fact.name: fact for fact in describe_settings(Role)}
    assert list(facts) == ["camera", "lease_ms", "token", "folder"]
    assert facts["lease_ms"].variable == "RAPID_LEASE_MS"
    assert facts["lease_ms"].default == "10000"
    assert facts["lease_ms"].description == "Lease [ms]."
    assert facts["token"].is_secret
    assert not facts["camera"].is_secret
    assert facts["folder"].default == ""


def test_a_misspelt_variable_is_found():
    environment = {"RAPID_CAMREA": "x", "RAPID_CAMERA": "x", "RAPID_TOKEN_FILE": "x", "RAPID_CONFIG": "x", "HOME": "/"}
    assert unknown_variables(Role, environment=environment) == ["RAPID_CAMREA"]
