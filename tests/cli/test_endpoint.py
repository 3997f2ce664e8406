"""The commands with an embedding service: named in the environment or in the spec, refused, away."""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import tenacity

from tests.cli.fix_cli import Cli, Running
from tests.fix_endpoint import KEY, Behaviour, Endpoint, Reply, Request, failing, good

SPEC = "openai:tiny,dimensions=8"


def for_those_with_the_key(then: Behaviour) -> Behaviour:
    """As OpenAI: 401 without the right key, and an answer that repeats the wrong one."""

    def reply(request: Request) -> Reply:
        given = request.headers.get("authorization", "")
        if given == f"Bearer {KEY}":
            return then(request)
        return failing(401, f"Incorrect API key provided: {given.removeprefix('Bearer ')}")(request)

    return reply


@pytest.fixture
def service(cli: Cli, endpoint: Endpoint) -> Endpoint:
    """A service that wants a key; the command's environment has its address and the key."""
    endpoint.always = for_those_with_the_key(good)
    cli.environment |= {"OPENAI_BASE_URL": endpoint.url, "OPENAI_API_KEY": KEY}
    return endpoint


def test_a_model_of_the_environment_needs_naming_once(cli: Cli, docs: Path, service: Endpoint) -> None:
    cli("collection", "create", "default", "--model", SPEC)
    cli("ingest", docs)
    consumed = cli("consume", "--drain", "--json")
    report = consumed.json[SPEC]
    assert report["embedded"] == 3
    assert report["spent"]["tokens"] > 0
    assert (
        f"{SPEC}: {report['spent']['requests']} requests, {report['spent']['tokens']} tokens" in consumed.err
    )
    cli("project", "--drain")
    assert len(cli("search", "tea", "--json").json["hits"]) == 3
    assert {request.headers["authorization"] for request in service.requests} == {f"Bearer {KEY}"}


def test_a_spec_carries_the_address_the_key_and_the_prefixes(
    cli: Cli, docs: Path, endpoint: Endpoint
) -> None:
    endpoint.always = for_those_with_the_key(good)
    (cli.folder / "key").write_text(f"{KEY}\n")
    spec = f"{SPEC},url={endpoint.url},key_file=key,query_prefix=query: ,document_prefix=passage: ,price=0.02"
    ended = cli("ingest", docs, "--model", spec, "--wait")
    assert re.search(r"\d+ requests, \d+ tokens, at a cost of \d", ended.err)
    cli("search", "tea", "--model", spec)
    assert endpoint.texts[-1] == "query: tea"
    assert all(text.startswith("passage: ") for text in endpoint.texts[:-1])
    refused = cli("consume", "--drain", expect=2)
    assert "cannot be opened by its name alone: give it with --model" in refused.err


def test_a_wrong_key_ends_the_command_and_is_not_shown(cli: Cli, docs: Path, service: Endpoint) -> None:
    cli("ingest", docs, "--model", SPEC)
    cli.environment["OPENAI_API_KEY"] = "sk-the-wrong-one"
    ended = cli("consume", "--drain", expect=1)
    assert "answered 401: Incorrect API key provided: … (model 'tiny')" in ended.err
    assert "wrong-one" not in ended.err + ended.out
    cli.environment["OPENAI_API_KEY"] = KEY
    assert cli("consume", "--drain", "--json").json[SPEC]["embedded"] == 3


def test_what_was_asked_before_a_refusal_is_told(cli: Cli, docs: Path, service: Endpoint) -> None:
    cli("ingest", docs, "--model", SPEC)
    answered: list[Request] = []

    def once(request: Request) -> Reply:
        answered.append(request)
        return (good if len(answered) == 1 else failing(401, "no more"))(request)

    service.always = once
    ended = cli("consume", "--drain", expect=1)
    assert "answered 401: no more" in ended.err
    assert re.search(rf"{SPEC}: \d requests?, [1-9]\d* tokens", ended.err)


def test_no_key_at_all_is_bad_usage(cli: Cli) -> None:
    cli.environment.pop("OPENAI_BASE_URL", None)
    cli.environment.pop("OPENAI_API_KEY", None)
    ended = cli("collection", "create", "notes", "--model", "openai:text-embedding-3-small", expect=2)
    assert "OPENAI_API_KEY" in ended.err


def test_a_service_without_the_dimensions_given_is_asked(cli: Cli, docs: Path, service: Endpoint) -> None:
    cli("ingest", docs, "--model", "openai:tiny", "--wait")
    assert len(cli("search", "tea", "--json").json["hits"]) == 3
    service.stop()
    ended = cli("consume", "--drain", expect=1)
    assert "cannot be reached" in ended.err
    cli("project", "--model", "openai:tiny", "--drain")


def test_what_is_wrong_with_a_spec_is_bad_usage(cli: Cli) -> None:
    for spec in ("openai:", "openai:m,size=8", "openai:m,dimensions=8,url=nowhere"):
        ended = cli("collection", "create", "notes", "--model", spec, expect=2)
        assert re.search("(model|url): .* is not allowed", ended.err)


def test_a_service_that_is_away_is_said_once_and_waited_for(
    cli: Cli, docs: Path, service: Endpoint, started: Callable[..., Running]
) -> None:
    cli("ingest", docs, "--model", SPEC)
    service.always = failing(503)
    running = started("up", "--model", f"{SPEC},patience=0.1")
    running.says(f"{SPEC} is not there, and is asked again until it is")
    service.always = good
    waiting = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda found: len(found) < 3),
        wait=tenacity.wait_fixed(0.1),
        stop=tenacity.stop_after_delay(60),
    )
    waiting(lambda: cli("search", "tea", "--json").json["hits"])
    running.process.send_signal(signal.SIGTERM)
    ended = running.end()
    assert ended.code == 0
    assert "is not there" not in ended.err
    assert cli("status", "--json").json["collections"][0]["models"][0]["waiting"] == 0
