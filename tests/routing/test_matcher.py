"""Templates: what is accepted, refused, filled.  Matcher: what is found, at what cost."""

from __future__ import annotations

import contextlib
import random
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import pytest

from trioweb._errors import HTTPException, RegistrationError
from trioweb._http.paths import below_root, routed_path
from trioweb._routing.matcher import Matcher, Node
from trioweb._routing.templates import Template

AN_UUID = UUID("12345678-1234-5678-1234-567812345678")
KIB = 1024


def matcher_of(*routes: str) -> Matcher[str]:
    """A matcher of routes such as `"GET,POST /users"`; the target is the route's own text."""
    matcher: Matcher[str] = Matcher()
    for route in routes:
        methods, _, text = route.rpartition(" ")
        matcher.add(Template.parse(text), (methods or "GET").split(","), route)
    return matcher


def match(matcher: Matcher[str], path: str, method: str = "GET") -> tuple[str, dict[str, Any]]:
    """Routes `path` as it stands on the wire, the way a server hands it over."""
    return matcher.match(method, unquote(path), path.encode())


def refused(matcher: Matcher[str], path: str, method: str = "GET") -> HTTPException:
    with pytest.raises(HTTPException) as caught:
        match(matcher, path, method)
    return caught.value


class CountedVisits:
    """Counts the nodes that matches look at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        find = Node.find

        def counted(node: Node[Any], search: Any, depth: int) -> Any:
            self.count += 1
            return find(node, search, depth)

        monkeypatch.setattr(Node, "find", counted)


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> CountedVisits:
    return CountedVisits(monkeypatch)


# Templates


TYPES = {"uuid": UUID, "int": int, "float": float, "str": str, "path": str}


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("/", {}),
        ("/users/", {}),
        ("/a//b", {}),
        ("/café/@me/a-b_c.d~e", {}),
        ("/users/{id}", {"id": "str"}),
        (
            "/{a:uuid}/{b:int}/{c:float}/{d:str}/{e:path}",
            {"a": "uuid", "b": "int", "c": "float", "d": "str", "e": "path"},
        ),
        ("/v{version:int}/@{user}/{file}.tar.gz", {"version": "int", "user": "str", "file": "str"}),
        ("/{self}/{text}", {"self": "str", "text": "str"}),
    ],
)
def test_parameters_of_a_template(text: str, parameters: dict[str, str]) -> None:
    template = Template.parse(text)
    assert template.text == text
    assert template.parameters == parameters
    assert template.types == {name: TYPES[parameters[name]] for name in parameters}
    assert template == Template.parse(text)
    assert hash(template) == hash(Template.parse(text))


@pytest.mark.parametrize(
    ("wrong", "right", "problem"),
    [
        ("", "/", "begins with a slash"),
        ("users", "/users", "begins with a slash"),
        ("//users", "/users", "expect a host"),
        ("/users/{id", "/users/{id}", "braces come in pairs"),
        ("/users/id}", "/users/{id}", "braces come in pairs"),
        ("/users/{{id}}", "/users/{id}", "braces come in pairs"),
        ("/{a}{b}", "/{a}/{b}", "one parameter"),
        ("/{year:int}-{month:int}.html", "/{year:int}/{month:int}", "one parameter"),
        ("/{}", "/{_}", "identifier"),
        ("/{user-id}", "/{user_id}", "identifier"),
        ("/{1st:int}", "/{_1st:int}", "identifier"),
        ("/{id?}", "/{id_}", "identifier"),
        ("/{id:integer}", "/{id:int}", "no converter 'integer', only uuid, int, float, str, path"),
        ("/{id:}", None, "no converter ''"),
        ("/{id}/{idea}/{id:int}", "/{id_1}/{idea}/{id:int}", "two parameters are named 'id'"),
        ("/{rest:path}/x", "/{rest:path}", "takes all of the rest"),
        ("/{a:path}/{b:path}", "/{a:path}", "takes all of the rest"),
        ("/files/{rest:path}.txt", "/files/{rest:path}", "takes all of the rest"),
        ("/@{rest:path}", "/@/{rest:path}", "takes all of the rest"),
        ("/users?page=1", "/users", "decoded path"),
        ("/users/{id}#top", "/users/{id}", "decoded path"),
        ("/caf%C3%A9/{id}", "/café/{id}", "decoded path"),
        ("/a b", "/a-b", "decoded path"),
        ("/a\\b", "/a-b", "decoded path"),
        ("/a\x00b", "/a-b", "decoded path"),
        ("/a\n", "/a-", "decoded path"),
        ("/a\u2003b", "/a-b", "decoded path"),
        ("/\ud800", "/-", "decoded path"),
        ("/x{id} ", "/x{id}-", "decoded path"),
        ("/a/../b", "/a/b", "clients resolve '..'"),
        ("/.", "/", "clients resolve '.'"),
    ],
)
def test_malformed_template_is_refused_with_one_that_works(
    wrong: str, right: str | None, problem: str
) -> None:
    with pytest.raises(RegistrationError) as caught:
        Template.parse(wrong)
    first, wrong_line, right_line = str(caught.value).splitlines()
    assert problem in first
    assert wrong_line == f"    wrong:  {wrong!r}"
    if right is not None:
        assert right_line == f"    right:  {right!r}"
        Template.parse(right)


def test_parse_raises_nothing_but_registration_errors() -> None:
    rng = random.Random(1)
    alphabet = "//{{}}:ab1.:?#% \\é\n\x00"
    for _ in range(5_000):
        text = "/" + "".join(rng.choices(alphabet, k=rng.randrange(12)))
        try:
            template = Template.parse(text)
        except RegistrationError:
            continue
        matcher_of(f"GET {template.text}")


# Filling


@pytest.mark.parametrize(
    ("text", "values", "path"),
    [
        ("/café/@me", {}, "/caf%C3%A9/@me"),
        ("/users/{id}", {"id": 5}, "/users/5"),
        ("/users/{id}", {"id": "a/b %2F?é"}, "/users/a%2Fb%20%252F%3F%C3%A9"),
        ("/send/{email}", {"email": "a+b@c.d"}, "/send/a+b@c.d"),
        ("/{file}.json", {"file": "a.json"}, "/a.json.json"),
        ("/{a:int}", {"a": "007"}, "/007"),
        ("/{a:uuid}", {"a": AN_UUID}, f"/{AN_UUID}"),
        ("/{a:float}", {"a": 1e-07}, "/0.0000001"),
        ("/{a:float}", {"a": 1e22}, "/10000000000000000000000"),
        ("/{a:float}", {"a": 3}, "/3"),
        ("/f/{rest:path}", {"rest": "a/b%2F/ c/"}, "/f/a/b%252F/%20c/"),
        ("/f/{rest:path}", {"rest": ""}, "/f/"),
        ("/f/{rest:path}", {"rest": "/etc"}, "/f//etc"),
        ("/{self}", {"self": "x"}, "/x"),
    ],
)
def test_fill(text: str, values: dict[str, object], path: str) -> None:
    assert Template.parse(text).fill(**values) == path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("/{x}", ""),
        ("/{x}", "."),
        ("/{x}", ".."),
        ("/.{x}", "."),
        ("/{x}", "\ud800"),
        ("/{x:int}", -1),
        ("/{x:int}", True),
        ("/{x:int}", 1.0),
        ("/{x:int}", "٣"),
        ("/{x:int}", 10**400),
        ("/{x:float}", -0.5),
        ("/{x:float}", float("nan")),
        ("/{x:float}", float("inf")),
        ("/{x:float}", "1e5"),
        ("/{x:uuid}", "nope"),
        ("/f/{x:path}", "a/../b"),
        ("/f/{x:path}", "."),
        ("/{x:path}", "/evil.example"),
    ],
)
def test_value_that_would_not_arrive_is_refused(text: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"doesn't fit|clients|surrogates"):
        Template.parse(text).fill(x=value)


def test_missing_and_unexpected_values_are_named_together() -> None:
    template = Template.parse("/{a}/{b}/{c}")
    with pytest.raises(
        TypeError, match=r"^/{a}/{b}/{c}: 'a' is missing, 'c' is missing, 'd' is unex"
    ):
        template.fill(b=1, d=2)


def random_text(rng: random.Random) -> str:
    pieces = [*"aZ9%//. +?#\\é漢\U0001f600\x00", "%2F", ".."]
    return "".join(rng.choices(pieces, k=rng.randrange(5)))


@pytest.mark.parametrize("seed", range(5))
def test_what_fill_makes_routes_back_to_the_same_values(seed: int) -> None:
    rng = random.Random(seed)
    text = "/é/v{i:int}/{s}/{f:float}/{u:uuid}/{p:path}"
    template, matcher = Template.parse(text), matcher_of(text)
    round_trips = 0
    for _ in range(1_000):
        values: dict[str, Any] = {
            "i": rng.randrange(10 ** rng.randrange(1, 400)),
            "s": random_text(rng),
            "f": rng.choice([0.0, 5e-324, 1.7976931348623157e308, 10 ** rng.uniform(-320, 308)]),
            "u": UUID(int=rng.getrandbits(128)),
            "p": random_text(rng),
        }
        if values["s"] in ("", ".", "..") or {".", ".."} & set(values["p"].split("/")):
            with pytest.raises(ValueError, match=r"doesn't fit|clients resolve"):
                template.fill(**values)
        else:
            round_trips += 1
            assert match(matcher, template.fill(**values)) == (text, values)
    assert round_trips > 500


# Matching


PAGES = ["/users/me", "/users/{id:int}", "/users/{name}", "/users/{id}/posts", "/users/me/y"]


@pytest.mark.parametrize(
    ("routes", "path", "target", "values"),
    [
        (["/"], "/", "/", {}),
        (["/a/b"], "/a/b", "/a/b", {}),
        (["/a//b", "/a/b"], "/a//b", "/a//b", {}),
        (["/a/", "/a"], "/a/", "/a/", {}),
        # the most specific first, with a way back
        (PAGES, "/users/me", "/users/me", {}),
        (PAGES, "/users/7", "/users/{id:int}", {"id": 7}),
        (PAGES, "/users/x", "/users/{name}", {"name": "x"}),
        (PAGES, "/users/me/posts", "/users/{id}/posts", {"id": "me"}),
        (["/{a}/x", "/{b:int}/y"], "/1/x", "/{a}/x", {"a": "1"}),
        (["/{a:path}", "/a/{b}/c"], "/a/b/d", "/{a:path}", {"a": "a/b/d"}),
        # converters, whatever the order of registration
        (
            ["/{a:path}", "/{a}", "/{a:float}", "/{a:int}", "/{a:uuid}"],
            f"/{AN_UUID}",
            "/{a:uuid}",
            {"a": AN_UUID},
        ),
        (["/{a}", "/{a:int}", "/{a:uuid}"], f"/{AN_UUID.hex.upper()}", "/{a:uuid}", {"a": AN_UUID}),
        (["/{a}", "/{a:float}", "/{a:int}"], "/12", "/{a:int}", {"a": 12}),
        (["/{a}", "/{a:float}", "/{a:int}"], "/1.5", "/{a:float}", {"a": 1.5}),
        (["/{a:path}", "/{a}"], "/x", "/{a}", {"a": "x"}),
        (["/{a:path}", "/{a}"], "/x/y", "/{a:path}", {"a": "x/y"}),
        (["/{a:path}"], "/", "/{a:path}", {"a": ""}),
        (["/f/{a:path}"], "/f/", "/f/{a:path}", {"a": ""}),
        (["/f/{a:path}"], "/f//a//", "/f/{a:path}", {"a": "/a//"}),
        # literal text around a parameter
        (["/{a}", "/{a}.json"], "/x.json", "/{a}.json", {"a": "x"}),
        (["/{a}", "/{a}.json"], "/.json", "/{a}", {"a": ".json"}),
        (["/{a}.gz", "/{a}.tar.gz"], "/x.tar.gz", "/{a}.tar.gz", {"a": "x"}),
        (["/v{a}", "/v{a:int}", "/{a}"], "/v12", "/v{a:int}", {"a": 12}),
        (["/v{a:int}", "/{a}"], "/vx", "/{a}", {"a": "vx"}),
        (["/v{a}", "/{a:int}"], "/12", "/{a:int}", {"a": 12}),
        (["/v{a}/x", "/{a}/y"], "/v1/y", "/{a}/y", {"a": "v1"}),
        (["/@{user}"], "/@%2Fa", "/@{user}", {"user": "/a"}),
        (["/ab{x}bc"], "/abbc", None, {}),
        (["/ab{x}bc"], "/abc", None, {}),
        # decoded once, never split by an encoded slash
        (["/café"], "/caf%C3%A9", "/café", {}),
        (["/about"], "/%61bout", "/about", {}),
        (["/a/b"], "/a%2Fb", None, {}),
        (["/f/{name}"], "/f/a%2fb", "/f/{name}", {"name": "a/b"}),
        (["/f/{name}"], "/f/%252F", "/f/{name}", {"name": "%2F"}),
        (["/f/{name}"], "/f/%00%0A+", "/f/{name}", {"name": "\x00\n+"}),
        (["/f/{rest:path}"], "/f/a%2Fb/c%20d", "/f/{rest:path}", {"rest": "a/b/c d"}),
        # nothing fits
        ([], "/", None, {}),
        (["/a"], "/a/", None, {}),
        (["/a/"], "/a", None, {}),
        (["/a/b"], "/a//b", None, {}),
        (["/a/{x}"], "/a/", None, {}),
        (["/f/{a:path}"], "/f", None, {}),
        (["/a"], "/A", None, {}),
        (["/{x:int}"], "/-1", None, {}),
        (["/{x:int}"], "/%D9%A3", None, {}),
        (["/{x:int}"], "/1_0", None, {}),
        (["/{x:int}"], "/" + "9" * 401, None, {}),
        (["/{x:float}"], "/" + "9" * 400, None, {}),
        (["/{x:float}"], "/" + "0" * 401, None, {}),
        (["/{x:float}"], "/1.", None, {}),
        (["/{x:float}"], "/nan", None, {}),
        (["/{x:uuid}"], f"/%7B{AN_UUID}%7D", None, {}),
        (["/{x:path}"], "*", None, {}),
        (["/{x:path}"], "", None, {}),
        (["/{x:path}"], "http://host/x", None, {}),
        (["/{x:path}"], "http://host/%41", None, {}),
    ],
)
def test_match(routes: list[str], path: str, target: str | None, values: dict[str, Any]) -> None:
    for order in (routes, list(reversed(routes))):
        if target is None:
            assert refused(matcher_of(*order), path).status_code == 404
        else:
            assert match(matcher_of(*order), path) == (target, values)


@pytest.mark.parametrize(
    ("routes", "method", "target"),
    [
        (["GET /a"], "HEAD", "GET /a"),
        (["GET /a", "HEAD /a"], "HEAD", "HEAD /a"),
        (["HEAD /a", "GET /a"], "GET", "GET /a"),
        (["GET,POST /a"], "POST", "GET,POST /a"),
        (["GET /a", "HEAD /{x}"], "HEAD", "GET /a"),
        (["GET /a", "POST /{x}"], "POST", "POST /{x}"),
        (["POST /a", "GET /{x:path}"], "HEAD", "GET /{x:path}"),
        (["GET /{id}", "POST /{name}"], "POST", "POST /{name}"),
        (["GET /a", "GET,POST /{x}"], "GET", "GET /a"),
        (["GET /{x}", "GET /{x:path}", "PUT /{y:path}"], "PUT", "PUT /{y:path}"),
    ],
)
def test_method(routes: list[str], method: str, target: str) -> None:
    for path in ("/a", "/%61"):
        assert match(matcher_of(*routes), path, method)[0] == target


def test_values_have_the_names_of_the_route_that_matched() -> None:
    matcher = matcher_of("GET /{id}/x", "POST /{name}/x")
    assert match(matcher, "/7/x", "GET")[1] == {"id": "7"}
    assert match(matcher, "/7/x", "POST")[1] == {"name": "7"}


@pytest.mark.parametrize(
    ("routes", "path", "allow"),
    [
        (["GET /a"], "/a", "GET, HEAD"),
        (["POST,DELETE /a"], "/a", "DELETE, POST"),
        (["HEAD /a"], "/a", "HEAD"),
        (["GET /a", "POST /{x}", "PATCH /{x:path}", "DELETE /b"], "/a", "GET, HEAD, PATCH, POST"),
        (["GET /x{a}", "POST /{b}y"], "/x-y", "GET, HEAD, POST"),
    ],
)
def test_method_not_allowed_names_those_that_are(routes: list[str], path: str, allow: str) -> None:
    exc = refused(matcher_of(*routes), path, "PUT")
    assert (exc.status_code, exc.headers) == (405, {"Allow": allow})


@pytest.mark.parametrize(
    "raw_path",
    [
        b"/%zz",
        b"/%",
        b"/%4",
        b"/a%2",
        b"/%ff",
        b"/%C3/%A9",
        b"/%C3%28",
        b"/%ED%A0%80",
        b"/\xe9",
        b"/%41\xe9",
    ],
)
def test_malformed_path(raw_path: bytes) -> None:
    with pytest.raises(HTTPException) as caught:
        matcher_of("/{x:path}").match("GET", "/", raw_path)
    assert caught.value.status_code == 400
    assert routed_path("/as/decoded", raw_path + b"%2F") == "/as/decoded"


@pytest.mark.parametrize("raw_path", [None, b"", b"/f/a"])
def test_without_anything_to_decode_the_decoded_path_is_routed(raw_path: bytes | None) -> None:
    matcher = matcher_of("/f/{name}")
    assert matcher.match("GET", "/f/%41 é", raw_path) == ("/f/{name}", {"name": "%41 é"})


@pytest.mark.parametrize(
    ("path", "raw_path", "routed"),
    [
        ("/a/b", None, "/a/b"),
        ("/a/b", b"/a/b", "/a/b"),
        ("/é b", b"/%C3%A9%20b", "/é b"),
        ("/a/b/é", b"/a%2Fb/%C3%A9", "/a%2Fb/é"),
        ("/a/b", b"/a%2fb", "/a%2Fb"),
        ("/a%2Fb", b"/a%252Fb", "/a%2Fb"),
    ],
)
def test_routed_path(path: str, raw_path: bytes | None, routed: str) -> None:
    assert routed_path(path, raw_path) == routed


# Refusals


@pytest.mark.parametrize(
    ("old", "new", "right"),
    [
        ("/a", "/a", "GET '/a' once, or with another method"),
        ("/{a}", "/{a:str}", "GET '/{a:str}' once, or with another method"),
        ("/{id}", "/{name}", "GET '/{id}' and GET '/other/{name}'"),
        ("/u/{id:int}/x", "/u/{n:int}/x", "GET '/u/{id:int}/x' and GET '/u/other/{n:int}/x'"),
        ("/f/{a:path}", "/f/{b:path}", "GET '/f/{a:path}' and GET '/f/other/{b:path}'"),
        ("/v{a}.x", "/v{b}.x", "GET '/v{a}.x' and GET '/other/v{b}.x'"),
        ("/@{user}", "/{page}.html", "GET '/@{user}' and GET '/other/{page}.html'"),
        ("/{page}.html", "/@{user}", "GET '/{page}.html' and GET '/other/@{user}'"),
        ("/ab{x}", "/a{x}b", "GET '/ab{x}' and GET '/other/a{x}b'"),
        ("/1{a:int}", "/{b:int}2", "GET '/1{a:int}' and GET '/other/{b:int}2'"),
        ("/x{a}/b", "/{a}y/{b}", "GET '/x{a}/b' and GET '/other/{a}y/{b}'"),
        ("/x{a}/{b}", "/{a}y/b", "GET '/x{a}/{b}' and GET '/other/{a}y/b'"),
        ("/x{a}/{b:uuid}", "/{a}y/{c:uuid}", "GET '/x{a}/{b:uuid}' and GET '/other/{a}y/{c:uuid}'"),
        ("/x{a}/b/c/v{d}", "/{a}y/{p:path}", "GET '/x{a}/b/c/v{d}' and GET '/other/{a}y/{p:path}'"),
        ("/x{a}/{p:path}", "/{a}y/", "GET '/x{a}/{p:path}' and GET '/other/{a}y/'"),
    ],
)
def test_ambiguous_route_is_refused(old: str, new: str, right: str) -> None:
    matcher = matcher_of(f"GET,PUT {old}")
    template = Template.parse(new)
    with pytest.raises(RegistrationError) as caught:
        matcher.add(template, ["POST", "GET"], "new")
    problem, wrong_line, right_line = str(caught.value).splitlines()
    assert problem.startswith(f"GET {new} is ")
    assert wrong_line == f"    wrong:  GET {old!r} and GET {new!r}"
    assert right_line == f"    right:  {right}"
    matcher.add(template, ["POST"], "new")  # nothing was left behind


@pytest.mark.parametrize(
    "routes",
    [
        ["/{id}", "POST /{name}"],
        ["/@{user}", "POST /{page}.html"],
        ["/@{user}/posts", "/{page}.html"],
        ["/@{user}/a", "/{page}.html/b"],
        ["/@{user}/a", "/{page}.html/{n:int}"],
        ["/v{n:int}", "/{page}.html"],
        ["/a{x}", "/ab{x}", "/{x}", "/ab{x}c"],
        ["/a{x}c", "/b{x}"],
        ["/x{a}", "/{a:uuid}", "/{a:int}", "/{a:float}", "/{a}", "/{a:path}"],
    ],
)
def test_routes_that_can_be_told_apart_are_accepted(routes: list[str]) -> None:
    matcher_of(*routes)
    matcher_of(*reversed(routes))


# Cost


@pytest.mark.parametrize("others", [8, 2_000])
@pytest.mark.parametrize(
    "sibling", ["/other{}", "/send/other{}", "/send{}/{{x}}", "/s{}-{{x}}", "/send/s{}-{{x}}/x"]
)
def test_number_of_routes_does_not_matter(others: int, sibling: str, visits: CountedVisits) -> None:
    matcher = matcher_of("/send/{email}", *map(sibling.format, range(others)))
    assert match(matcher, "/send/a@b.c") == ("/send/{email}", {"email": "a@b.c"})
    assert visits.count <= 3  # most need none


def test_static_paths_do_not_walk_the_tree(visits: CountedVisits) -> None:
    matcher = matcher_of("/a/b", "/{x}/b")
    assert match(matcher, "/a/b")[0] == "/a/b"
    assert visits.count == 0


def test_a_parameter_behind_nothing_but_text_does_not_walk_the_tree(visits: CountedVisits) -> None:
    matcher = matcher_of("/a/{n:int}", "/a/{x}", "/{y}/5")
    assert match(matcher, "/a/5") == ("/a/{n:int}", {"n": 5})
    assert match(matcher, "/a/b") == ("/a/{x}", {"x": "b"})
    assert visits.count == 0


@pytest.mark.slow
def test_the_shorter_way_finds_what_the_tree_holds() -> None:
    rng = random.Random(1)
    shorter = sum(compare_ways(rng) for _ in range(30))
    assert shorter > 400


class Tree(Matcher[str]):
    """Knows the long way only."""

    def match_last(self, method: str, path: str) -> None:
        return None


def compare_ways(rng: random.Random) -> int:
    """On random routes and paths; how often there was a shorter one."""
    beginnings = ["/", "/", "/a/", "/b/", "/é/", "/a//", "/a/b/", "/{w}/", "/v{w}/a/"]
    ends = ["a", "b", "", "{x}", "{x}", "{x:int}", "{x:uuid}", "v{x}", "{x:path}", "{x}/5"]
    texts = [rng.choice(beginnings) + rng.choice(ends) for _ in range(12)]
    matcher, tree = Matcher[str](), Tree()
    for text in texts:
        methods = [rng.choice(["GET", "PUT"])]
        for each in (matcher, tree):
            with contextlib.suppress(RegistrationError):
                each.add(Template.parse(text), methods, text)
    segments = ["a", "a", "b", "", "é", "5", "5", "v1", "%2F", "9" * 500, "\udc80", "*"]
    shorter = 0
    for _ in range(200):
        path = rng.choice(["", "//", "/a/5/", *beginnings[:-2]]) + rng.choice(segments)
        for method in ("GET", "HEAD", "PUT"):
            raw_path = rng.choice([None, path.encode(errors="replace")])
            found = outcome(matcher, method, path, raw_path)
            assert found == outcome(tree, method, path, raw_path)
            shorter += matcher.match_last(method, path) is not None
    return shorter


def outcome(matcher: Matcher[str], method: str, path: str, raw_path: bytes | None) -> object:
    try:
        return matcher.match(method, path, raw_path)
    except HTTPException as exc:
        return exc.status_code, exc.headers


@pytest.mark.parametrize("path", ["/" * 64 * KIB, "/%2F" * 16 * KIB, "/" + "9" * 64 * KIB])
@pytest.mark.parametrize("end", ["", "/{z:path}"])
def test_hostile_path_looks_at_no_more_nodes_than_there_are(
    path: str, end: str, visits: CountedVisits
) -> None:
    matcher = matcher_of(
        *(f"/{{x:{converter}}}/{{y}}{end}" for converter in ("int", "float", "str"))
    )
    refused(matcher, path, "PUT")
    assert visits.count <= 7


def test_alternatives_at_every_level_cost_a_node_each_at_most(visits: CountedVisits) -> None:
    levels = 10
    texts = [""]
    for level in range(levels):
        texts = [text + part for text in texts for part in ("/a", f"/{{p{level}}}")]
    matcher = matcher_of(*texts)
    refused(matcher, "/a" * levels + "/a")
    assert visits.count == 2 ** (levels + 1) - 1  # every node, once
    visits.count = 0
    assert match(matcher, "/a" * (levels - 2) + "/b/a")[0] == "/a" * (levels - 2) + "/{p8}/a"
    assert visits.count == levels + 1


def test_levels_of_alternatives_without_as_many_routes_stay_cheap(visits: CountedVisits) -> None:
    levels = 12
    dynamic = "".join(f"/{{p{level}}}" for level in range(levels))
    matcher = matcher_of(*("/a" * n + "/{x}" * (n < levels) for n in range(levels + 1)), dynamic)
    refused(matcher, "/a" * levels + "/b")
    assert visits.count <= 3 * levels


def test_a_path_that_the_server_could_not_decode_is_a_400() -> None:
    matcher = matcher_of("GET /{name}")
    with pytest.raises(HTTPException) as caught:
        matcher.match("GET", "/\ud800", None)
    assert caught.value.status_code == 400
    assert matcher.match("GET", "/é", None)[1] == {"name": "é"}


@pytest.mark.parametrize("raw_path", [None, b"/apifoo", b"/api%66oo"])
def test_what_only_begins_like_the_root_is_not_below_it(raw_path: bytes | None) -> None:
    assert below_root("/api", "/apifoo", raw_path) == ("/apifoo", raw_path)
