"""Natural order of names with numbers."""

from hypothesis import given
from hypothesis import strategies as st

from evaluation.findings import Finding
from evaluation.natural_sort import natural_key


def test_numbers_count_as_numbers():
    names = [
        "",
        "a",
        "file_name_1",
        "file_name_2",
        "file_name_10",
        "file_name_10a",
        "file_name_010b",
        "file_names",
        "z9",
        "z10",
    ]
    assert sorted(sorted(names), key=natural_key) == names


@given(st.lists(st.text(st.sampled_from("ab019٣²-")), max_size=5))
def test_any_texts_have_one_order(texts):
    backwards = texts[::-1]
    assert sorted(texts, key=natural_key) == sorted(backwards, key=natural_key)


def test_digits_without_end():
    assert natural_key("9" * 10_000) < natural_key("1" + "0" * 10_000)


def test_findings_of_a_line_are_in_the_order_of_its_columns():
    findings = [Finding("run_10/x.csv"), *(Finding("run_2/x.csv", 7, f"file_name_{n}") for n in (10, 2, 1))]
    assert [(finding.file, finding.column) for finding in sorted(findings)] == [
        ("run_2/x.csv", "file_name_1"),
        ("run_2/x.csv", "file_name_2"),
        ("run_2/x.csv", "file_name_10"),
        ("run_10/x.csv", ""),
    ]
