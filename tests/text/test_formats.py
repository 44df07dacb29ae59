import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankwise.errors import DataError
from rankwise.text.formats import FORMATS, Row, read_rows

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
EXAMPLES = {
    "messages": {"messages": TALK},
    "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    "alpaca": {"instruction": "Hi", "input": "", "output": "Hello"},
    "prompt/completion": {"prompt": "Hi", "completion": "Hello"},
}


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def fault(path: Path) -> DataError:
    with pytest.raises(DataError) as raised:
        read_rows(path)
    return raised.value


def fault_of(folder: Path, *rows: object) -> DataError:
    return fault(write(folder, "rows.jsonl", "\n".join(json.dumps(row) for row in rows)))


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_chat_format_reads_as_the_same_conversation(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, "a.jsonl", json.dumps({**EXAMPLES[name], "id": 7}) + "\n")
    rows = read_rows(path)
    assert rows.format == name
    assert rows.rows == [Row(tuple(TALK), None, 1, path)]


def test_the_examples_above_leave_no_chat_format_out() -> None:
    assert {*EXAMPLES, "text"} == set(FORMATS)


def test_text_rows(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, "a.jsonl", '{"text": "one"}\n{"text": " two\\n"}'))
    assert rows.format == "text"
    assert [(row.text, row.messages, row.line) for row in rows.rows] == [("one", (), 1), (" two\n", (), 2)]


def test_alpaca_with_input_system_and_history(tmp_path: Path) -> None:
    row = {"instruction": "Add", "input": "1 2", "output": "3", "system": "Be brief", "history": [["Hi", "Hello"]]}
    (read,) = read_rows(write(tmp_path, "a.jsonl", json.dumps(row))).rows
    said = [(message["role"], message["content"]) for message in read.messages]
    assert said == [
        ("system", "Be brief"),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Add\n1 2"),
        ("assistant", "3"),
    ]


def test_sharegpt_with_system_column_and_roles_already_translated(tmp_path: Path) -> None:
    (row,) = read_rows(write(tmp_path, "a.jsonl", json.dumps({"conversations": TALK, "system": "Be brief"}))).rows
    assert [message["role"] for message in row.messages] == ["system", "user", "assistant"]


def test_assistant_turns_in_a_prompt_are_context(tmp_path: Path) -> None:
    ask = {"role": "user", "content": "And?"}
    row = {"prompt": [*TALK, ask], "completion": [{"role": "assistant", "content": "Fine"}]}
    (read,) = read_rows(write(tmp_path, "a.jsonl", json.dumps(row))).rows
    assert [message.get("weight") for message in read.messages] == [None, 0, None, None]


def test_a_tool_call_needs_no_content(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    (row,) = read_rows(write(tmp_path, "a.jsonl", json.dumps({"messages": [TALK[0], call]}))).rows
    assert row.messages[1] == call


def test_bom_blank_lines_carriage_returns_and_line_separators_inside_strings(tmp_path: Path) -> None:
    text = '\ufeff\r\n{"text": "a\u2028b"}\r\n\r\n   \r\n{"text": "c"}\r\n'
    assert [(row.text, row.line) for row in read_rows(write(tmp_path, "a.jsonl", text)).rows] == [
        ("a\u2028b", 2),
        ("c", 5),
    ]


def test_array_rows_know_the_line_they_start_on(tmp_path: Path) -> None:
    text = '\ufeff[\n  {"text":\n "a"},\n\n  {"text": "b"}, {"text": "c"}\n,{"text": "d"}]\n'
    assert [row.line for row in read_rows(write(tmp_path, "a.json", text)).rows] == [2, 5, 5, 6]


def test_csv_rows_know_their_first_physical_line(tmp_path: Path) -> None:
    text = '\ufeffinstruction,output,input\n"Say\nit","a, ""b""",\n\nGo,c,now\n'
    rows = read_rows(write(tmp_path, "a.csv", text))
    assert rows.format == "alpaca"
    assert [(row.line, row.messages[0]["content"], row.messages[1]["content"]) for row in rows.rows] == [
        (2, "Say\nit", 'a, "b"'),
        (5, "Go\nnow", "c"),
    ]


def test_csv_fields_may_be_long_and_may_hold_json(tmp_path: Path) -> None:
    assert len(read_rows(write(tmp_path, "a.csv", f"text\n{'x' * 200_000}\n")).rows[0].text or "") == 200_000
    quoted = json.dumps(TALK).replace('"', '""')
    (row,) = read_rows(write(tmp_path, "b.csv", f'messages\n"{quoted}"\n')).rows
    assert row.messages == tuple(TALK)


@pytest.mark.parametrize(
    ("name", "text", "line", "said"),
    [
        ("a.jsonl", '{"text": "a"}\n{"text": \n', 2, "malformed JSON at column 10"),
        ("a.jsonl", '{"text": "a"} {"text": "b"}\n', 1, "malformed JSON at column 15"),
        ("a.jsonl", "[\n]", 1, "malformed JSON at column 2"),
        ("a.jsonl", '"text"', 1, "the row is text"),
        ("a.jsonl", '{"text": "a"}\n[1]', 2, "the row is a list"),
        ("a.jsonl", '{"text": "\\ud800"}', 1, "surrogate"),
        ("a.jsonl", "[" * 100_000, 1, "nested too deeply"),
        ("a.jsonl", '{"text": ' + "1" * 5000 + "}", 1, "too many digits"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xe9"}', 2, "not UTF-8 (byte 0xe9)"),
        ("a.csv", "text\na".encode("utf-16"), 1, "looks like UTF-16"),
        ("a.jsonl", "", None, "there are no rows"),
        ("a.json", " \n", None, "there are no rows"),
        ("a.json", "[]", None, "there are no rows"),
        ("a.csv", "text\n", None, "there are no rows"),
        ("a.json", '\n{"text": "a"}', 2, "not a JSON array"),
        ("a.json", '[{"text": "a"}\n {"text": "b"}]', 2, "malformed JSON at column 2: expected ','"),
        ("a.json", '[{"text": "a"},\n {"text": b}]', 2, "malformed JSON at column 11"),
        ("a.json", '[{"text": "a"},', 1, "malformed JSON at column 16"),
        ("a.json", '[{"text": "a"}]\n]', 2, "something follows the array"),
        ("a.csv", "text,text\na,b", 1, "repeated column"),
        ("a.csv", "text,id\na", 2, "1 fields, the header 2"),
        ("a.csv", 'text\na\n"b', 3, "malformed CSV"),
        ("a.csv", 'messages\n"[1"', 2, "malformed JSON"),
        ("a.xlsx", "", None, "'.xlsx' files are not read"),
        ("a", "", None, "no ending"),
    ],
)
def test_a_broken_file_is_named_with_its_line(
    tmp_path: Path, name: str, text: str | bytes, line: int | None, said: str
) -> None:
    path = write(tmp_path, name, text)
    error = fault(path)
    assert said in error.what
    assert error.line == line
    assert error.expected or error.fix
    assert error.what.startswith(f"{path}:{line}: " if line else f"{path}: ")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": "Hi"}, "messages is text"),
        ({"messages": []}, "messages is empty"),
        ({"messages": [*TALK, "Hi"]}, "messages[2] is not a turn"),
        ({"messages": [*TALK, {"role": "boss", "content": "x"}]}, "unknown role 'boss' in messages[2]"),
        ({"messages": [*TALK, {"role": ["user"], "content": "x"}]}, "unknown role"),
        ({"messages": [TALK[0], {"role": "assistant", "content": " "}]}, "content of messages[1] is empty"),
        ({"messages": [TALK[0], {"role": "assistant", "content": 3}]}, "content of messages[1] is a number"),
        ({"messages": [TALK[0], {"role": "assistant"}]}, "content of messages[1] is missing or null"),
        ({"messages": [TALK[0]]}, "no assistant turn"),
        ({"messages": TALK[::-1]}, "begins with the assistant"),
        ({"conversations": {}}, "conversations is an object"),
        ({"conversations": [{"from": "alien", "value": "x"}]}, "unknown role 'alien'"),
        ({"conversations": [{"from": "human"}]}, "content of conversations[0] is missing"),
        ({"instruction": "a", "output": None}, "output is missing or null"),
        ({"instruction": "", "output": "b"}, "instruction is empty"),
        ({"instruction": "a", "output": "b", "input": True}, "input is true or false"),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, "history holds ['x']"),
        ({"instruction": "a", "output": "b", "system": 5}, "system is a number"),
        ({"prompt": "a", "completion": TALK}, "prompt is text and completion is a list"),
        ({"prompt": TALK, "completion": TALK[:1]}, "completion has no assistant turn"),
        ({"text": ""}, "text is empty"),
        ({"text": ["a"]}, "text is a list"),
        ({"question": "a", "answer": "b"}, "unknown format: the first row has the keys ['answer', 'question']"),
        ({}, "unknown format"),
    ],
)
def test_a_row_that_means_nothing_is_refused(tmp_path: Path, row: dict[str, object], said: str) -> None:
    error = fault_of(tmp_path, row)
    assert said in error.what
    assert error.line == 1
    assert error.expected


def test_unknown_format_lists_the_formats(tmp_path: Path) -> None:
    error = fault_of(tmp_path, {"question": "a", "answer": "b"})
    assert all(name in error.expected for name in FORMATS)
    assert "data.facts" in error.fix


def test_the_first_rows_format_binds_the_file(tmp_path: Path) -> None:
    error = fault_of(tmp_path, {"text": "a"}, EXAMPLES["messages"])
    assert error.line == 2
    assert "lacks 'text'" in error.what
    assert "the text format" in error.what


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", "")
    error = fault(tmp_path / "trian.jsonl")
    assert error.line is None
    assert error.fix == f"did you mean '{tmp_path / 'train.jsonl'}'?"
    assert "the folder" in fault(tmp_path / "nowhere" / "a.jsonl").fix
    assert fault(tmp_path / "zzz.csv").fix == "check the path"


def test_a_folder_needs_files_and_a_name_no_nul(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").mkdir()
    assert "no data files in this folder" in fault(tmp_path / "d.jsonl").what
    assert "cannot be read" in fault(Path("a\0b.jsonl")).what


KEYS = ["messages", "role", "content", "tool_calls", "conversations", "from", "value", "instruction", "input", "output"]
KEYS += ["system", "history", "prompt", "completion", "text"]
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["user", "gpt"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)
IN_TMP = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
ENDINGS = st.sampled_from([".jsonl", ".json", ".csv"])


def is_read_or_refused(path: Path) -> bool:
    """Rows were found, or one sentence says why not; anything else that is raised is a crash."""
    try:
        return bool(read_rows(path).rows)
    except DataError as error:
        return bool(error.what)


@IN_TMP
@given(junk=st.binary(max_size=60) | st.text('[]{}",:\n\\u d8textrole1', max_size=60).map(str.encode), ending=ENDINGS)
def test_junk_bytes_are_refused_or_read_but_never_crash(tmp_path: Path, junk: bytes, ending: str) -> None:
    assert is_read_or_refused(write(tmp_path, f"junk{ending}", junk))


@IN_TMP
@given(rows=st.lists(ANY_JSON, max_size=4))
def test_any_json_is_refused_or_read_but_never_crashes(tmp_path: Path, rows: list[object]) -> None:
    assert is_read_or_refused(write(tmp_path, "any.json", json.dumps(rows)))
    assert is_read_or_refused(write(tmp_path, "any.jsonl", "\n".join(map(json.dumps, rows))))


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@IN_TMP
@given(talk=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3), ascii_=st.booleans())
def test_a_conversation_survives_every_format_and_container(
    tmp_path: Path, talk: list[tuple[str, str]], ascii_: bool
) -> None:
    turns = [(role, said) for pair in talk for role, said in zip(("user", "assistant"), pair, strict=True)]
    messages = [{"role": role, "content": said} for role, said in turns]
    written = {
        "messages": {"messages": messages},
        "sharegpt": {"conversations": [{"from": role.replace("user", "human"), "value": said} for role, said in turns]},
        "alpaca": {"instruction": talk[-1][0], "output": talk[-1][1], "history": talk[:-1]},
        "prompt/completion": {"prompt": messages[:-1], "completion": messages[-1:]},
    }
    for name, row in written.items():
        text = json.dumps(row, ensure_ascii=ascii_)
        for path in (write(tmp_path, "a.jsonl", f"{text}\n{text}\n"), write(tmp_path, "a.json", f"[{text},\n{text}]")):
            rows = read_rows(path)
            assert rows.format == name
            assert [row.line for row in rows.rows] == [1, 2]
            for read in rows.rows:
                assert [{"role": m["role"], "content": m["content"]} for m in read.messages] == messages
