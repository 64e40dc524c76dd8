"""Settings come from a mapping, once; wrong values name their variable; keys never show themselves."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import gemini_batch_mcp
from gemini_batch_mcp.errors import ConfigurationError
from gemini_batch_mcp.settings import SETTINGS, Settings


def read(env: dict[str, str], *, here: str = "/data/project", user_home: str = "/home/me") -> Settings:
    return Settings.from_env(env, working_directory=Path(here), user_home=Path(user_home))


def test_without_any_variable_the_defaults_hold() -> None:
    settings = read({})

    assert settings.model == "gemini-3-flash-preview"
    assert settings.api_key is None
    assert settings.poll_seconds == 15
    assert settings.reconcile_seconds == 30
    assert not settings.sandbox
    assert not settings.read_only


def test_the_key_is_taken_in_the_order_of_the_sdk_and_never_shown() -> None:
    both = read({"GEMINI_API_KEY": "second", "GOOGLE_API_KEY": "first"}).api_key
    one = read({"GEMINI_API_KEY": "only"}).api_key

    assert both is not None
    assert both.value == "first"
    assert both.origin == "GOOGLE_API_KEY"
    assert both.hides == "GEMINI_API_KEY"
    assert "first" not in f"{both} {both!r} {read({'GOOGLE_API_KEY': 'first'})!r}"
    assert one is not None
    assert one.origin == "GEMINI_API_KEY"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GEMINI_BATCH_SANDBOX", "perhaps"),
        ("GEMINI_BATCH_READ_ONLY", "2"),
        ("GEMINI_BATCH_POLL_SECONDS", "soon"),
        ("GEMINI_BATCH_POLL_SECONDS", "0"),
        ("GEMINI_BATCH_POLL_SECONDS", "-1"),
        ("GEMINI_BATCH_POLL_SECONDS", "inf"),
        ("GEMINI_BATCH_POLL_SECONDS", "nan"),
        ("GEMINI_BATCH_RECONCILE_SECONDS", "-0.1"),
        ("GEMINI_BATCH_MAX_FILE_BYTES", "2GB"),
        ("GEMINI_BATCH_HOME", "relative/path"),
        ("GEMINI_BATCH_MAX_COST_USD", "-1"),
        ("GEMINI_BATCH_MAX_COST_USD", "$5"),
        ("GEMINI_BATCH_PRICES", "prices.json"),
        ("GEMINI_BATCH_UNKNOWN", "ignore"),
        ("GEMINI_BATCH_ROOTS", "/data:relative"),
    ],
)
def test_a_wrong_value_is_named_with_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        read({name: value})


def test_numbers_may_be_fractional_and_switches_are_words() -> None:
    settings = read(
        {"GEMINI_BATCH_POLL_SECONDS": "0.5", "GEMINI_BATCH_READ_ONLY": "yes", "GEMINI_BATCH_RECONCILE_SECONDS": "0"}
    )

    assert settings.poll_seconds == 0.5
    assert settings.reconcile_seconds == 0
    assert settings.read_only


@pytest.mark.parametrize("here", ["/", "/home/me"])
def test_a_working_directory_that_is_too_wide_is_no_root(here: str) -> None:
    assert read({"GEMINI_BATCH_HOME": "/state"}, here=here).roots == (Path("/state/files"),)


def test_the_working_directory_and_the_files_directory_are_the_roots_by_default() -> None:
    assert read({"GEMINI_BATCH_HOME": "/state"}).roots == (Path("/data/project"), Path("/state/files"))
    assert read({"GEMINI_BATCH_ROOTS": "/a:/b"}).roots == (Path("/a"), Path("/b"))
    mixed = read({"GEMINI_BATCH_ROOTS": "gs://bucket/in:/a:s3://other:bq://project.data", "GOOGLE_CLOUD_PROJECT": "p"})
    assert mixed.roots == (Path("/a"),)
    assert mixed.addresses == ("gs://bucket/in/", "s3://other/", "bq://project.data.")
    assert (mixed.cloud, mixed.google.project) == (None, "p")
    only = read({"GEMINI_BATCH_ROOTS": "gs://bucket/in", "GOOGLE_GENAI_USE_ENTERPRISE": "0"})
    assert only.roots == read({}).roots
    assert only.cloud is None


@pytest.mark.parametrize("root", ["s3://", "gs:///", "/data:s3://..", "bq://"])
def test_a_root_that_names_no_bucket_is_refused_and_does_not_open_all_of_them(root: str) -> None:
    with pytest.raises(ConfigurationError, match="names nothing"):
        read({"GEMINI_BATCH_ROOTS": root})


def test_the_sandbox_has_a_state_directory_of_its_own() -> None:
    assert read({"GEMINI_BATCH_HOME": "/state"}).home == Path("/state")
    assert read({"GEMINI_BATCH_HOME": "/state", "GEMINI_BATCH_SANDBOX": "1"}).home == Path("/state/sandbox")


def test_money_is_uncapped_and_confirmed_above_a_dollar_unless_it_is_said_otherwise() -> None:
    plain = read({})
    strict = read(
        {
            "GEMINI_BATCH_MAX_COST_USD": "0",
            "GEMINI_BATCH_PRICES": "/data/prices.json",
        }
    )

    assert (plain.max_cost_usd, plain.prices_path) == (None, None)
    assert (strict.max_cost_usd, strict.prices_path) == (0, Path("/data/prices.json"))


class Asked(Mapping[str, str]):
    """An environment that remembers which variables were asked for."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("Settings are asked for one by one, by their names.")

    def __len__(self) -> int:
        return len(self._values)


@pytest.mark.parametrize("values", [{}, {"GEMINI_BATCH_SANDBOX": "1"}])
def test_every_setting_that_is_read_is_documented_and_every_one_that_is_documented_is_read(
    values: dict[str, str],
) -> None:
    """The README's table and the manifests are written from SETTINGS."""
    env = Asked(values)
    Settings.from_env(env, working_directory=Path("/data/project"), user_home=Path("/home/me"))

    # What the HTTP client and boto3 read by themselves is looked at for secrets only.
    others = {name for name in env.names if name.lower().endswith("_proxy") or name.startswith("AWS_")}
    assert env.names - others == {setting.name for setting in SETTINGS}


def test_every_setting_that_a_sentence_of_ours_names_is_there() -> None:
    package = Path(gemini_batch_mcp.__file__).parent
    named = {
        name
        for path in package.rglob("*.py")
        for name in re.findall(r"\bGEMINI_[A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8"))
    }
    assert "GEMINI_BATCH_HOME" in named
    assert named <= {setting.name for setting in SETTINGS}
