"""The prompt template: messages of a row, in a sandbox that nothing leaves and nothing exhausts."""

from __future__ import annotations

import mmap
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from workflow import bounds
from workflow.bounds import memory_limit, time_limit
from workflow.errors import BuildError
from workflow.prompts import PromptTemplate

ROW: dict[str, Any] = {
    "id": "r1",
    "prompt": {"problem": "P", "options": ["x", "y"], "table": {"k": 1}},
    "turns": [],
    "target": {"answer": "A"},
}
WATCHED = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "open")
_seen: list[tuple[str, Any]] | None = None


def _audit(event: str, arguments: Any) -> None:
    if _seen is not None and event in WATCHED:
        _seen.append((event, arguments[:1]))


sys.addaudithook(_audit)


@contextmanager
def watched() -> Iterator[list[tuple[str, Any]]]:
    """Everything that is opened or started in the block."""
    global _seen
    _seen = seen = []
    try:
        yield seen
    finally:
        _seen = None


def template(tmp_path: Path, text: str) -> PromptTemplate:
    path = tmp_path / "p.jinja"
    path.write_text(text, encoding="utf-8")
    return PromptTemplate(path)


def rendered(tmp_path: Path, user: str) -> str:
    found = template(tmp_path, f"{{% block user %}}{user}{{% endblock %}}").messages(ROW, answer=False)
    return found[0]["content"]


def test_messages(tmp_path: Path) -> None:
    text = """{% block system %}S{% endblock %}
{% block user %}
{{ problem }}
{% for o in options %}
{{ "ABC"[loop.index0] }}. {{ o.strip() }}
{% endfor %}
{% endblock %}
{% block assistant %}
{{ answer }} of {{ table.k }}{% for k, v in table.items() %}{{ k }}{% endfor %}{% endblock %}"""
    one = template(tmp_path, text)
    assert one.messages(ROW, answer=True) == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "P\nA. x\nB. y\n"},
        {"role": "assistant", "content": "A of 1k"},
    ]
    assert [m["role"] for m in one.messages(ROW, answer=False)] == ["system", "user"]


@pytest.mark.parametrize(("block", "name"), [("user", "probelm"), ("system", "probelm"), ("user", "answer")])
def test_a_missing_variable(tmp_path: Path, block: str, name: str) -> None:
    user = "" if block == "user" else "{% block user %}{% endblock %}"
    one = template(tmp_path, f"{user}{{% block {block} %}}{{{{ {name} }}}}{{% endblock %}}")
    message = rf"p.jinja: block {block}, row r1: '{name}' is undefined; it may use options, problem, table$"
    with pytest.raises(BuildError, match=message):
        one.messages(ROW, answer=True)


def test_training_needs_the_assistant_block(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="row r1 needs the block assistant"):
        template(tmp_path, "{% block user %}{% endblock %}").messages(ROW, answer=True)


NO_TEMPLATE = [
    "{% block user %}{{ x",
    "{% block system %}{% endblock %}",
    "{% block user %}{% endblock %}{% block human %}{% endblock %}",
    "{% include '/etc/passwd' %}{% block user %}{% endblock %}",
    "{% block user %}" + "(" * 20_000,
    "{% block user %}{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}{% endblock %}",
    "{% block user %}" + "{% for a in x %}" * 40 + "{% endfor %}" * 40 + "{% endblock %}",
]


@pytest.mark.parametrize("text", NO_TEMPLATE)
def test_what_is_no_template(tmp_path: Path, text: str) -> None:
    with pytest.raises(BuildError, match="p.jinja"):
        template(tmp_path, text)


def test_unreadable_templates(tmp_path: Path) -> None:
    (tmp_path / "p.jinja").write_bytes(b"{% block user %}\xff{% endblock %}")
    for name in ("p.jinja", "absent.jinja"):
        with pytest.raises(BuildError, match=name):
            PromptTemplate(tmp_path / name)


HOSTILE = [
    "{{ problem.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ ''['__cla' ~ 'ss__'] }}",
    "{{ problem|attr('__class__') }}",
    "{{ [problem]|map(attribute='__class__')|first }}",
    "{{ [problem]|map('attr', '__class__')|first }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ range.__init__ }}",
    "{{ namespace.__init__.__globals__['os'].system('touch /tmp/owned') }}",
    "{{ dict.__base__ }}",
    "{{ loop.__class__ }}{% for i in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m.__globals__ }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "{{ '%s' % problem }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ 'a'.ljust(1000000000) }}",
    "{{ 'a'.rjust(1000000000) }}",
    "{{ 'a'.center(1000000000) }}",
    "{{ 'a'.zfill(1000000000) }}",
    "{{ '\t'.expandtabs(1000000000) }}",
    "{{ 'a'|center(1000000000) }}",
    "{{ 'a'|indent(1000000000) }}",
    "{{ 'a'|format(1) }}",
    "{{ (1).to_bytes(1000000000, 'big') }}",
    "{{ 'a'.encode('idna') }}",
    "{{ 'a' * 10**9 }}",
    "{{ 'a' * 1000000000 }}",
    "{{ 1000000000 * ['a'] }}",
    "{{ 9**9**9 }}",
    "{{ 1|round(-999999999, 'floor') }}",
    "{{ 1|round(999999999, 'ceil') }}",
    "{% set n = namespace(x=3) %}{% for i in range(1000) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "{% set n = namespace(x='ab') %}{% for i in range(100) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{% set n = namespace(x=[1]) %}{% for i in range(100) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{% for i in range(99999999) %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}aaaaaaaaaaaa{% endfor %}{% endfor %}",
    "{{ 'aaaaaaaaaa'" + "|replace('a','aaaaaaaaaa')" * 11 + " }}",
    "{{ problem" + "|replace('P','PPPPPPPPPP')" * 11 + " }}",
    "{% set x %}"
    + "{% for i in range(99999) %}" * 2
    + "a" * 99
    + "{% endfor %}" * 2
    + "{% endset %}{{ x|length }}",
    "{{ lipsum(n=100000) }}",
    "{{ cycler.__init__ }}{{ joiner }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ self.user() }}",
    "{% for i in options recursive %}{{ loop(options) }}{% endfor %}",
    "{% import 'x' as y %}",
    "{% from 'x' import y %}",
    "{% include problem %}",
    "{% extends 'x' %}",
    "{{ url_for.__globals__ }}{{ config }}{{ request }}",
    "{{ options.append(1) }}",
    "{{ table.update({'k': 2}) }}{{ table.pop('k') }}",
    "{{ options.__setitem__(0, 1) }}",
    "{{ none|sort }}",
    "{{ problem() }}",
    "{{ problem|dictsort }}",
    "{{ 1 / 0 }}",
    "{{ '\\ud800' }}",
    "{{ problem|pprint }}",
    "{{ options|random }}",
    "{% debug %}",
    "{% do options.clear() %}",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_templates(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SECONDS", 0.3)
    before, limits = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        resource.getrlimit(resource.RLIMIT_AS),
    )
    began = time.monotonic()
    with watched() as seen, pytest.raises(BuildError, match="p.jinja"):
        rendered(tmp_path, text)
    assert time.monotonic() - began < 4
    assert [event for event in seen if event != ("open", (str(tmp_path / "p.jinja"),))
            and not str(event[1][0]).endswith(".jinja") and "statm" not in str(event)] == []  # fmt: skip
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1.2 * (1 << 20)  # KiB
    assert resource.getrlimit(resource.RLIMIT_AS) == limits
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert ROW["prompt"]["options"] == ["x", "y"]
    assert not Path("/tmp/owned").exists()


def test_time_limit_restores_handler_and_timer() -> None:
    fired: list[int] = []
    previous = signal.signal(signal.SIGALRM, lambda *_: fired.append(1))
    try:
        mine = signal.getsignal(signal.SIGALRM)
        with pytest.raises(TimeoutError), time_limit(0.02):
            while True:
                try:
                    time.sleep(1)
                except Exception:
                    continue
        with pytest.raises(KeyError), time_limit(5):
            raise KeyError
        assert signal.getsignal(signal.SIGALRM) is mine
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
        with pytest.raises(TimeoutError), time_limit(0.05):  # the outer one goes on counting
            with time_limit(10):
                pass
            time.sleep(1)
        assert fired == []
    finally:
        signal.signal(signal.SIGALRM, previous)


def test_memory_limit_nests_and_is_undone() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with memory_limit(1 << 26):
        outer = resource.getrlimit(resource.RLIMIT_AS)
        with memory_limit(1 << 30):
            assert resource.getrlimit(resource.RLIMIT_AS) == outer
        with pytest.raises(OSError, match="Cannot allocate"):
            mmap.mmap(-1, 1 << 27)  # new pages: a bytearray may fit where something was freed
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_the_meaning_of_a_template_is_without_comments(tmp_path: Path) -> None:
    plain = "{% block user %}\na{{ problem }}b\n{% if problem %}c{% endif %}{% endblock %}"
    same = [
        "{# why #}\n\n" + plain + "\n{# end #}",
        plain.replace("b\n", "{# x #}b\n"),
        plain.replace("problem }}", "problem\n }}"),
    ]
    others = [plain.replace("b\n", "b \n"), plain.replace("if problem", "if not problem")]
    meaning = template(tmp_path, plain).meaning
    assert {template(tmp_path, text).meaning for text in same} == {meaning}
    assert meaning not in {template(tmp_path, text).meaning for text in others}
    for text in (plain, *same):
        assert template(tmp_path, text).messages(ROW, answer=False)[0]["content"] == "aPb\nc"


def test_a_runaway_row_among_many_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SECONDS", 0.2)
    loops = "{% for i in range(n) %}{% for j in range(n) %}{% endfor %}{% endfor %}"
    one = template(tmp_path, f"{{% block user %}}{loops}{{% endblock %}}")
    rows = [
        {"id": f"r{i}", "prompt": {"n": 99999 if i == 700 else i % 9}, "turns": [], "target": {}}
        for i in range(900)
    ]
    with bounds.shared_bounds(), pytest.raises(BuildError, match=r"row r700: not finished after 0.2 s"):
        for row in rows:
            one.messages(row, answer=False)
    began = time.monotonic()
    with bounds.shared_bounds():  # many rows may take longer than one
        while time.monotonic() - began < 0.5:
            one.messages(rows[1], answer=False)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
