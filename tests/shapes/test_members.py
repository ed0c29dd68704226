"""What a client may set of a class: what its constructor takes, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
)

import attr
import attrs
import msgspec
import pydantic
import pytest
from msgspec import Struct

from trioweb._errors import Invalid, RegistrationError
from trioweb._limits import MAX_PROBLEM_VISITS
from trioweb._shapes.annotations import refuse_ignored
from trioweb._shapes.json import body_decoder
from trioweb._shapes.members import members_of

T = TypeVar("T")
AT_300 = datetime(1970, 1, 1, 0, 5, tzinfo=UTC)


@dataclass
class User:
    name: str
    role: str = field(init=False, default="user")
    token: str = field(init=False)
    roles: ClassVar[int] = 2
    since: datetime | None = None
    friends: list[User] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.name == "nobody":
            raise ValueError("nobody is a bad name")
        self.token = f"token of {self.name}, a {self.role}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slotted:
    name: str
    role: str = field(init=False, default="user")


@dataclass
class Made:
    name: str
    role: list[str] = field(init=False, default_factory=lambda: ["user"])


@dataclass
class Private:
    name: str
    _role: str = "user"


@dataclass
class OfItself:
    name: str
    role: str

    def __init__(self, name: str, times: Annotated[int, msgspec.Meta(ge=1)] = 1) -> None:
        self.name = name * times
        self.role = "user"


@attrs.define
class Attrs:
    name: str
    role: str = attrs.field(init=False, default="user")


@attrs.define
class Computed:
    name: str
    role: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.role = "user"


@attrs.define(init=False)
class AttrsOfItself:
    name: str
    role: str

    def __init__(self, name: str) -> None:
        self.__attrs_init__(name, "user")


@attr.s
class OldAttrs:
    name = attr.ib(type=str)
    role = attr.ib(default="user", init=False)


@dataclass
class Of(Generic[T]):
    name: T
    role: str = field(init=False, default="user")


KINDS = [
    User,
    Slotted,
    Made,
    Private,
    OfItself,
    Attrs,
    Computed,
    AttrsOfItself,
    # Earlier versions of msgspec can't read an attrs class without annotations: it is refused.
    *([OldAttrs] if msgspec.__version__ >= "0.23" else []),
    Of[str],
]
EVIL = b'{"name": "x", "role": "admin", "token": "evil", "_role": "admin"}'


class AsKeys(TypedDict, Generic[T]):
    it: T


class AsNamed(NamedTuple, Generic[T]):
    it: T


def role(value: Any) -> Any:
    return value.role if hasattr(value, "role") else value._role


def roles_within(kind: Any) -> list[tuple[Any, bytes, Callable[[Any], Any]]]:
    """An annotation with `kind` in it, a body for it, and where the instance is then."""
    within = msgspec.defstruct("Within", [("it", kind)])
    tagged = msgspec.defstruct("Tagged", [("it", kind)], tag=True)
    other = msgspec.defstruct("Other", [("it", int)], tag=True)
    listed = msgspec.defstruct("Listed", [("it", kind)], array_like=True)
    tag_listed = msgspec.defstruct("TagListed", [("it", kind)], array_like=True, tag="a")
    tag_other = msgspec.defstruct("TagOther", [("it", int)], array_like=True, tag="b")
    data = dataclasses.make_dataclass("Data", [("it", kind)])
    return [
        (kind, EVIL, lambda value: value),
        (kind | None, EVIL, lambda value: value),
        (kind | int, EVIL, lambda value: value),
        (kind | list[int], EVIL, lambda value: value),
        (list[kind], b"[%b]" % EVIL, lambda value: value[0]),
        (tuple[kind, ...], b"[%b]" % EVIL, lambda value: value[0]),
        (tuple[int, kind], b"[1, %b]" % EVIL, lambda value: value[1]),
        (dict[str, kind], b'{"a": %b}' % EVIL, lambda value: value["a"]),
        (within, b'{"it": %b}' % EVIL, lambda value: value.it),
        (tagged | other, b'{"type": "Tagged", "it": %b}' % EVIL, lambda value: value.it),
        (listed, b"[%b]" % EVIL, lambda value: value.it),
        (tag_listed | tag_other, b'["a", %b]' % EVIL, lambda value: value.it),
        (data, b'{"it": %b}' % EVIL, lambda value: value.it),
        (AsKeys[kind], b'{"it": %b}' % EVIL, lambda value: value["it"]),
        (AsNamed[kind], b"[%b]" % EVIL, lambda value: value.it),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_class_sets_itself_is_never_the_clients_wherever_it_is(kind: Any) -> None:
    for annotation, body, find in roles_within(kind):
        found = find(body_decoder(annotation)(body))
        assert role(found) in ("user", ["user"]), annotation
        assert found.name == "x"


def test_what_the_class_computes_is_computed() -> None:
    body = b'{"name": "x", "role": "admin", "token": "", "friends": [{"name": "y", "role": "a"}]}'
    user = body_decoder(User)(body)
    assert user.token == "token of x, a user"
    assert user.friends[0].token == "token of y, a user"


def test_all_problems_of_such_classes_have_their_places() -> None:
    body = b'{"since": "now", "friends": [{"name": 1, "role": 2}, {"name": "nobody"}, 3]}'
    with pytest.raises(Invalid) as refused:
        body_decoder(User)(body)
    assert [(problem["loc"], problem["type"]) for problem in refused.value.problems] == [
        (["name"], "missing"),
        (["since"], "datetime_parsing"),
        (["friends", 0, "name"], "string_type"),
        (["friends", 1], "value_error"),
        (["friends", 2], "dict_type"),
    ]


def test_a_problem_that_is_too_far_away_to_be_found_has_no_place() -> None:
    users = [b'{"name": "x"}'] * MAX_PROBLEM_VISITS + [b'{"name": 1}']
    with pytest.raises(Invalid) as refused:
        body_decoder(list[Slotted])(b"[%b]" % b", ".join(users))
    (problem,) = refused.value.problems
    assert (problem["loc"], problem["msg"]) == ([], "Expected `str`, got `int`")


@pytest.mark.parametrize("body", [b"[]", b"3", b"", b"{", b'{"name": "nobody"}'])
def test_what_is_no_such_class_is_refused(body: bytes) -> None:
    with pytest.raises(Invalid):
        body_decoder(User)(body)


def test_a_constructor_of_the_authors_own_says_what_is_taken() -> None:
    decode = body_decoder(OfItself)
    assert decode(b'{"name": "x", "role": "admin", "times": 2}').name == "xx"
    with pytest.raises(Invalid) as refused:
        decode(b'{"name": "x", "times": 0}')
    assert refused.value.problems[0]["loc"] == ["times"]


def test_a_constructor_may_take_any_number_of_others() -> None:
    @dataclass
    class Open:
        name: str

        def __init__(self, name: str = "y", *rest: Any, **others: Any) -> None:
            self.name, self.others = name, others

    made = body_decoder(Open)(b'{"role": "admin"}')
    assert (made.name, made.others) == ("y", {})


def test_unknown_members_of_a_struct_are_refused_where_its_private_ones_are_sent() -> None:
    class Closed(Struct, forbid_unknown_fields=True):
        name: str = ""
        _role: str = "user"

    class Open(Struct):
        name: str = ""
        _role: str = "user"

    body = b'{"name": "x", "_role": "admin"}'
    assert body_decoder(Open)(body) == Open("x")
    assert body_decoder(Closed)(b'{"name": "x"}') == Closed("x")
    with pytest.raises(Invalid) as refused:
        body_decoder(list[Closed])(b"[%b]" % body)
    assert [(p["loc"], p["type"]) for p in refused.value.problems] == [
        ([0, "_role"], "extra_forbidden")
    ]
    with pytest.raises(Invalid) as refused:
        body_decoder(Open)(b'{"name": 1, "_role": 2}')
    assert [problem["loc"] for problem in refused.value.problems] == [["name"]]


@pytest.mark.parametrize("rename", ["upper", "camel", "pascal", "kebab", lambda name: f"x{name}"])
def test_a_name_that_rename_gives_all_members_makes_no_private_one_public(rename: Any) -> None:
    class Renamed(Struct, rename=rename):
        user_name: str = "x"
        _role: str = "user"
        _is_admin: bool = False

    sent: dict[str, Any] = {field.encode_name: True for field in msgspec.structs.fields(Renamed)}
    sent |= {"_role": True, "_is_admin": True}
    sent[Renamed.__struct_encode_fields__[0]] = "y"
    assert body_decoder(Renamed)(msgspec.json.encode(sent)) == Renamed("y")


def test_a_private_member_stays_private_where_no_subclass_tells_its_name() -> None:
    class Final(Struct, rename="kebab"):
        name: str = "x"
        _role: str = "user"

        def __init_subclass__(cls) -> None:
            raise TypeError(f"{cls} is final")

    assert body_decoder(Final)(b'{"name": "y", "role": "admin"}') == Final("y")


def test_a_private_member_without_a_name_is_called_as_its_author_does() -> None:
    class Lacking(Struct, rename="camel"):
        _is_admin: bool

    with pytest.raises(RegistrationError, match="Lacking: '_is_admin' is private"):
        body_decoder(Lacking)


def test_a_constructor_that_passes_all_on_takes_what_the_class_has() -> None:
    @dataclass
    class Base:
        name: str
        size: int = 1
        role: str = field(init=False, default="user")

    class Passing(Base):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)

    @attrs.define(slots=False)
    class OfAttrs:
        _name: str
        size: int = 1
        role: str = attrs.field(init=False, default="user")

    class PassingToAttrs(OfAttrs):
        def __init__(self, extra: int, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.size += extra

    body = b'{"name": "x", "size": 2, "role": "admin", "extra": 3, "kwargs": 4}'
    made = body_decoder(Passing)(body)
    assert (made.name, made.size, made.role) == ("x", 2, "user")
    of_attrs = body_decoder(PassingToAttrs)(body)
    assert (of_attrs._name, of_attrs.size, of_attrs.role) == ("x", 5, "user")
    with pytest.raises(Invalid) as refused:
        body_decoder(Passing)(b"{}")
    assert refused.value.problems == [{"loc": ["name"], "msg": "Field required", "type": "missing"}]


def test_a_private_member_with_another_name_is_the_clients() -> None:
    class Named(Struct):
        _role: str = msgspec.field(name="role", default="user")

    class Keys(TypedDict):
        _links: int

    assert body_decoder(Named)(b'{"role": "b"}')._role == "b"
    assert body_decoder(Keys)(b'{"_links": 1, "other": 2}') == {"_links": 1}


class Lacking(Struct):
    _role: str


class Listed(Struct, array_like=True):
    name: str
    _role: str = "user"


@dataclass
class LackingData:
    _role: str


@dataclass
class Positional:
    name: str

    def __init__(self, name: str, /) -> None: ...


@pytest.mark.parametrize(
    ("kind", "reason", "right"),
    [
        (Lacking, "'_role' is private", "role: ... = field(name='_role'), or a default for _role"),
        (Listed, "'_role' is private", "role: ... = field(name='_role'), or a default for _role"),
        (LackingData, "'_role' is private", "role: ..., or a default for _role"),
        (Positional, "'name' has no name to be passed by", "name: ..., or a default for name"),
    ],
)
def test_a_member_that_nobody_may_set_is_refused(kind: Any, reason: str, right: str) -> None:
    with pytest.raises(RegistrationError, match=reason) as refused:
        body_decoder(list[kind])
    assert str(refused.value).endswith(right)


def test_an_init_var_is_refused_with_the_right_line() -> None:
    @dataclass
    class Secret:
        password: InitVar[str]

    with pytest.raises(RegistrationError, match=r"right: .*__post_init__"):
        body_decoder(Secret)


class Model(pydantic.BaseModel):
    name: str
    parent: Model | None = None
    user: User | None = None
    _role: str = pydantic.PrivateAttr("user")


class Settable(pydantic.BaseModel):
    role: str = pydantic.Field("user", init=False)


class Nested(pydantic.BaseModel):
    others: list[Settable | None] = []
    me: Nested | None = None


def test_a_model_keeps_its_own_members_to_itself() -> None:
    refuse_ignored(Model)
    model = body_decoder(Model)(b'{"name": "x", "_role": "admin", "user": %b}' % EVIL)
    assert (model._role, role(model.user)) == ("user", "user")


@pytest.mark.parametrize("kind", [Settable, list[Settable], Nested])
def test_what_a_model_only_seems_to_set_itself_is_refused(kind: Any) -> None:
    with pytest.raises(RegistrationError, match="any client may set 'role'") as refused:
        refuse_ignored(kind)
    assert str(refused.value).endswith("_role: ... = PrivateAttr(...)")


# attrs


def halved(value: int) -> float:
    return value / 2


@attrs.define
class Converted:
    name: str = attrs.field(converter=str.upper, validator=attrs.validators.min_len(2))  # type: ignore[misc]
    tags: set[str] = attrs.field(converter=set, factory=set)
    half: float = attrs.field(converter=halved, default=1)
    other: str = attrs.field(alias="another", default="")
    _hidden: int = 3


def test_converters_aliases_and_validators_of_attrs_count() -> None:
    decode = body_decoder(Converted)
    body = b'{"name": "xy", "tags": ["a"], "half": 3, "other": "b", "another": "c", "_hidden": 5}'
    made = decode(body)
    assert (made.name, made.tags, made.half, made.other) == ("XY", {"a"}, 1.5, "c")
    assert made._hidden == 3
    assert decode(b'{"name": "xy", "hidden": 4}')._hidden == 4  # as attrs' constructor calls it
    with pytest.raises(Invalid) as refused:
        decode(b'{"name": 1, "half": "x", "another": 2}')
    assert [p["loc"] for p in refused.value.problems] == [["name"], ["half"], ["another"]]
    with pytest.raises(Invalid, match="Length"):
        decode(b'{"name": "x"}')


def nothing_known(value: Unknown) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize("converter", [lambda value: value, datetime.fromisoformat, nothing_known])
def test_a_converter_that_takes_who_knows_what_is_refused(converter: Any) -> None:
    kind = attrs.make_class("Kind", {"name": attrs.field(type=str, converter=converter)})
    with pytest.raises(RegistrationError, match="the converter of 'name'") as refused:
        body_decoder(kind)
    assert "def convert(value: str)" in str(refused.value)


def test_a_converter_of_the_whole_instance_is_looked_through() -> None:
    def with_prefix(value: str, made: Any) -> str:
        return f"{made.prefix}-{value}"

    converter: Any = attrs.Converter(with_prefix, takes_self=True)
    fields = {
        "prefix": attrs.field(type=str),
        "name": attrs.field(type=str, converter=converter),
    }
    assert (
        body_decoder(attrs.make_class("Prefixed", fields))(b'{"prefix": "a", "name": "b"}').name
        == "a-b"
    )


# What else is in such a class


@dataclass
class Full:
    raw: msgspec.Raw
    model: Model
    price: Decimal
    literal: Literal["a", 1]
    data: bytes
    keys: dict[int, float]
    number: float | Decimal
    anything: Any
    maybe: int | msgspec.UnsetType = msgspec.UNSET
    role: str = field(init=False, default="user")


def test_values_are_those_that_they_are_elsewhere() -> None:
    body = (
        b'{"raw": {"a": 1}, "model": {"name": "x"}, "price": 0.1000000000000000000001,'
        b' "literal": 1, "data": "aGk=", "keys": {"1": 2}, "number": 1.5, "anything": [1.5]}'
    )
    full = body_decoder(Full)(body)
    assert bytes(full.raw) == b'{"a":1}'
    assert full.model.name == "x"
    assert full.price == Decimal("0.1000000000000000000001")
    assert (full.literal, full.data, full.keys) == (1, b"hi", {1: 2.0})
    assert (full.number, type(full.number)) == (1.5, float)
    assert full.anything == [1.5]
    assert full.maybe is msgspec.UNSET


def test_a_decimal_that_is_none_is_refused_in_such_classes_too() -> None:
    @dataclass
    class Priced:
        price: Decimal
        role: str = field(init=False, default="user")

    for price, word in (("x", "decimal_parsing"), ("NaN", "finite_number")):
        with pytest.raises(Invalid) as refused:
            body_decoder(Priced)(b'{"price": "%b"}' % price.encode())
        assert [(p["loc"], p["type"]) for p in refused.value.problems] == [(["price"], word)]


# The names


class Aliased(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True, extra="allow")
    size: int = pydantic.Field(alias="page-size")
    sort: str = pydantic.Field("", validation_alias=pydantic.AliasChoices("sort", "order"))
    deep: str = pydantic.Field("", validation_alias=pydantic.AliasPath("a", 0))


class ByNameOnly(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(
        validate_by_name=True, validate_by_alias=False, extra="forbid"
    )
    size: int = pydantic.Field(alias="page-size")


class Pathed(pydantic.BaseModel):
    deep: str = pydantic.Field("", validation_alias=pydantic.AliasPath("a", 0))


class Keys(TypedDict, total=False):
    one: Required[int]
    two: str


class MoreKeys(Keys):
    three: NotRequired[int]
    four: int


class Pair(NamedTuple):
    one: int
    two: str = "x"


@pytest.mark.parametrize(
    ("annotation", "names"),
    [
        (Aliased, {"size": ("page-size", "size"), "sort": ("sort", "order", "sort"),
                   "deep": ("deep",)}),
        (ByNameOnly, {"size": ("size",)}),
        (Pathed, {"deep": ()}),
        (msgspec.defstruct("S", [("page_size", int)], rename="camel"),
         {"page_size": ("pageSize",)}),
        (Converted, {"name": ("name",), "tags": ("tags",), "half": ("half",),
                     "another": ("another",), "hidden": ("hidden",)}),
    ],
)  # fmt: skip
def test_names_are_those_of_the_author(annotation: Any, names: dict[str, Any]) -> None:
    members = members_of(annotation)
    assert members is not None
    assert {member.argument: member.names for member in members.settable} == names


@pytest.mark.parametrize(
    ("annotation", "required"),
    [(Keys, ["one"]), (MoreKeys, ["one", "four"]), (Pair, ["one"]), (Aliased, ["size"])],
)
def test_what_is_required(annotation: Any, required: list[str]) -> None:
    members = members_of(annotation)
    assert members is not None
    assert [member.argument for member in members.settable if member.required] == required


def test_what_is_done_with_other_names() -> None:
    found = {cls: members_of(cls) for cls in (Aliased, ByNameOnly, Model)}
    said = {cls: (m.refuses_unknown, m.keeps_unknown) for cls, m in found.items() if m}
    assert said == {Aliased: (False, True), ByNameOnly: (True, False), Model: (False, False)}


@pytest.mark.parametrize(
    "annotation", [int, str | None, list[int], dict[str, int], pydantic.RootModel[int], Any, 3]
)
def test_what_has_no_members(annotation: Any) -> None:
    assert members_of(annotation) is None


class Unread:
    pass


def of_unread(value: Unread) -> None: ...


def of_set(value: set[int]) -> list[int]:
    return sorted(value)


def test_what_only_a_constructor_takes_is_looked_at_as_all_else_is() -> None:
    ids: Any = attrs.field(type=list[int], converter=of_unread)
    with pytest.raises(RegistrationError, match="nothing is known about Unread"):
        body_decoder(attrs.make_class("Kind", {"ids": ids}))

    ids = attrs.field(type=list[int], converter=of_set)
    decode = body_decoder(attrs.make_class("Kind", {"ids": ids}))
    assert decode(b'{"ids": [3, 1, 3]}').ids == [1, 3]
    many = b", ".join(b"%d" % (n * (2**61 - 1)) for n in range(10**9, 10**9 + 10_000))
    with pytest.raises(Invalid, match="one hash"):
        decode(b'{"ids": [%b]}' % many)


@dataclass
class Dated:
    at: datetime
    price: Decimal | None = None
    role: str = field(init=False, default="user")
    _role: str = "user"


class DatedStruct(Struct, forbid_unknown_fields=True):
    at: datetime
    price: Decimal | None = None
    keys: dict[float, int] = {}
    _role: str = "user"


@attrs.define
class DatedAttrs:
    at: datetime
    name: str = attrs.field(converter=str.upper, default="", alias="called")  # type: ignore[misc]
    _hidden: int = 3


@pytest.mark.parametrize("at", [b"300", b'"1970-01-01T00:05:00Z"'])
def test_what_is_read_a_second_time_is_read_by_the_same_rules(at: bytes) -> None:
    body = b'{"at": %b, "role": "admin", "_role": "admin"}' % at
    for annotation in (Dated, list[Dated]):
        sent = body if annotation is Dated else b"[%b]" % body
        found = body_decoder(annotation)(sent)
        made = found if annotation is Dated else found[0]
        assert (made.at, made.role, made._role) == (AT_300, "user", "user")
    for kind in (Dated, DatedStruct):
        for infinite in (b'"NaN"', b'"Infinity"'):
            with pytest.raises(Invalid, match="finite number"):
                body_decoder(kind)(b'{"at": %b, "price": %b}' % (at, infinite))
    assert body_decoder(DatedStruct)(b'{"at": %b}' % at) == DatedStruct(AT_300)
    for extra in (b'"_role": "admin"', b'"keys": {"nan": 1}'):
        with pytest.raises(Invalid, match=r"Extra|finite"):
            body_decoder(DatedStruct)(b'{"at": %b, %b}' % (at, extra))
    made = body_decoder(DatedAttrs)(b'{"at": %b, "name": "x", "called": "y", "_hidden": 5}' % at)
    assert (made.at, made.name, made._hidden) == (AT_300, "Y", 3)
    with pytest.raises(Invalid) as refused:
        body_decoder(list[DatedAttrs])(b'[{"at": %b, "called": 1}]' % at)
    assert [problem["loc"] for problem in refused.value.problems] == [[0, "called"]]
